from __future__ import annotations

import math

import torch
from torch import Tensor

from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.paths.rate import LinearRate


@register("sub-vp", "subvp")
class SubVP(Path):
    """The sub-VP path: the data fades as on `vp`, with less noise on it at every time. Made for likelihoods.

    Song et al. 2021 (arXiv 2011.13456), equation 29: alpha = exp(-B/2), sigma = 1 - exp(-B). So sigma/alpha is
    2 sinh(B/2), and a level gives its time in closed form. *sigma* is the deviation: it is `vp`'s variance.

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
            return NoiseLevel(torch.exp(-0.5 * b), -torch.expm1(-b))
        return NoiseLevel(math.exp(-0.5 * b), -math.expm1(-b))

    def time_of(self, level: NoiseLevel) -> Scalar:
        sigma = level.sigma_hat
        if isinstance(sigma, Tensor):
            t = torch.as_tensor(self.rate.time(2 * torch.asinh(0.5 * sigma.double())))
            return torch.where(sigma >= self._end, torch.ones_like(t), t)
        return 1.0 if sigma >= self._end else self.rate.time(2 * math.asinh(0.5 * sigma))
