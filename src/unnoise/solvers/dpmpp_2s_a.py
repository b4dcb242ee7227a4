from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.solvers.reverse import ancestral, check_choice, check_settings, refresh


@register("dpmpp-2s-a", "dpmpp_2s_ancestral", "DPM++ 2S a", "dpm++2s_a")
class DPMpp2SA(Solver):
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
            x0 = denoise(middle.mix(e.x0, e.eps), middle, there).x0
            ratio = kept / float(here.sigma)
            x = ratio * here.mix(e.x0, e.eps) + (float(there.alpha) - ratio * float(here.alpha)) * x0
        return Move(refresh(x, fresh, self.s_noise, noise, here, there), e)
