from __future__ import annotations

from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.prediction import Prediction
from unnoise.core.registry import register


@register("data", "x0", "sample")
class Data(Prediction):
    """The clean data: a = 1, b = 0."""

    def target(self, level: NoiseLevel) -> tuple[Scalar, Scalar]:
        return 1.0, 0.0
