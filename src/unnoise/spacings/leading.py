from __future__ import annotations

from collections.abc import Sequence

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_times, check_steps
from unnoise.errors import UnnoiseError


@register("leading")
class Leading(Spacing):
    """Every (1000/n)-th training level, counted from the cleanest; starts short of pure noise. DDIM's own.

    Song et al. 2020 (arXiv 2010.02502), appendix D.2. Kept for the models that were published with it: with 10 steps
    and offset 1 it starts at level 901.

    Args:
        offset: added to each level's index, as far as the table reaches; Stable Diffusion uses 1.
        end: "data", or "first": the run stops at the table's first level, and what noise is left there stays in the
            picture, as diffusers draws with DDIM or PNDM where the setting ``set_alpha_to_one`` is off.
        cleanest: whether the cleanest level is visited. If not, data takes its place, of n + 1 levels: so count
            DPM-Solver and UniPC in the code of their authors.
    """

    def __init__(self, offset: int = 1, end: str = "data", cleanest: bool = True) -> None:
        self.offset = checks.whole("offset", offset, 0)
        self.end = checks.choice("end", end, "data", "first")
        if end == "first" and not self.offset:
            raise UnnoiseError("leading spacing without an offset visits the first level itself", 'leave out "end"')
        self.cleanest = checks.flag("cleanest", cleanest)

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        total = path.num_levels or 1000
        spare = 0 if self.cleanest else 1  # levels that are counted and not visited
        most = total - spare if self.end == "data" else total - 1
        if num_steps > most:
            raise UnnoiseError(f"leading spacing has {most} levels, not {num_steps}", f"ask for at most {most} steps")
        places = range(spare, num_steps + spare)
        stride = total // (num_steps + spare)
        offset = min(self.offset, total - 1 - places[-1] * stride)
        levels = along_times(path, [(i * stride + offset + 1) / total for i in reversed(places)])
        return levels if self.end == "data" else [*levels[:-1], along_times(path, [1 / total])[0]]
