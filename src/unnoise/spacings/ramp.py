"""The two ends that a ramp of sigmas runs between."""

from __future__ import annotations

import math

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.errors import UnnoiseError

CAP = 80.0


def given_end(name: str, sigma: float | None) -> float | None:
    """An end that was given, in sigma/alpha, or None for the path's own.

    Raises:
        UnnoiseError: it is no number above 0.
    """
    return None if sigma is None else checks.number(name, sigma, above=0)


def ends(path: Path, sigma_min: float | None, sigma_max: float | None) -> tuple[float, float]:
    """(largest, smallest) sigma/alpha of a ramp: the path's own where none is given.

    A path that ends in pure noise (flow) has no largest sigma/alpha; its ramp begins at 80, and the run at t = 1.

    Raises:
        UnnoiseError: the ends are not positive, or not in order.
    """
    end = path.at(1.0)
    top = sigma_max if sigma_max is not None else float(end.sigma_hat) if end.alpha else CAP
    low = sigma_min if sigma_min is not None else float(path.at(path.t_min).sigma_hat)
    if not 0 < low < top < math.inf:
        raise UnnoiseError(f"a ramp of noise from {top:g} down to {low:g} is empty", "choose 0 < sigma_min < sigma_max")
    return top, low


def with_start(path: Path, levels: list[NoiseLevel], sigma_max: float | None) -> list[NoiseLevel]:
    """The levels, begun at the path's own end where that is pure noise and no other start is set."""
    if sigma_max is None and path.at(1.0).alpha == 0:
        return [path.at(1.0), *levels[1:]]
    return levels
