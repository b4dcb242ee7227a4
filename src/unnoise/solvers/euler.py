from __future__ import annotations

from typing import Any

from torch import Tensor

from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("euler")
class Euler(Solver):
    """Mixes the two estimates at the next level: at once DDIM, EDM's Euler and the flow's. One call a step, order 1."""

    order = 1
    use = "the plain one: to learn from, and a measure for the others"

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        return Move(there.mix(e.x0, e.eps), e)
