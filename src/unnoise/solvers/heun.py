from __future__ import annotations

from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import bears
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("heun")
class Heun(Solver):
    """EDM's second-order solver: an Euler step, then again with the mean of the slopes at both ends. Two calls a step.

    Karras et al. 2022 (arXiv 2206.00364), algorithm 1. In x/alpha against sigma/alpha the slope is eps itself, on every
    path. Steps that touch pure noise or clean data have no second slope and are Euler's.

    Args:
        steady: take Euler's step where sigma/alpha falls by more than a factor of 5: the slope at the clean end, where
            little noise is left, would magnify what estimates are wrong by.
    """

    order = 2
    evaluations = 2
    use = "where a step must be exact and calls are cheap; without a history to start up"

    def __init__(self, steady: bool = True) -> None:
        self.steady = checks.flag("steady", steady)

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        if there.sigma == 0 or here.alpha == 0:
            return Move(there.mix(e.x0, e.eps), e)
        return Move(heun(denoise, e, here, there, self.steady), e)


def heun(denoise: Denoise, e: Estimate, here: NoiseLevel, there: NoiseLevel, steady: bool) -> Tensor:
    """The state at ``there``; e is the estimate at ``here``. ``steady``: Euler's, where the step does not bear more."""
    ahead = there.mix(e.x0, e.eps)
    if steady and not bears(lambda denoise, e: heun(denoise, e, here, there, False), here, there, 2):
        return ahead
    slope = (e.eps + denoise(ahead, there, there).eps) / 2
    scale = float(there.alpha) / float(here.alpha)
    return scale * here.mix(e.x0, e.eps) + (float(there.sigma) - scale * float(here.sigma)) * slope
