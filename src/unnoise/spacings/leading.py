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
    """

    def __init__(self, offset: int = 1) -> None:
        self.offset = checks.whole("offset", offset, 0)

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        total = path.num_levels or 1000
        if num_steps > total:
            raise UnnoiseError(f"leading spacing has {total} levels, not {num_steps}", f"ask for at most {total} steps")
        stride = total // num_steps
        offset = min(self.offset, total - 1 - (num_steps - 1) * stride)
        return along_times(path, [(i * stride + offset + 1) / total for i in reversed(range(num_steps))])
