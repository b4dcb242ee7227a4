"""Which levels a run visits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path


class Spacing(ABC):
    """Chooses the levels of a run along a path, and owns the resolution shift."""

    kind: ClassVar[str] = "spacings"

    @abstractmethod
    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        """``num_steps + 1`` levels from the noisiest to the last, as Python floats; the last is data, sigma = 0,
        unless a setting of the spacing ends the run short of that.

        ``shape`` is the state's shape, for spacings that depend on the size of the picture.

        Raises:
            UnnoiseError: fewer than one step, or more than the path has levels.
        """


def check_steps(path: Path, num_steps: int) -> int:
    """The number of steps that a spacing is asked for, 1 to 100,000.

    Raises:
        UnnoiseError: it is no such number, or the path is none.
    """
    checks.instance("path", path, Path, "give one, such as Flow()")
    return checks.whole("num_steps", num_steps, 1, 100_000)


def along_times(path: Path, times: Sequence[float]) -> list[NoiseLevel]:
    """The levels of a path at these times, and data after them."""
    levels = [path.at(float(t)) for t in times] + [path.at(0.0)]
    return [NoiseLevel(float(level.alpha), float(level.sigma)) for level in levels]


def along_sigmas(path: Path, sigmas: Sequence[float]) -> list[NoiseLevel]:
    """The path's levels with these values of sigma / alpha, and data after them."""
    return along_times(path, [float(path.time_of(NoiseLevel(1.0, sigma))) for sigma in sigmas])
