from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import multistep
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("gradient-estimation", "gradient_estimation", "ge")
class GradientEstimation(Solver):
    """Gradient estimation: Euler with the noise extrapolated from the step before. One call, no order claimed.

    Permenter and Yuan 2023 (arXiv 2306.04848): gamma eps + (1 - gamma) eps_before. With 1 it is Euler, with
    3/2 Adams's second-order weights for even steps. The steps from pure noise and to clean data are Euler's.

    Args:
        gamma: how far to push, 1 or more.
    """

    use = "5 to 10 steps, where it is closer than euler at the same cost"

    def __init__(self, gamma: float = 2.0) -> None:
        self.gamma = checks.number("gamma", gamma, 1)

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        return multistep(denoise, x, here, there, state, "slope", 2, self._weigh)

    def _weigh(self, nodes: Sequence[float], z: float) -> list[float]:
        return [self.gamma, 1 - self.gamma] if len(nodes) == 2 else [1.0]
