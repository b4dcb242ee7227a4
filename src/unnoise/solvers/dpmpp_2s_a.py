from __future__ import annotations

from torch import Tensor

from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import register
from unnoise.core.solver import Denoise
from unnoise.solvers.ancestral import Ancestral


@register("dpmpp-2s-a", "dpmpp_2s_ancestral", "DPM++ 2S a", "dpm++2s_a")
class DPMpp2SA(Ancestral):
    """DPM-Solver++(2S) down to a lower level, then up again with fresh noise. Two calls a step.

    The step down uses the picture that is predicted halfway in log-SNR (Lu et al. 2022, arXiv 2211.01095, algorithm 1
    with r = 1/2). Adding noise is exact, so the marginals have the order of the step down.

    Args:
        eta: how much of the noise is fresh, in [0, 1]; 0 is DPM-Solver++(2S).
        s_noise: factor on the fresh noise.
        rule: as in euler-a.
    """

    order = 2
    stochastic = True
    evaluations = 2
    use = "as dpm-2-a, steadier under strong guidance"

    def down(self, denoise: Denoise, e: Estimate, here: NoiseLevel, low: NoiseLevel, there: NoiseLevel) -> Tensor:
        if here.alpha == 0 or low.sigma == 0:
            return low.mix(e.x0, e.eps)
        middle = here.between(low, 0.5)
        x0 = denoise(middle.mix(e.x0, e.eps), middle, there).x0
        ratio = float(low.sigma) / float(here.sigma)
        return ratio * here.mix(e.x0, e.eps) + (float(low.alpha) - ratio * float(here.alpha)) * x0
