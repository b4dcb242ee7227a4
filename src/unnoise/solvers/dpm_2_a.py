from __future__ import annotations

from typing import Literal

from torch import Tensor

from unnoise.core import checks
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import bears
from unnoise.core.registry import register
from unnoise.core.solver import Denoise
from unnoise.solvers.ancestral import Ancestral


@register("dpm-2-a", "dpm_2_ancestral", "DPM2 a", "dpm2_a", "KDPM2AncestralDiscreteScheduler")
class DPM2A(Ancestral):
    """DPM-Solver-2 down to a lower level, then up again with fresh noise. Two calls a step.

    The step down uses the noise that is predicted halfway in log-SNR (Lu et al. 2022, arXiv 2206.00927, algorithm 1;
    k-diffusion's form, a midpoint rule in sigma/alpha). Adding noise is exact, so the marginals have the order of the
    step down. Where all of the noise is fresh the step down leads to data and is Euler's.

    Args:
        eta: how much of the noise is fresh, in [0, 1]; 0 is deterministic.
        s_noise: factor on the fresh noise.
        rule: as in euler-a.
        steady: take Euler's step down where sigma/alpha falls by more than a factor of 7 in it.
    """

    order = 2
    stochastic = True
    evaluations = 2
    use = "as euler-a with steps of second order, where two calls a step are affordable"

    def __init__(
        self,
        eta: float = 1.0,
        s_noise: float = 1.0,
        rule: Literal["posterior", "rectified"] = "posterior",
        steady: bool = True,
    ) -> None:
        super().__init__(eta, s_noise, rule)
        self.steady = checks.flag("steady", steady)

    def down(self, denoise: Denoise, e: Estimate, here: NoiseLevel, low: NoiseLevel, there: NoiseLevel) -> Tensor:
        if here.alpha == 0 or low.sigma == 0:
            return low.mix(e.x0, e.eps)

        def midpoint(denoise: Denoise, e: Estimate) -> Tensor:
            middle = here.between(low, 0.5)
            eps = denoise(middle.mix(e.x0, e.eps), middle, there).eps
            scale = float(low.alpha) / float(here.alpha)
            return scale * here.mix(e.x0, e.eps) + (float(low.sigma) - scale * float(here.sigma)) * eps

        if self.steady and not bears(midpoint, here, low, 2):
            return low.mix(e.x0, e.eps)
        return midpoint(denoise, e)
