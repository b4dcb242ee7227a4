from __future__ import annotations

from collections.abc import Sequence

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_times, check_steps
from unnoise.errors import UnnoiseError


@register("linspace", "normal")
class Linspace(Spacing):
    """Even in time between the noisiest and the cleanest training level, both included; fractional levels allowed.

    Lin et al. 2023 (arXiv 2305.08891), table 2, without the rounding; other tools call it "normal".

    Args:
        cleanest: whether the cleanest level is visited. If not, data takes its place, and on a path with a table of
            levels the times are rounded to it: so count DPM-Solver and UniPC in the code of their authors.
    """

    def __init__(self, cleanest: bool = True) -> None:
        self.cleanest = checks.flag("cleanest", cleanest)

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        last, total = path.t_min, path.num_levels
        if not self.cleanest and total:
            if num_steps > total - 1:  # some level would be visited twice
                most = total - 1
                raise UnnoiseError(f"this spacing has {most} levels, not {num_steps}", f"ask for at most {most} steps")
            places = [round((total - 1) * (num_steps - i) / num_steps) for i in range(num_steps)]
            return along_times(path, [(place + 1) / total for place in places])
        gap = (1 - last) / max(1, num_steps - 1 if self.cleanest else num_steps)
        return along_times(path, [1 - i * gap for i in range(num_steps)])
