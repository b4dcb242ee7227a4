from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.solvers.ddim import DDIM


@register("repaint", "resample")
class RePaint(Solver):
    """Goes each step several times: down with another solver, up again with fresh noise. For drawing parts anew.

    RePaint (Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1) with jumps of one step. What is known and what is drawn
    get to know each other at every level, where plain replacement sees the known part through noise alone. Without a
    known part it samples what the inner solver does, at several times the cost.

    Args:
        times: how often each step is taken, 1 or more; the step to clean data is taken once.
        inner: the solver of the way down; its history begins anew after each jump.
    """

    stochastic = True
    evaluations = 5
    use = "to draw a part of a picture anew so that it goes with the rest"

    def __init__(self, times: int = 5, inner: Solver | None = None) -> None:
        self.times = checks.whole("times", times, 1, 1000)
        self.inner = checks.instance(
            "inner", DDIM() if inner is None else inner, Solver, "give a solver, such as DDIM()"
        )
        self.evaluations = self.times * self.inner.evaluations

    def start(self, levels: Sequence[NoiseLevel]) -> Any:
        return self.inner.start(levels)

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        move = self.inner.step(denoise, x, here, there, state, noise)
        ratio = float(here.alpha) / float(there.alpha)
        fresh = math.sqrt(max(0.0, float(here.sigma) ** 2 - (ratio * float(there.sigma)) ** 2))
        for _ in range(self.times - 1 if there.sigma else 0):
            back = ratio * move.x + fresh * noise.between(here, there)
            again = self.inner.step(denoise, back, here, there, self.inner.start([here, there]), noise)
            move = again._replace(estimate=move.estimate)
        return move
