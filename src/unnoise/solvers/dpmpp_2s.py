from __future__ import annotations

from typing import Any

from torch import Tensor

from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import single_step
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("dpmpp-2s", "dpmpp_2s", "dpm++2s", "dpm++ 2s")
class DPMpp2S(Solver):
    """DPM-Solver++(2S): uses the picture predicted in the middle of the step. Two calls a step, order 2.

    Lu et al. 2022 (arXiv 2211.01095), algorithm 1 with r = 1/2. Steps that touch pure noise or clean data are Euler's.
    """

    order = 2
    evaluations = 2
    use = "as heun, for strong guidance: it follows the picture, which changes less than the noise"

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        if here.alpha == 0 or there.sigma == 0:
            return Move(there.mix(e.x0, e.eps), e)
        return Move(single_step(denoise, e, here, there, "x0", 2), e)
