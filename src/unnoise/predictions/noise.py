from __future__ import annotations

from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.prediction import Prediction
from unnoise.core.registry import register


@register("noise", "epsilon", "eps")
class Noise(Prediction):
    """The noise itself: a = 0, b = 1. DDPM (arXiv 2006.11239), equation 14; no data in it at alpha = 0."""

    def target(self, level: NoiseLevel) -> tuple[Scalar, Scalar]:
        return 0.0, 1.0
