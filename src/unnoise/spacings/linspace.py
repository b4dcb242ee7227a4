from __future__ import annotations

from collections.abc import Sequence

from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_times, check_steps


@register("linspace")
class Linspace(Spacing):
    """Even in time between the noisiest and the cleanest training level, both included; fractional levels allowed."""

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        check_steps(num_steps)
        last = path.t_min
        gap = (1 - last) / max(1, num_steps - 1)
        return along_times(path, [1 - i * gap for i in range(num_steps)])
