from __future__ import annotations

import math

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.prediction import Prediction
from unnoise.core.registry import register


@register("edm", "preconditioned")
class EDM(Prediction):
    """EDM's preconditioning: input and target of unit variance at every level.

    Karras et al. 2022 (arXiv 2206.00364), table 1. With s = sigma/alpha and D = c_skip x/alpha + c_out F, F is
    ``a x0 + b eps`` for the a and b below; multiplied through by alpha they stay finite at alpha = 0.

    Args:
        sigma_data: standard deviation of the data.
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        self.sigma_data = checks.number("sigma_data", sigma_data, above=0)

    def _norm(self, level: NoiseLevel) -> Scalar:
        square = level.sigma**2 + (level.alpha * self.sigma_data) ** 2
        return square.sqrt() if isinstance(square, Tensor) else math.sqrt(square)

    def target(self, level: NoiseLevel) -> tuple[Scalar, Scalar]:
        norm = self._norm(level)
        return level.sigma / (self.sigma_data * norm), -self.sigma_data * level.alpha / norm

    def scale_in(self, level: NoiseLevel) -> Scalar:
        return 1 / self._norm(level)
