from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.sample import check_levels
from unnoise.core.spacing import Spacing, along_sigmas, along_times, check_steps
from unnoise.errors import UnnoiseError


@register("custom")
class Custom(Spacing):
    """A list of one's own: times in (0, 1], or values of sigma/alpha, from the noisiest on; data is appended.

    Args:
        times: times on the path; or
        sigmas: sigma/alpha. Exactly one of the two.
    """

    def __init__(self, times: Sequence[float] | None = None, sigmas: Sequence[float] | None = None) -> None:
        if (times is None) == (sigmas is None):
            raise UnnoiseError("custom spacing wants either times or sigmas", "give one of the two")
        time, sigma = partial(checks.number, above=0, most=1), partial(checks.number, above=0, most=math.inf)
        self.times = None if times is None else checks.several("times", times, time)
        self.sigmas = None if sigmas is None else checks.several("sigmas", sigmas, sigma)

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        values = list(self.times if self.times is not None else self.sigmas or ())
        if len(values) != num_steps:
            raise UnnoiseError(f"{len(values)} levels were given for {num_steps} steps", "give one level a step")
        levels = along_times(path, values) if self.times is not None else along_sigmas(path, values)
        check_levels(levels)
        return levels
