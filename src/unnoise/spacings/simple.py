from __future__ import annotations

from collections.abc import Sequence

from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_times, check_steps
from unnoise.errors import UnnoiseError


@register("simple")
class Simple(Spacing):
    """`trailing` with times rounded up to the table, not to the nearest level. ComfyUI's "simple", for parity.

    It counts down from the noisiest level in strides of 1000/n, each cut to a whole number; a path without a table is
    cut into 1000 times for it.
    """

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        total = path.num_levels or 1000
        if num_steps > total:
            raise UnnoiseError(f"simple spacing has {total} levels, not {num_steps}", f"ask for at most {total} steps")
        return along_times(path, [(total - i * total // num_steps) / total for i in range(num_steps)])
