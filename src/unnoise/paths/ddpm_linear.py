from __future__ import annotations

import torch

from unnoise.core.checks import check_between, check_whole
from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.paths.table import Table


@register("ddpm-linear", "linear")
class DDPMLinear(Path):
    """DDPM's path: variances of the single steps rise linearly from 1e-4 to 0.02 over 1000 levels.

    Ho et al. 2020 (arXiv 2006.11239), section 4.
    """

    def __init__(self, beta_start: float = 1e-4, beta_end: float = 0.02, num_levels: int = 1000) -> None:
        check_whole(2, num_levels=num_levels)
        check_between(0, 1, beta_start=beta_start, beta_end=beta_end)
        self.table = Table(torch.linspace(beta_start, beta_end, num_levels, dtype=torch.float64))
        self.num_levels = num_levels
        self.t_min = 1 / num_levels

    def at(self, t: Scalar) -> NoiseLevel:
        return self.table.at(t)

    def time_of(self, level: NoiseLevel) -> Scalar:
        return self.table.time_of(level)
