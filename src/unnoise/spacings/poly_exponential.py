from __future__ import annotations

import math
from collections.abc import Sequence

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_sigmas, check_steps
from unnoise.spacings.ramp import ends, given_end, with_start


@register("poly-exponential", "polyexponential")
class PolyExponential(Spacing):
    """A power of the step in log-SNR: log(sigma/alpha) = low + (1 - i/(n - 1))^rho (top - low). From k-diffusion.

    Args:
        rho: above 1 for shorter steps at low noise, below 1 for shorter ones at high noise; 1 is `log-snr`.
        sigma_min, sigma_max: ends of the ramp in sigma/alpha; the path's own where None. A path that ends in pure noise
            starts there, and its ramp counts from 80.
    """

    def __init__(self, rho: float = 1.0, sigma_min: float | None = None, sigma_max: float | None = None) -> None:
        self.rho = checks.number("rho", rho, above=0)
        self.sigma_min, self.sigma_max = given_end("sigma_min", sigma_min), given_end("sigma_max", sigma_max)

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        top, low = (math.log(sigma) for sigma in ends(path, self.sigma_min, self.sigma_max))
        falls = [(1 - i / max(1, num_steps - 1)) ** self.rho for i in range(num_steps)]
        return with_start(path, along_sigmas(path, [math.exp(low + f * (top - low)) for f in falls]), self.sigma_max)
