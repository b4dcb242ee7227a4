from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import multistep, weights
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("ipndm")
class IPNDM(Solver):
    """iPNDM: Adams and Bashforth's weights for even steps, whatever the steps are. One call, no order claimed.

    Zhang and Chen 2022 (arXiv 2204.13902): PNDM (Liu et al. 2022, arXiv 2202.09778) with lower
    orders for a start. Where sigma/alpha does not fall evenly it is of second order at best; ``lms`` is the same done
    exactly.

    Args:
        points: estimates that a step looks at; 1 to 4.
    """

    use = "few steps on grids that are near even; not in the limit of many steps"

    def __init__(self, points: int = 4) -> None:
        self.points = checks.whole("points", points, 1, 4)

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        return multistep(denoise, x, here, there, state, "slope", self.points, even, to_data=True)


def even(nodes: Sequence[float], z: float) -> list[float]:
    """Weights as if the values lay at even distances: 3/2, -1/2; 23/12, -16/12, 5/12; and so on."""
    return weights([-float(i) for i in range(len(nodes))], 0.0)
