from __future__ import annotations

import math

import torch
from torch import Tensor

from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.paths.rate import LinearRate


@register("vp", "variance-preserving")
class VP(Path):
    """The variance-preserving path of score matching: DDPM's linear path with ever more levels, made continuous.

    Song et al. 2021 (arXiv 2011.13456), equation 33: alpha = exp(-B/2), sigma^2 = 1 - exp(-B), where B(t) is the
    integral of a rate that rises linearly from beta_min to beta_max. Its end keeps a trace of the data, alpha = 0.0066.

    Args:
        beta_min, beta_max: the rate at t = 0 and at t = 1.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self.rate = LinearRate(beta_min, beta_max)
        self.beta_min, self.beta_max = self.rate.beta_min, self.rate.beta_max
        self._end = float(self.at(1.0).sigma_hat)

    def at(self, t: Scalar) -> NoiseLevel:
        b = self.rate.integral(t)
        if isinstance(b, Tensor):
            return NoiseLevel(torch.exp(-0.5 * b), torch.sqrt(-torch.expm1(-b)))
        return NoiseLevel(math.exp(-0.5 * b), math.sqrt(-math.expm1(-b)))

    def time_of(self, level: NoiseLevel) -> Scalar:
        sigma = level.sigma_hat
        if isinstance(sigma, Tensor):
            t = torch.as_tensor(self.rate.time(torch.log1p(sigma.double() ** 2)))
            return torch.where(sigma >= self._end, torch.ones_like(t), t)
        return 1.0 if sigma >= self._end else self.rate.time(math.log1p(sigma * sigma))
