from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import Past, multistep
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.errors import UnnoiseError


@register("res-multistep", "res_multistep", "res-2m", "res_2m", "exp-adams")
class RESMultistep(Solver):
    """Exponential Adams: a polynomial through the last predicted pictures, in log-SNR, exactly. One call, order 2.

    RES in many steps (Zhang et al. 2023, arXiv 2308.02157); Hochbruck and Ostermann 2010 (Acta Numerica 19), section
    2. With 3 points it is dpmpp-3m. The step to clean data is Euler's.

    Args:
        points: estimates that a step looks at, and its order; 1 to 4.
        lower_order_final: in a run that ends in data, look at no more estimates than steps are left.
        singlestep_start: take the first steps as single ones of third order, of three calls: without it a run of order
            above 2 is of second order as a whole, however small its error.
    """

    order = 2
    use = "as dpmpp-2m with exact weights, and of any order to 4; closer where steps are many"

    def __init__(self, points: int = 2, lower_order_final: bool = True, singlestep_start: bool = False) -> None:
        if points not in (1, 2, 3, 4):
            raise UnnoiseError(f"res-multistep cannot look at {points} points", "choose 1 to 4")
        self.points = self.order = points
        self.lower_order_final = lower_order_final
        self.singlestep_start = singlestep_start
        self.starting = max(0, points - 2) if singlestep_start else 0  # steps of more calls

    def start(self, levels: Sequence[NoiseLevel]) -> Past:
        return Past.before(levels) if self.lower_order_final else Past()

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        return multistep(denoise, x, here, there, state, "x0", self.points, singlestep_start=self.singlestep_start)
