"""The rate of noising that rises linearly in t, which the continuous paths of score matching share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import Scalar


class LinearRate:
    """beta(t) = beta_min + (beta_max - beta_min) t, known by its integral B(t) over [0, t].

    Args:
        beta_min, beta_max: the rate at t = 0 and at t = 1.
    """

    def __init__(self, beta_min: float, beta_max: float) -> None:
        self.beta_min = self.low = checks.number("beta_min", beta_min, above=0)
        self.beta_max = checks.number("beta_max", beta_max, above=self.low)
        self.rise = self.beta_max - self.low

    def integral(self, t: Scalar) -> Scalar:
        """B(t) = beta_min t + (beta_max - beta_min) t^2 / 2; in float64 for a tensor."""
        t = t.double() if isinstance(t, Tensor) else t
        return t * (self.low + 0.5 * self.rise * t)

    def time(self, integral: Scalar) -> Scalar:
        """The time at which B has this value, at most 1; the root of the quadratic that does not cancel."""
        end = self.low + 0.5 * self.rise
        if isinstance(integral, Tensor):
            b = integral.double().clamp(max=end)
            return 2 * b / (self.low + torch.sqrt(self.low**2 + 2 * self.rise * b))
        c = min(integral, end)
        return 2 * c / (self.low + math.sqrt(self.low**2 + 2 * self.rise * c))
