from __future__ import annotations

from collections.abc import Sequence

from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_times, check_steps


@register("sgm-uniform")
class SGMUniform(Spacing):
    """Even in time down to the cleanest training level, which is left out: the last step spans it. Fractional levels.

    ComfyUI's spacing of that name: n + 1 times from 1 to t_min, of which the last is data instead. Nearly `trailing`,
    without its rounding and with a slightly longer last step.
    """

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        return along_times(path, [1 - i / num_steps * (1 - path.t_min) for i in range(num_steps)])
