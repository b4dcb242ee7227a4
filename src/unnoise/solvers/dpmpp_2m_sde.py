from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import FAR, NEAR, halved, reach, weights
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.solvers.reverse import kept_and_fresh, moments, refresh


@register(
    "dpmpp-2m-sde", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "DPM++ 2M SDE", "dpm++2m_sde", "sde-dpmsolver++", "dpmpp2m_sde"
)
class DPMpp2MSDE(Solver):
    """DPM-Solver++(2M) for the stochastic equation: 2M's extrapolation and fresh noise. One call a step.

    Lu et al. 2022 (arXiv 2211.01095), SDE-DPM-Solver++(2M); eta after k-diffusion. The first step, a step
    from pure noise and the step to clean data are of first order, and the last draws nothing.

    Args:
        eta: strength of the noise, 0 or more: 1 is the reverse diffusion, 0 the deterministic equation.
        s_noise: factor on the fresh noise.
        form: "midpoint", or "heun", which weighs the slope exactly.
        steady: do not extrapolate over a step much longer than the one before it, where errors would be magnified.
    """

    order = 2
    stochastic = True
    use = "the everyday one with noise: fine texture in 20 to 40 steps"

    def __init__(
        self,
        eta: float = 1.0,
        s_noise: float = 1.0,
        form: Literal["midpoint", "heun"] = "midpoint",
        steady: bool = True,
    ) -> None:
        self.eta, self.s_noise = checks.number("eta", eta, 0), checks.number("s_noise", s_noise, 0)
        self.form = checks.choice("form", form, "midpoint", "heun")
        self.steady = checks.flag("steady", steady)

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        kept, fresh = kept_and_fresh(here, there, self.eta)
        x = NoiseLevel(there.alpha, kept).mix(e.x0, e.eps)
        if here.alpha == 0 or there.sigma == 0:
            return Move(refresh(x, fresh, self.s_noise, noise, here, there), e)
        now = float(here.log_snr)
        if state is not None:
            x0_before, before = state
            h = float(there.log_snr) - now
            length = (1 + self.eta) * h
            whole, slope = moments(length, 2)
            weigh, weight = (weights, slope) if self.form == "heun" else (halved, whole / 2)
            far = NEAR if self.eta else FAR
            if self.steady and reach([0.0, (before - now) / h], -length, weigh, far) < 2:
                weight = 0.0
            x = x + float(there.alpha) * weight * h / (now - before) * (e.x0 - x0_before)
        return Move(refresh(x, fresh, self.s_noise, noise, here, there), e, (e.x0, now))
