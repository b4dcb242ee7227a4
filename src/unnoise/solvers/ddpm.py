from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor

from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("ddpm", "ancestral")
class DDPM(Solver):
    """Ancestral sampling, the classic: the exact posterior given the predicted picture, noise drawn anew each step.

    Ho et al. 2020 (arXiv 2006.11239), algorithm 2. Meant for hundreds of steps. The step to sigma = 0 draws none.

    Args:
        variance: of the fresh noise: "small", the posterior's for data of one point, or "large", the forward step's.
    """

    order = 1
    stochastic = True
    use = "to sample as the first papers did, with hundreds of steps"

    def __init__(self, variance: Literal["small", "large"] = "small") -> None:
        self.variance = variance

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        kept, fresh = there.split(here, 1.0)
        x = NoiseLevel(there.alpha, kept).mix(e.x0, e.eps)
        if fresh and self.variance == "large":
            ratio = float(here.alpha) / float(there.alpha)
            fresh = math.sqrt(float(here.sigma) ** 2 - (ratio * float(there.sigma)) ** 2)  # sqrt(beta) of the step
        if fresh:
            x = x + fresh * noise.between(here, there)
        return Move(x, e)
