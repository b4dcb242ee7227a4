from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Ask, Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import register


@register("plain", "none")
class Plain(Guidance):
    """No guidance: the conditional estimate as it is, one call a step."""

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return {"cond": Ask(conds["cond"])}

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        return parts["cond"], memory
