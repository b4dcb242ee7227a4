from __future__ import annotations

from collections.abc import Sequence

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_times, check_steps
from unnoise.errors import UnnoiseError


@register("trailing")
class Trailing(Spacing):
    """Even in time, from the noisiest level: t = 1 - i/n. Starts where a run must start; the default.

    Lin et al. 2023 (arXiv 2305.08891), table 2. On a path with a table of levels the times are rounded to the table.

    Args:
        end: "data", or "first": the run stops at the table's first level, and what noise is left there stays in the
            picture, as diffusers draws with DDIM or PNDM where the setting ``set_alpha_to_one`` is off.
    """

    def __init__(self, end: str = "data") -> None:
        self.end = checks.choice("end", end, "data", "first")

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        total, spare = path.num_levels or 1000, 0 if self.end == "data" else 1
        times = [1 - i / num_steps for i in range(num_steps)]
        most = total - spare
        if (path.num_levels or spare) and num_steps > most:  # some level would be visited twice
            raise UnnoiseError(f"the path has {most} levels, not {num_steps}", f"ask for at most {most} steps")
        if path.num_levels:
            places = [max(round(t * total), num_steps - i + spare) for i, t in enumerate(times)]
            times = [place / total for place in places]
        levels = along_times(path, times)
        return [*levels[:-1], along_times(path, [1 / total])[0]] if spare else levels
