"""Guidances that change on the way: what early and late steps decide is seen by changing the orders between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel


class Switched(Guidance):
    """One guidance above a noise level and another from there on. What the first remembers, the second does not see.

    Args:
        early: while sigma/alpha is above the level's.
        late: at the level and below.
        level: where it changes; the first level of a run leaves all to ``late``, clean data all to ``early``.
    """

    def __init__(self, early: Guidance, late: Guidance, level: NoiseLevel) -> None:
        self.early, self.late, self.sigma_hat = early, late, float(level.sigma_hat)

    def _now(self, here: NoiseLevel) -> Guidance:
        return self.early if float(here.sigma_hat) > self.sigma_hat else self.late

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return self._now(here).asks(conds, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        now = self._now(here)
        whose, kept = memory if memory is not None else (now, None)
        estimate, kept = now.combine(parts, x, here, kept if whose is now else None)
        return estimate, (now, kept)


class Instead(Guidance):
    """A guidance that is told another prompt than the run's.

    Args:
        inner: the guidance.
        cond: the prompt that it is told, as many rows as the run has.
    """

    def __init__(self, inner: Guidance, cond: Condition) -> None:
        self.inner, self.cond = inner, cond

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return self.inner.asks({**conds, "cond": self.cond}, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        return self.inner.combine(parts, x, here, memory)
