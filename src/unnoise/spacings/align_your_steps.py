from __future__ import annotations

import math
from collections.abc import Sequence

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_sigmas, check_steps
from unnoise.errors import UnnoiseError

KNOTS: dict[str, tuple[float, ...]] = {  # sigma/alpha, the last of them to be interpolated to and never visited
    "sd": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
    "mixture": (14.615, 1.573, 1.032, 0.776, 0.614, 0.498, 0.409, 0.340, 0.283, 0.237, 0.200),
}


@register("align-your-steps", "ays")
class AlignYourSteps(Spacing):
    """Levels that were optimised for a published network: ten steps, interpolated in the logarithm for other numbers.

    Sabour et al. 2024 (arXiv 2404.14507), with the knots of the authors' guide; and with those that `study/align.py`
    finds by the same criterion for a mixture of Gaussians. n steps take n + 1 points of the curve through the knots;
    the first is the path's own end and the last is data.

    Args:
        knots: "sd" (Stable Diffusion 1.5), "sdxl", "svd" (Stable Video Diffusion), or "mixture", for data of deviation
            0.6 or so and a solver that draws noise.
    """

    def __init__(self, knots: str = "sd") -> None:
        self.knots = checks.choice("knots", knots, *KNOTS)

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        knots = KNOTS[self.knots]

        def point(x: float) -> float:  # on the curve at x in [0, 1]
            place = x * (len(knots) - 1)
            low = min(int(place), len(knots) - 2)
            return math.exp(math.log(knots[low]) + (place - low) * math.log(knots[low + 1] / knots[low]))

        sigmas = [point(i / num_steps) for i in range(1, num_steps)]
        end = path.at(1.0)
        if sigmas and sigmas[0] >= end.sigma_hat:
            raise UnnoiseError(
                f"the knots of {self.knots} begin above the path's noisiest level ({float(end.sigma_hat):.4g})",
                "choose other knots, or fewer steps",
            )
        return [NoiseLevel(float(end.alpha), float(end.sigma)), *along_sigmas(path, sigmas)]
