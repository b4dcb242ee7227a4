from __future__ import annotations

from collections.abc import Sequence

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, along_times, check_steps
from unnoise.spacings.quantiles import beta_quantile


@register("beta")
class Beta(Spacing):
    """Times at quantiles of a Beta(0.6, 0.6) law: short steps at both ends, long ones between. Fractional levels.

    Lee et al. 2024 (arXiv 2407.12173), as ComfyUI has it: t runs over the training levels as the quantiles of 1 - i/n.
    Without its rounding, under which levels meet and a run of many steps loses some. See `beta-sigma` for the other
    thing that is called so.

    Args:
        a, b: of the law; below 1 the ends are dense, by a smaller a the clean one, by a smaller b the noisy one.
    """

    def __init__(self, a: float = 0.6, b: float = 0.6) -> None:
        least, most = 0.3, 100  # below, the ends are too dense for 64 bits
        self.a, self.b = checks.number("a", a, least, most), checks.number("b", b, least, most)

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        places = [beta_quantile(1 - i / num_steps, self.a, self.b) for i in range(num_steps)]
        return along_times(path, [path.t_min + (1 - path.t_min) * place for place in places])
