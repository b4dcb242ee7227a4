from __future__ import annotations

from collections.abc import Sequence

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_sigmas, check_steps
from unnoise.spacings.ramp import ends, given_end, with_start


@register("karras")
class Karras(Spacing):
    """Even in sigma^(1/7): short steps at low noise. Karras et al. 2022 (arXiv 2206.00364), equation 5.

    Args:
        rho: the root; larger means shorter steps at low noise.
        sigma_min, sigma_max: ends of the ramp in sigma/alpha; the path's own where None. A path that ends in pure noise
            starts there, and its ramp counts from 80.
    """

    def __init__(self, rho: float = 7.0, sigma_min: float | None = None, sigma_max: float | None = None) -> None:
        self.rho = checks.number("rho", rho, above=0)
        self.sigma_min, self.sigma_max = given_end("sigma_min", sigma_min), given_end("sigma_max", sigma_max)

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        top, low = ends(path, self.sigma_min, self.sigma_max)
        a, b = top ** (1 / self.rho), low ** (1 / self.rho)
        sigmas = [(a + i / max(1, num_steps - 1) * (b - a)) ** self.rho for i in range(num_steps)]
        return with_start(path, along_sigmas(path, sigmas), self.sigma_max)
