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


@register("deis", "deis-3m", "deis_3m")
class DEIS(Solver):
    """DEIS: a polynomial through the last predicted noises, in log-SNR, integrated exactly. One call a step, order 3.

    Zhang and Chen 2022 (arXiv 2204.13902), AB-DEIS with the polynomial in log(sigma/alpha), diffusers' "logrho". The
    same as DPM-Solver in many steps. The step to clean data is Euler's.

    Args:
        points: estimates that a step looks at, and its order; 1 to 4.
        lower_order_final: in a run that ends in data, look at no more estimates than steps are left.
        singlestep_start: take the first steps as single ones of third order, of three calls: without it a run of order
            above 2 is of second order as a whole, however small its error.
    """

    order = 3
    use = "few steps with weak guidance or none; strong guidance is for methods that follow the picture"

    def __init__(self, points: int = 3, lower_order_final: bool = True, singlestep_start: bool = False) -> None:
        if points not in (1, 2, 3, 4):
            raise UnnoiseError(f"deis cannot look at {points} points", "choose 1 to 4")
        self.points = self.order = points
        self.lower_order_final = lower_order_final
        self.singlestep_start = singlestep_start
        self.starting = max(0, points - 2) if singlestep_start else 0  # steps of more calls

    def start(self, levels: Sequence[NoiseLevel]) -> Past:
        return Past.before(levels) if self.lower_order_final else Past()

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        return multistep(denoise, x, here, there, state, "eps", self.points, singlestep_start=self.singlestep_start)
