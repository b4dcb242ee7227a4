from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.solvers.reverse import ancestral, check_choice, check_settings, refresh


@register("dpm-2-a", "dpm_2_ancestral", "DPM2 a", "dpm2_a", "KDPM2AncestralDiscreteScheduler")
class DPM2A(Solver):
    """DPM-Solver-2 down to a lower level, then up again with fresh noise. Two calls a step.

    The step down uses the noise that is predicted halfway in log-SNR (Lu et al. 2022, arXiv 2206.00927, algorithm 1;
    k-diffusion's form, a midpoint rule in sigma/alpha). Adding noise is exact, so the marginals have the order of the
    step down. Where all of the noise is fresh the step down leads to data and is Euler's.

    Args:
        eta: how much of the noise is fresh, in [0, 1]; 0 is deterministic.
        s_noise: factor on the fresh noise.
        rule: as in euler-a.
    """

    order = 2
    stochastic = True
    evaluations = 2
    use = "as euler-a with steps of second order, where two calls a step are affordable"

    def __init__(
        self, eta: float = 1.0, s_noise: float = 1.0, rule: Literal["posterior", "rectified"] = "posterior"
    ) -> None:
        check_settings(1, eta=eta, s_noise=s_noise)
        check_choice("rule", rule, "posterior", "rectified")
        self.eta, self.s_noise, self.rule = eta, s_noise, rule

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        kept, fresh = ancestral(here, there, self.eta, self.rule)
        down = NoiseLevel(there.alpha, kept)
        if here.alpha == 0 or kept == 0:
            x = down.mix(e.x0, e.eps)
        else:
            middle = here.between(down, 0.5)
            eps = denoise(middle.mix(e.x0, e.eps), middle, there).eps
            scale = float(there.alpha) / float(here.alpha)
            x = scale * here.mix(e.x0, e.eps) + (kept - scale * float(here.sigma)) * eps
        return Move(refresh(x, fresh, self.s_noise, noise, here, there), e)
