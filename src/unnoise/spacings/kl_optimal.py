from __future__ import annotations

import math
from collections.abc import Sequence

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_times, check_steps
from unnoise.errors import UnnoiseError
from unnoise.spacings.ramp import given_end


@register("kl-optimal")
class KLOptimal(Spacing):
    """Even in the angle arctan(sigma/alpha): the best choice for Euler's method on Gaussian data.

    Sabour et al. 2024 (arXiv 2404.14507), the closed form for Gaussian data. On the circle alpha = cos, sigma = sin an
    Euler step multiplies a state of unit-variance data by the cosine of its angle; the product of n cosines of a given
    sum is nearest to 1 where all are equal. Pure noise is the right angle, so that it needs no cap.

    Args:
        std: standard deviation of the data, in which sigma is counted.
        sigma_min: last noisy sigma/alpha; the path's own where None.
    """

    def __init__(self, std: float = 1.0, sigma_min: float | None = None) -> None:
        self.std, self.sigma_min = checks.number("std", std, above=0), given_end("sigma_min", sigma_min)

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        end = path.at(1.0)
        low = self.sigma_min if self.sigma_min is not None else float(path.at(path.t_min).sigma_hat)
        if not 0 < low < float(end.sigma_hat):
            raise UnnoiseError(f"the path has no noise of {low:g} to end at", "choose sigma_min within the path")
        top, last = math.atan2(float(end.sigma), float(end.alpha) * self.std), math.atan(low / self.std)
        angles = [top + i / max(1, num_steps - 1) * (last - top) for i in range(1, num_steps)]
        levels = (NoiseLevel(math.cos(angle), self.std * math.sin(angle)) for angle in angles)
        return along_times(path, [1.0, *[float(path.time_of(level)) for level in levels]])
