from __future__ import annotations

from collections.abc import Sequence

from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_times, check_steps
from unnoise.errors import UnnoiseError


@register("trailing")
class Trailing(Spacing):
    """Even in time, from the noisiest level: t = 1 - i/n. Starts where a run must start; the default.

    Lin et al. 2023 (arXiv 2305.08891), table 2. On a path with a table of levels the times are rounded to the table.
    """

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        times = [1 - i / num_steps for i in range(num_steps)]
        if path.num_levels:
            if num_steps > path.num_levels:  # some level would be visited twice
                most = path.num_levels
                raise UnnoiseError(f"the path has {most} levels, not {num_steps}", f"ask for at most {most} steps")
            times = [round(t * path.num_levels) / path.num_levels for t in times]
        return along_times(path, times)
