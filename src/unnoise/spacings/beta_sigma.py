from __future__ import annotations

from collections.abc import Sequence

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_sigmas, check_steps
from unnoise.spacings.quantiles import beta_quantile
from unnoise.spacings.ramp import ends, given_end, with_start


@register("beta-sigma")
class BetaSigma(Spacing):
    """sigma/alpha itself at quantiles of a Beta(0.6, 0.6) law, as diffusers reads "beta"; most steps are noisy ones.

    Not the method of the paper that it names (arXiv 2407.12173), which is `beta`; kept for parity.

    Args:
        a, b: of the law.
        sigma_min, sigma_max: ends in sigma/alpha; the path's own where None. A path that ends in pure noise starts
            there, and its ramp counts from 80.
    """

    def __init__(
        self, a: float = 0.6, b: float = 0.6, sigma_min: float | None = None, sigma_max: float | None = None
    ) -> None:
        least, most = 0.3, 100  # below, the ends are too dense for 64 bits
        self.a, self.b = checks.number("a", a, least, most), checks.number("b", b, least, most)
        self.sigma_min, self.sigma_max = given_end("sigma_min", sigma_min), given_end("sigma_max", sigma_max)

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        top, low = ends(path, self.sigma_min, self.sigma_max)
        places = [beta_quantile(1 - i / max(1, num_steps - 1), self.a, self.b) for i in range(num_steps)]
        return with_start(path, along_sigmas(path, [low + (top - low) * p for p in places]), self.sigma_max)
