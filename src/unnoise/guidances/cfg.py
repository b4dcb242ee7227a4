from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Ask, Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import register


@register("cfg", "classifier-free")
class CFG(Guidance):
    """Classifier-free guidance: away from the unconditional estimate, ``u + scale (c - u)``.

    Ho and Salimans 2022 (arXiv 2207.12598), with the scale counted as today's tools do: 0 ignores the prompt, 1 is
    plain conditional sampling and asks for no second call, and too much fries the picture.

    Args:
        scale: how hard to steer.
    """

    def __init__(self, scale: float = 3.0) -> None:
        self.scale = checks.number("scale", scale)

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        if self.scale == 1:
            return {"cond": Ask(conds["cond"])}
        if self.scale == 0:
            return {"uncond": Ask(conds["uncond"])}
        return {"cond": Ask(conds["cond"]), "uncond": Ask(conds["uncond"])}

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        if "cond" not in parts or "uncond" not in parts:  # there may be others, for an outer guidance
            return parts["cond" if "cond" in parts else "uncond"], memory
        c, u = parts["cond"], parts["uncond"]
        x0 = u.x0 + self.scale * (c.x0 - u.x0)
        eps = u.eps + self.scale * (c.eps - u.eps)  # the same line, since both halves are linear in each other
        return Estimate(x0, eps), memory
