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


@register("cfg++", "cfg-plus-plus")
class CFGPlusPlus(Guidance):
    """CFG++: the guided picture, noised again with the unconditional noise; strengths up to 1 do what CFG's scales do.

    Chung et al. 2024 (arXiv 2406.08070), the DDIM form:

        x0 = x0_u + strength (x0_c - x0_u)          eps = eps_u

    The two halves belong to different states, and a solver goes on from the state that they make. With `euler` and
    `ddim` that is the paper's step, equal to one of CFG at the scale strength sigma_hat / (sigma_hat - sigma_hat');
    other solvers take it as the state that they are at.

    Args:
        strength: from 0, the unconditional run, to 1. At 1 it is not plain conditional sampling: that has no eps_u.
            Not called a scale, since where those count from 1 to 10 it counts to 1.
    """

    def __init__(self, strength: float = 0.6) -> None:
        self.strength = checks.number("strength", strength, 0, 1)

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return {"cond": Ask(conds["cond"]), "uncond": Ask(conds["uncond"])}

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        c, u = parts["cond"], parts["uncond"]
        return Estimate(u.x0 + self.strength * (c.x0 - u.x0), u.eps), memory
