from __future__ import annotations

import math

import torch

from unnoise.core import checks
from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.paths.table import MOST_LEVELS, Table


@register("cosine", "iddpm-cosine", "squaredcos_cap_v2")
class Cosine(Path):
    """Improved DDPM's path: the squared cosine, as published: 1000 levels, no step's variance above 0.999.

    Nichol and Dhariwal 2021 (arXiv 2102.09672), equation 17. The cap is what keeps the last level, index 999, from
    being pure noise with alpha = 0, so noise prediction can start there.
    """

    def __init__(self, offset: float = 0.008, cap: float = 0.999, num_levels: int = 1000) -> None:
        self.num_levels = num_levels = checks.whole("num_levels", num_levels, 2, MOST_LEVELS)
        self.offset = offset = checks.number("offset", offset, above=0)
        self.cap = cap = checks.number("cap", cap, above=0, below=1)

        def f(t: float) -> float:
            return math.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2

        betas = [min(1 - f((i + 1) / num_levels) / f(i / num_levels), cap) for i in range(num_levels)]
        self.table = Table(torch.tensor(betas, dtype=torch.float64))
        self.t_min = 1 / num_levels

    def at(self, t: Scalar) -> NoiseLevel:
        return self.table.at(t)

    def time_of(self, level: NoiseLevel) -> Scalar:
        return self.table.time_of(level)
