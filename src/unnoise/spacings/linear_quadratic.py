from __future__ import annotations

from collections.abc import Sequence

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_times, check_steps


@register("linear-quadratic")
class LinearQuadratic(Spacing):
    """Half the steps crawl through the last few percent of time at the noisy end, the rest speed up to the data.

    Mochi's (Genmo 2024, the sampling code of genmoai/models), for flow networks. After i of n steps 1 - t is on a line
    up to step m = n // 2, then on a parabola that leaves it without a kink and reaches 1 at n:

        1 - t = threshold i/m + (1 - threshold n/m) max(0, (i - m)/(n - m))^2

    Args:
        threshold: what is left behind in the first half; 0.025 is Mochi's.
    """

    def __init__(self, threshold: float = 0.025) -> None:
        most = 0.3  # 1/3 is where three steps would be a straight line, and more would bend back
        self.threshold = checks.number("threshold", threshold, above=0, most=most)

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        half = max(1, num_steps // 2)
        bend = 1 - self.threshold * num_steps / half

        def progress(i: int) -> float:
            past = max(0, i - half) / max(1, num_steps - half)
            return self.threshold * i / half + bend * past * past

        return along_times(path, [1 - progress(i) for i in range(num_steps)])
