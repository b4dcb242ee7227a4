from __future__ import annotations

from torch import Tensor

from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.path import Path
from unnoise.core.registry import register


@register("flow", "rectified-flow")
class Flow(Path):
    """Rectified flow: a straight line from the data to the noise, alpha = 1 - t, sigma = t.

    Liu et al. 2022 (arXiv 2209.03003), Lipman et al. 2022 (arXiv 2210.02747). The shift that large pictures need
    belongs to the spacing that visits the path, not to the path.
    """

    def at(self, t: Scalar) -> NoiseLevel:
        t = t.double() if isinstance(t, Tensor) else t
        return NoiseLevel(1.0 - t, 1.0 * t)

    def time_of(self, level: NoiseLevel) -> Scalar:
        return level.sigma / (level.alpha + level.sigma)
