from __future__ import annotations

from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.solvers.reverse import refresh


@register("dpmpp-sde", "dpmpp_sde", "dpmpp_sde_gpu", "DPM++ SDE", "DPMSolverSDEScheduler")
class DPMppSDE(Solver):
    """DPM-Solver++(2S) for the stochastic equation: looks at a noisy state inside the step. Two calls a step.

    k-diffusion's sample_dpmpp_sde. The noise of the whole step contains that of its first part: the two are drawn over
    the parts and put together in the time in which ancestral noise is a Brownian motion, so that they fit whatever the
    source. Two independent draws would cost an order.

    Args:
        eta: how much of the noise is fresh, in [0, 1]; 0 is DPM-Solver++(2S).
        s_noise: factor on the fresh noise.
        r: where inside the step to look, in log-SNR.
    """

    order = 2
    stochastic = True
    evaluations = 2
    use = "noise with second-order steps and no history; good in 10 to 15 steps"

    def __init__(self, eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5) -> None:
        self.eta, self.s_noise = checks.number("eta", eta, 0, 1), checks.number("s_noise", s_noise, 0)
        self.r = checks.number("r", r, above=0, below=1)

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        kept, fresh = there.split(here, self.eta)
        x = NoiseLevel(there.alpha, kept).mix(e.x0, e.eps)
        if here.alpha == 0 or there.sigma == 0:
            return Move(refresh(x, fresh, self.s_noise, noise, here, there), e)
        middle = here.between(there, self.r)
        kept_first, fresh_first = middle.split(here, self.eta)
        inside = NoiseLevel(middle.alpha, kept_first).mix(e.x0, e.eps)
        z = None
        if self.eta * self.s_noise:
            z = noise.between(here, middle)
            inside = inside + self.s_noise * fresh_first * z
        x0 = denoise(inside, middle, there).x0
        weight = (float(there.alpha) - kept * float(here.alpha) / float(here.sigma)) / (2 * self.r)
        x = x + weight * (x0 - e.x0)
        if z is not None:
            a, b, c = (float(level.sigma_hat) ** -2 for level in (here, middle, there))  # the time of the noise
            z = ((b - a) / (c - a)) ** 0.5 * z + ((c - b) / (c - a)) ** 0.5 * noise.between(middle, there)
            x = x + self.s_noise * fresh * z
        return Move(x, e)
