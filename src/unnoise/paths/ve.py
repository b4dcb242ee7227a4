from __future__ import annotations

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.path import Path
from unnoise.core.registry import register


@register("ve", "edm", "variance-exploding")
class VE(Path):
    """EDM's path: the data is never shrunk and the noise grows to 80 times it; sigma is time itself, in other units.

    Karras et al. 2022 (arXiv 2206.00364), table 1: alpha = 1, sigma = t * sigma_max. Networks are trained down to
    sigma_min, where spacings place their last noisy level.
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        self.sigma_max = checks.number("sigma_max", sigma_max, above=0)
        self.sigma_min = checks.number("sigma_min", sigma_min, above=0, below=self.sigma_max)
        self.t_min = self.sigma_min / self.sigma_max

    def at(self, t: Scalar) -> NoiseLevel:
        t = t.double() if isinstance(t, Tensor) else t
        return NoiseLevel(1.0 + 0 * t, t * self.sigma_max)

    def time_of(self, level: NoiseLevel) -> Scalar:
        t = level.sigma_hat / self.sigma_max
        return t.clamp(max=1.0) if not isinstance(t, float) else min(t, 1.0)
