"""A path that was published as a table of noise levels, made continuous."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unnoise.core.level import NoiseLevel, Scalar

MOST_LEVELS = 1_000_000


class Table:
    """Continuous ``at`` and ``time_of`` through the levels of a variance-preserving table.

    The level of index i lies at t = (i + 1) / n. Between two levels log(sigma/alpha) is linear in t, which is how
    fractional timesteps of published models are read everywhere. Below the first level sigma/alpha is proportional to
    t, so that t = 0 is exactly the data.

    Args:
        betas: (n,) float64 variances of the single steps, each in (0, 1).
    """

    def __init__(self, betas: Tensor) -> None:
        self.alpha_bar = torch.cumprod(1 - betas.double(), 0)  # (n,)
        self.logs = 0.5 * (torch.log1p(-self.alpha_bar) - torch.log(self.alpha_bar))  # (n,) log(sigma/alpha)
        self._list = [float(v) for v in self.logs]
        self.num_levels = len(self._list)

    def at(self, t: Scalar) -> NoiseLevel:
        """The level at time t; float for float, float64 tensor for tensor."""
        if isinstance(t, Tensor):
            sigma_hat = torch.exp(self._log_tensor(t.double()))
            alpha = torch.rsqrt(1 + sigma_hat**2)
            return NoiseLevel(alpha, alpha * sigma_hat)
        if t <= 0:
            return NoiseLevel(1.0, 0.0)
        sigma_hat_f = math.exp(self._log_float(t))
        alpha_f = 1 / math.sqrt(1 + sigma_hat_f**2)
        return NoiseLevel(alpha_f, alpha_f * sigma_hat_f)

    def time_of(self, level: NoiseLevel) -> Scalar:
        """The time with the level's log-SNR, clamped to [0, 1]."""
        log_snr = level.log_snr
        if isinstance(log_snr, Tensor):
            return self._time_tensor(-log_snr.double())
        if log_snr == math.inf:
            return 0.0
        return float(self._time_tensor(torch.tensor(-log_snr, dtype=torch.float64)))

    def _log_float(self, t: float) -> float:
        place = t * self.num_levels - 1
        if place <= 0:
            return self._list[0] + math.log(t * self.num_levels)
        low = min(int(place), self.num_levels - 2)
        return self._list[low] + min(place - low, 1.0) * (self._list[low + 1] - self._list[low])

    def _log_tensor(self, t: Tensor) -> Tensor:
        logs = self.logs.to(t.device)
        place = t * self.num_levels - 1
        low = place.floor().clamp(0, self.num_levels - 2).long()
        inside = logs[low] + (place - low).clamp(0, 1) * (logs[low + 1] - logs[low])
        return torch.where(place <= 0, logs[0] + torch.log(t * self.num_levels), inside)

    def _time_tensor(self, log_sigma: Tensor) -> Tensor:
        logs = self.logs.to(log_sigma.device)
        low = (torch.searchsorted(logs, log_sigma.contiguous()) - 1).clamp(0, self.num_levels - 2)
        part = ((log_sigma - logs[low]) / (logs[low + 1] - logs[low])).clamp(0, 1)
        below = torch.exp(log_sigma - logs[0]) / self.num_levels
        return torch.where(log_sigma < logs[0], below, (low + part + 1) / self.num_levels)
