from __future__ import annotations

from collections.abc import Sequence

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_times, check_steps
from unnoise.errors import UnnoiseError


@register("lcm")
class LCMSpacing(Spacing):
    """Levels that a latent consistency model was distilled at, n of them, evenly and from the noisiest.

    Luo et al. 2023 (arXiv 2310.04378), section 4.3: the teacher skipped k levels of the table at a time, and the
    student knows only those at which it landed. Equal to diffusers' ``LCMScheduler``, for the whole way from noise.

    Args:
        original: how many levels the student knows, every (1000/original)-th of the table.
    """

    def __init__(self, original: int = 50) -> None:
        self.original = checks.whole("original", original, 1, 100_000)

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        total, original = path.num_levels or 1000, self.original
        if original > total:
            raise UnnoiseError(f"the path has {total} levels, not {original}", f"choose an original of at most {total}")
        if num_steps > original:
            raise UnnoiseError(
                f"lcm spacing knows {original} levels, not {num_steps}", f"ask for at most {original} steps"
            )
        places = [original - int(i * (original / num_steps)) for i in range(num_steps)]  # from the cleanest, 1 and on
        return along_times(path, [place * (total // original) / total for place in places])
