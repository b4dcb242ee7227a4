from __future__ import annotations

from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.prediction import Prediction
from unnoise.core.registry import register


@register("v", "v_prediction")
class V(Prediction):
    """The velocity along a circle: v = alpha eps - sigma x0. Salimans and Ho 2022 (arXiv 2202.00512), appendix D."""

    def target(self, level: NoiseLevel) -> tuple[Scalar, Scalar]:
        return -level.sigma, level.alpha
