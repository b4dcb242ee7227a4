from __future__ import annotations

from typing import Any

from torch import Tensor

from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("heun")
class Heun(Solver):
    """EDM's second-order solver: an Euler step, then again with the mean of the slopes at both ends. Two calls a step.

    Karras et al. 2022 (arXiv 2206.00364), algorithm 1. In x/alpha against sigma/alpha the slope is eps itself, on every
    path. Steps that touch pure noise or clean data have no second slope and are Euler's.
    """

    order = 2
    evaluations = 2
    use = "where a step must be exact and calls are cheap; without a history to start up"

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        ahead = there.mix(e.x0, e.eps)
        if there.sigma == 0 or here.alpha == 0:
            return Move(ahead, e)
        slope = (e.eps + denoise(ahead, there, there).eps) / 2
        scale = float(there.alpha) / float(here.alpha)
        x = here.mix(e.x0, e.eps)
        return Move(scale * x + (float(there.sigma) - scale * float(here.sigma)) * slope, e)
