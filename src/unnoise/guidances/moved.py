"""How guidance changes a picture without losing the state that the picture was seen in."""

from __future__ import annotations

from torch import Tensor

from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel, over


def with_picture(estimate: Estimate, x0: Tensor, here: NoiseLevel) -> Estimate:
    """The estimate with another picture: eps moves so that ``alpha x0 + sigma eps`` stays what it was.

    Written as a correction of eps, so that the part that did not change is not lost to rounding where sigma is small,
    and so that an estimate whose halves belong to different states (CFG++) stays one.
    """
    if not isinstance(here.sigma, Tensor) and here.sigma == 0:
        return Estimate(x0, estimate.eps)
    ratio = over(here.alpha, x0) / over(here.sigma, x0)
    return Estimate(x0, estimate.eps + ratio * (estimate.x0 - x0))


def axes(x: Tensor) -> tuple[int, ...]:
    """All axes of a state but the batch."""
    return tuple(range(1, x.ndim))


def inner_product(a: Tensor, b: Tensor) -> Tensor:
    """(B, 1, ..., 1) each row's own product of a and b."""
    return (a * b).sum(dim=axes(a), keepdim=True)
