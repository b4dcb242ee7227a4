from __future__ import annotations

from collections.abc import Sequence

from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_times, check_steps


@register("linspace", "normal")
class Linspace(Spacing):
    """Even in time between the noisiest and the cleanest training level, both included; fractional levels allowed.

    Lin et al. 2023 (arXiv 2305.08891), table 2, without the rounding; other tools call it "normal".
    """

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        last = path.t_min
        gap = (1 - last) / max(1, num_steps - 1)
        return along_times(path, [1 - i * gap for i in range(num_steps)])
