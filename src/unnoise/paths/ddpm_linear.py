from __future__ import annotations

import torch

from unnoise.core import checks
from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.paths.table import MOST_LEVELS, Table


@register("ddpm-linear", "linear")
class DDPMLinear(Path):
    """DDPM's path: variances of the single steps rise linearly from 1e-4 to 0.02 over 1000 levels.

    Ho et al. 2020 (arXiv 2006.11239), section 4.
    """

    def __init__(self, beta_start: float = 1e-4, beta_end: float = 0.02, num_levels: int = 1000) -> None:
        self.num_levels = num_levels = checks.whole("num_levels", num_levels, 2, MOST_LEVELS)
        self.beta_start = beta_start = checks.number("beta_start", beta_start, above=0, below=1)
        self.beta_end = beta_end = checks.number("beta_end", beta_end, above=0, below=1)
        self.table = Table(torch.linspace(beta_start, beta_end, num_levels, dtype=torch.float64))
        self.t_min = 1 / num_levels

    def at(self, t: Scalar) -> NoiseLevel:
        return self.table.at(t)

    def time_of(self, level: NoiseLevel) -> Scalar:
        return self.table.time_of(level)
