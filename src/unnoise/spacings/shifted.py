from __future__ import annotations

from collections.abc import Sequence

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing, check_steps
from unnoise.spacings.trailing import Trailing


@register("shifted", "shift")
class Shifted(Spacing):
    """Another spacing, moved toward noise: sigma/alpha is multiplied by the shift, once. Large pictures need it.

    Esser et al. 2024 (arXiv 2403.03206), equation 23: on the flow path t becomes s t / (1 + (s - 1) t). Written in
    sigma/alpha it holds for every path, and shift(a) after shift(b) is shift(ab). A path that ends short of pure noise
    keeps its end: there alpha/sigma is counted from the end's own, and the shift divides what exceeds it.

    Args:
        shift: above 1 for pictures larger than those that the spacing was made for; 1 changes nothing.
        inner: the spacing that is moved.
    """

    def __init__(self, shift: float = 3.0, inner: Spacing | None = None) -> None:
        self.shift = checks.number("shift", shift, above=0)
        self.inner = checks.instance(
            "inner", Trailing() if inner is None else inner, Spacing, "give one, such as Trailing()"
        )

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        end = path.at(1.0)
        floor = float(end.alpha) / float(end.sigma)  # alpha/sigma of the path's end; 0 where that is pure noise

        def move(level: NoiseLevel) -> NoiseLevel:
            if level == end or level.sigma == 0:
                return level
            excess = float(level.alpha) / float(level.sigma) - floor
            moved = path.onto(NoiseLevel(floor + excess / self.shift, 1.0))
            return NoiseLevel(float(moved.alpha), float(moved.sigma))

        return [move(level) for level in self.inner.levels(path, num_steps, shape)]
