"""The forward process: how a picture turns into noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from unnoise.core.level import NoiseLevel, Scalar


class Path(ABC):
    """alpha and sigma as functions of t, from data at t = 0 to noise at t = 1; fixed, with nothing to learn.

    Attributes:
        name: in the registry; what is not registered has none.
        t_min: the smallest time that networks are trained at; spacings that need a last noisy level end there.
        num_levels: 1000 for a path that is published as a table of levels, whose level of index i (from 0) lies at
            t = (i + 1) / num_levels; None for a continuous one.
    """

    kind: ClassVar[str] = "paths"
    name: ClassVar[str]
    t_min: float = 1e-3
    num_levels: int | None = None

    @abstractmethod
    def at(self, t: Scalar) -> NoiseLevel:
        """The level at time t in [0, 1]; for a tensor of times, a level of tensors of the same shape, in float64."""

    @abstractmethod
    def time_of(self, level: NoiseLevel) -> Scalar:
        """The time with the level's log-SNR: the inverse of ``at``. Levels noisier than the path's end give 1."""

    def onto(self, level: NoiseLevel) -> NoiseLevel:
        """The path's own level of equal log-SNR."""
        return self.at(self.time_of(level))
