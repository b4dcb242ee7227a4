from __future__ import annotations

from typing import Any

from torch import Tensor

from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import advance
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("exp-heun", "exp_heun_2_x0", "exp-heun-2-x0")
class ExpHeun(Solver):
    """Exponential Heun: an Euler step, then the line between the pictures predicted at both ends. Two calls, order 2.

    SEEDS-2 without noise and with its second call at the step's end (Gonzalez et al. 2023, arXiv 2305.14267); Heun's
    method of Hochbruck and Ostermann 2010 (Acta Numerica 19), section 2. Steps that touch pure noise or clean data
    are Euler's.
    """

    order = 2
    evaluations = 2
    use = "as heun, for strong guidance or long steps"

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        ahead = there.mix(e.x0, e.eps)
        if here.alpha == 0 or there.sigma == 0:
            return Move(ahead, e)
        ends = [(here, e.x0), (there, denoise(ahead, there, there).x0)]
        return Move(advance("x0", here.mix(e.x0, e.eps), here, there, ends), e)
