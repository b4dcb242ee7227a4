from __future__ import annotations

import torch

from unnoise.core import checks
from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.paths.table import MOST_LEVELS, Table


@register("scaled-linear", "stable-diffusion")
class ScaledLinear(Path):
    """Stable Diffusion's path: square roots of the variances rise linearly, from 0.00085 to 0.012 over 1000 levels.

    Rombach et al. 2022 (arXiv 2112.10752), as in the configuration of the published weights.
    """

    def __init__(self, beta_start: float = 0.00085, beta_end: float = 0.012, num_levels: int = 1000) -> None:
        self.num_levels = num_levels = checks.whole("num_levels", num_levels, 2, MOST_LEVELS)
        self.beta_start = beta_start = checks.number("beta_start", beta_start, above=0, below=1)
        self.beta_end = beta_end = checks.number("beta_end", beta_end, above=0, below=1)
        roots = torch.linspace(beta_start**0.5, beta_end**0.5, num_levels, dtype=torch.float64)
        self.table = Table(roots**2)
        self.t_min = 1 / num_levels

    def at(self, t: Scalar) -> NoiseLevel:
        return self.table.at(t)

    def time_of(self, level: NoiseLevel) -> Scalar:
        return self.table.time_of(level)
