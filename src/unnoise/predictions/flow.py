from __future__ import annotations

from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.prediction import Prediction
from unnoise.core.registry import register


@register("flow", "velocity")
class FlowVelocity(Prediction):
    """The velocity along a straight line: u = eps - x0. Liu et al. 2022 (arXiv 2209.03003), equation 1."""

    def target(self, level: NoiseLevel) -> tuple[Scalar, Scalar]:
        return -1.0, 1.0
