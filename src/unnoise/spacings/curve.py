from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from unnoise.core import checks
from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.sample import check_levels
from unnoise.core.spacing import Spacing, along_times, check_steps
from unnoise.errors import UnnoiseError


def through(values: Sequence[Scalar], place: float) -> Scalar:
    """The monotone cubic through values at even places of [0, 1], at ``place``.

    Fritsch and Butland 1984 (SIAM J. Sci. Stat. Comput. 5), with one-sided slopes at the ends, as scipy's
    PchipInterpolator has it: where the values fall the curve falls, and it turns nowhere else. The values may be
    tensors, and gradients flow to them.

    Args:
        values: two or more.
        place: 0 is the first value, 1 the last.
    """
    last = len(values) - 1
    i = min(int(place * last), last - 1)
    s = place * last - i  # in [0, 1], from value i to the next

    def rise(k: int) -> Scalar:
        return values[k + 1] - values[k]

    def slope(k: int) -> Scalar:
        if last == 1:
            return rise(0)
        near = rise(k - 1 if k == last else k)
        far = rise(last - 2 if k == last else 1 if k == 0 else k - 1)
        if 0 < k < last:
            return 2 * near * far / (near + far) if near * far > 0 else 0.0
        end = (3 * near - far) / 2
        if end * near <= 0:
            return 0.0
        steep = (end - 3 * near) * near > 0  # steeper than thrice the chord
        return 3 * near if near * far <= 0 and steep else end

    keep, turn = s * s * (3 - 2 * s), s * (1 - s)
    return values[i] + keep * rise(i) + turn * ((1 - s) * slope(i) - s * slope(i + 1))


def falls(times: Sequence[float]) -> bool:
    """Whether these are numbers in (0, 1], each less than the one before."""
    numbers = all(isinstance(t, int | float) for t in times)
    return numbers and times[0] <= 1 and all(a > b for a, b in pairwise([*times, 0.0]))


@register("curve")
class Curve(Spacing):
    """Times on a smooth curve through points of one's own, for any number of steps: `unnoise search` fits such points.

    n steps visit the curve at 0, 1/n, 2/n and so on: as many steps as there are points visit the points themselves,
    and one point at time 1 makes the straight line of `sgm-uniform`. See `through` for the curve.

    Args:
        times: at even places of the curve, in (0, 1], falling from the noisiest on; 0, the path's cleanest level, is
            appended to them, and data to the levels.
    """

    def __init__(self, times: Sequence[float] = (1.0,)) -> None:
        self.times = checks.several("times", times, partial(checks.number, above=0, most=1), most=1000)
        if not falls(self.times):
            raise UnnoiseError("the times of a curve must fall", "write numbers in (0, 1], the largest first")

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        num_steps = check_steps(path, num_steps)
        points = [path.t_min + (1 - path.t_min) * t for t in (*self.times, 0.0)]
        levels = along_times(path, [float(through(points, i / num_steps)) for i in range(num_steps)])
        check_levels(levels)
        return levels
