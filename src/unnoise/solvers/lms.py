from __future__ import annotations

from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import multistep
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("lms", "k_lms", "linear-multistep", "ipndm_v")
class LMS(Solver):
    """Linear multistep: a polynomial through the last predicted noises, in sigma/alpha. One call a step, order 4.

    Adams and Bashforth's method on an uneven grid, with Karras et al.'s equation (arXiv 2206.00364, equation 1); the
    same as rho-AB DEIS (Zhang and Chen 2022, arXiv 2204.13902), and what ipndm_v is meant to be. It goes on to sigma =
    0 at full order.

    Args:
        points: estimates that a step looks at, and its order; 1 to 4.
        singlestep_start: take the first steps as single ones of third order, of three calls: without it a run of order
            above 2 is of second order as a whole, however small its error.
        steady: look at fewer estimates in a step much longer than those before it, where they would be magnified.
    """

    order = 4
    use = "as deis, on grids that are even in sigma; the oldest one-call method, kept for old pictures"

    def __init__(self, points: int = 4, singlestep_start: bool = False, steady: bool = True) -> None:
        self.points = self.order = checks.whole("points", points, 1, 4)
        self.singlestep_start = checks.flag("singlestep_start", singlestep_start)
        self.steady = checks.flag("steady", steady)
        self.starting = max(0, self.points - 2) if self.singlestep_start else 0  # steps of more calls

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        start, steady = self.singlestep_start, self.steady
        return multistep(
            denoise, x, here, there, state, "slope", self.points, singlestep_start=start, to_data=True, steady=steady
        )
