"""Guidances that change during a run, to show what early and late steps decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel


class Switched(Guidance):
    """One guidance above a noise level and another from there on. The second does not see the first one's memory.

    Args:
        early: the guidance while sigma/alpha is above the level's.
        late: the guidance at the level and below.
        level: where it changes; with the first level of a run all steps are ``late``, with clean data all ``early``.
    """

    def __init__(self, early: Guidance, late: Guidance, level: NoiseLevel) -> None:
        self.early, self.late, self.sigma_hat = early, late, float(level.sigma_hat)

    def _now(self, here: NoiseLevel) -> Guidance:
        return self.early if float(here.sigma_hat) > self.sigma_hat else self.late

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return self._now(here).asks(conds, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        now = self._now(here)
        owner, inner = memory if memory is not None else (now, None)
        estimate, inner = now.combine(parts, x, here, inner if owner is now else None)
        return estimate, (now, inner)


class Instead(Guidance):
    """A guidance with another prompt than the run's.

    Args:
        inner: the guidance.
        cond: its prompt, with as many rows as the run has.
    """

    def __init__(self, inner: Guidance, cond: Condition) -> None:
        self.inner, self.cond = inner, cond

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return self.inner.asks({**conds, "cond": self.cond}, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        return self.inner.combine(parts, x, here, memory)
