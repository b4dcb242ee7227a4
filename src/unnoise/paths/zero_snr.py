from __future__ import annotations

import math

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.errors import UnnoiseError
from unnoise.paths.scaled_linear import ScaledLinear


@register("zero-snr", "zero-terminal-snr")
class ZeroSNR(Path):
    """Another path's table of levels, moved so that the last is pure noise: what training shows, a run can start from.

    Lin et al. 2023 (arXiv 2305.08891), algorithm 1: alpha is shifted until it ends at 0 and scaled until the first
    level is what it was. Done here on the inner path itself, so that the levels between those of the table move with
    them; below the first level nothing changes. Noise prediction carries nothing at the new end: use v.

    Args:
        inner: a path with a table (`ddpm-linear`, `scaled-linear`, `cosine`); Stable Diffusion's where None.
    """

    def __init__(self, inner: Path | None = None) -> None:
        inner = ScaledLinear() if inner is None else inner
        self.inner = checks.instance("inner", inner, Path, "give one, such as ScaledLinear()")
        last = float(inner.at(1.0).alpha)
        if inner.num_levels is None or last == 0:
            raise UnnoiseError(
                "zero-snr wants a path with a table of levels that ends short of pure noise",
                "give it ddpm-linear, scaled-linear or cosine",
            )
        self.num_levels, self.t_min = inner.num_levels, inner.t_min
        self._first, self._last = float(inner.at(inner.t_min).alpha), last
        self._scale = self._first / (self._first - last)

    def at(self, t: Scalar) -> NoiseLevel:
        level = self.inner.at(t)
        if isinstance(level.alpha, Tensor):
            alpha = (self._scale * (level.alpha - self._last)).clamp(min=0)
            untouched = level.alpha > self._first
            sigma = torch.where(untouched, torch.as_tensor(level.sigma), torch.sqrt(1 - alpha.clamp(max=1) ** 2))
            return NoiseLevel(torch.where(untouched, level.alpha, alpha), sigma)
        if level.alpha > self._first:
            return level
        alpha_f = max(0.0, self._scale * (level.alpha - self._last))
        return NoiseLevel(alpha_f, math.sqrt(1 - alpha_f * alpha_f))

    def time_of(self, level: NoiseLevel) -> Scalar:
        alpha, sigma = level
        if isinstance(alpha, Tensor) or isinstance(sigma, Tensor):
            alpha, sigma = torch.as_tensor(alpha).double(), torch.as_tensor(sigma).double()
            own = alpha / torch.hypot(alpha, sigma)  # on the circle alpha^2 + sigma^2 = 1
            moved = self._last + own.clamp(max=self._first) / self._scale
            within = self.inner.time_of(NoiseLevel(moved, torch.sqrt(1 - moved**2)))
            t = torch.where(own > self._first, self.inner.time_of(level), within)
            return torch.where(alpha == 0, torch.ones_like(t), t)
        own_f = alpha / math.hypot(alpha, sigma)
        if own_f > self._first:
            return self.inner.time_of(level)
        moved_f = self._last + own_f / self._scale
        return 1.0 if alpha == 0 else self.inner.time_of(NoiseLevel(moved_f, math.sqrt(1 - moved_f * moved_f)))
