"""Which times are trained, and how often."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register


class TimeSampler(ABC):
    """Maps uniform numbers to training times by the inverse of a distribution function."""

    kind: ClassVar[str] = "objectives"

    @abstractmethod
    def times(self, u: Tensor, path: Path) -> Tensor:
        """Times in [0, 1], float64, from uniform numbers u in [0, 1), float64, of the same shape."""


def _probit(u: Tensor) -> Tensor:
    """Normal quantiles; u is kept off 0 and 1 so that they stay finite."""
    quantiles: Tensor = torch.special.ndtri(u.double().clamp(1e-9, 1 - 1e-9))
    return quantiles


@register("uniform-times")
class Uniform(TimeSampler):
    """Every training level as often as every other: levels of a table alike, or t evenly in [t_min, 1].

    DDPM (arXiv 2006.11239), algorithm 1.
    """

    def times(self, u: Tensor, path: Path) -> Tensor:
        if path.num_levels:
            return ((u.double() * path.num_levels).floor() + 1) / path.num_levels
        return path.t_min + u.double() * (1 - path.t_min)


@register("logit-normal")
class LogitNormal(TimeSampler):
    """Middling times most often: the logit of t is normal. Esser et al. 2024 (arXiv 2403.03206), equation 19.

    Args:
        mean, std: of the logit.
        shift: moves times toward noise as the spacing of that name does, for large pictures.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0, shift: float = 1.0) -> None:
        self.mean, self.std = checks.number("mean", mean), checks.number("std", std, above=0)
        self.shift = checks.number("shift", shift, above=0)

    def times(self, u: Tensor, path: Path) -> Tensor:
        return torch.sigmoid(self.mean + self.std * _probit(u) + math.log(self.shift))


@register("log-normal-sigma")
class LogNormalSigma(TimeSampler):
    """The logarithm of sigma/alpha is normal. Karras et al. 2022 (arXiv 2206.00364), table 1.

    Args:
        mean, std: of ln(sigma/alpha).
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        self.mean, self.std = checks.number("mean", mean), checks.number("std", std, above=0)

    def times(self, u: Tensor, path: Path) -> Tensor:
        sigma = torch.exp(self.mean + self.std * _probit(u))
        t = path.time_of(NoiseLevel(torch.ones_like(sigma), sigma))
        return torch.as_tensor(t).clamp(path.t_min, 1.0)
