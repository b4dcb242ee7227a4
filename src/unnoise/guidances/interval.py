from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Ask, Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import register
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG


@register("interval")
class Interval(Guidance):
    """Guidance at middling noise alone, plain conditional sampling elsewhere; saves the second call there.

    Kynkaanniemi et al. 2024 (arXiv 2404.07724), section 3: guided where low < sigma/alpha <= high.

    Args:
        inner: the guidance inside the interval.
        low, high: its ends in sigma/alpha.
    """

    def __init__(self, inner: Guidance | None = None, low: float = 0.0, high: float = math.inf) -> None:
        self.inner = checks.instance("inner", CFG() if inner is None else inner, Guidance, "give one, such as CFG(3.0)")
        self.low, self.high = checks.number("low", low), checks.number("high", high, most=math.inf)
        if not self.low < self.high:
            raise UnnoiseError(f"the interval from {low:g} to {high:g} is empty", "choose low below high")

    def _inside(self, here: NoiseLevel) -> bool:
        sigma = here.sigma_hat
        return self.low < float(sigma.detach() if isinstance(sigma, Tensor) else sigma) <= self.high

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return self.inner.asks(conds, here) if self._inside(here) else {"cond": Ask(conds["cond"])}

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        return self.inner.combine(parts, x, here, memory) if self._inside(here) else (parts["cond"], memory)
