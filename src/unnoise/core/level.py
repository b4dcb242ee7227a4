"""The noise level: how much of a state is data and how much is noise."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

Scalar = float | Tensor


def over(value: Scalar, x: Tensor) -> Scalar:
    """``value`` made to broadcast over ``x``: a tensor of shape (B,) becomes (B, 1, ..., 1); all else stays."""
    if isinstance(value, Tensor):
        value = value.to(device=x.device, dtype=x.dtype)
        if value.ndim == 1 and x.ndim > 1:
            return value.reshape(-1, *[1] * (x.ndim - 1))
    return value


class NoiseLevel(NamedTuple):
    """A point on a Gaussian path: ``x = alpha * x0 + sigma * eps``.

    Both numbers are Python floats where a run is planned (so that ``there.sigma == 0`` costs nothing) and tensors of
    shape (B,), or any shape that broadcasts over the state, in training. Solvers see levels and never time.
    """

    alpha: Scalar
    sigma: Scalar

    @property
    def sigma_hat(self) -> Scalar:
        """sigma / alpha: the noise in units of the data; infinite where alpha is 0."""
        if isinstance(self.alpha, Tensor) or isinstance(self.sigma, Tensor):
            return self.sigma / self.alpha
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def log_snr(self) -> Scalar:
        """log(alpha / sigma), half of the logarithm of the signal-to-noise ratio of powers; it falls as noise grows."""
        if isinstance(self.alpha, Tensor) or isinstance(self.sigma, Tensor):
            return torch.log(torch.as_tensor(self.alpha)) - torch.log(torch.as_tensor(self.sigma))
        if self.sigma == 0:
            return math.inf
        return math.log(self.alpha) - math.log(self.sigma) if self.alpha else -math.inf

    def mix(self, x0: Tensor, eps: Tensor) -> Tensor:
        """The state at this level: alpha x0 + sigma eps. DDPM (arXiv 2006.11239) equation 4, for any path."""
        return over(self.alpha, x0) * x0 + over(self.sigma, x0) * eps

    def split(self, here: NoiseLevel, eta: float) -> tuple[float, float]:
        """This level's sigma as (kept, fresh) for a stochastic step from the noisier level ``here``.

        ``kept**2 + fresh**2 == sigma**2``. With ``eta`` 0 nothing is fresh; with 1 the step is the exact ancestral one.
        DDIM (arXiv 2010.02502) equation 16, written with sigma/alpha so that it holds for every path.
        """
        sigma, ratio = float(self.sigma), 0.0
        if sigma == 0:
            return 0.0, 0.0
        if float(here.alpha) > 0:
            ratio = (sigma * float(here.alpha)) / (float(self.alpha) * float(here.sigma))
        fresh = min(eta * sigma * math.sqrt(max(0.0, 1 - ratio * ratio)), sigma)
        return math.sqrt(max(0.0, sigma * sigma - fresh * fresh)), fresh

    def between(self, there: NoiseLevel, r: float) -> NoiseLevel:
        """The level a fraction ``r`` of the way to ``there``, evenly in log-SNR.

        Raises:
            ValueError: an end has no finite log-SNR.
        """
        ends = [float(v) for v in (*self, *there)]
        if min(ends) <= 0:
            raise ValueError("between needs two levels of finite log-SNR")
        alpha = ends[0] ** (1 - r) * ends[2] ** r
        sigma = ends[1] ** (1 - r) * ends[3] ** r
        return NoiseLevel(alpha, sigma)
