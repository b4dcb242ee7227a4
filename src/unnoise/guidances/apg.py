from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import register
from unnoise.guidances.cfg import CFG
from unnoise.guidances.moved import inner_product, with_picture


@register("apg", "adaptive-projected")
class APG(Guidance):
    """Adaptive projected guidance: CFG without the part that only makes the picture louder, so high scales do not fry.

    Sadat et al. 2024 (arXiv 2410.02416). With D the predicted pictures and w the scale

        d = (D_c - D_u) + momentum d_before      d *= min(1, cap / |d|)      D = D_c + (w - 1) (d_across + eta d_along)

    where d_along is the part of d parallel to D_c. Steps remember d before the cap; a run's first step has no memory.

    Args:
        scale: w; 1 is plain conditional sampling and asks for no second call.
        eta: how much of the parallel part is kept; 1 keeps it whole.
        momentum: of the update from step to step; negative values push away from where the last step went.
        cap: largest norm of a picture's update, a matter of the state's size; infinite caps nothing.
    """

    def __init__(self, scale: float = 3.0, eta: float = 0.0, momentum: float = -0.5, cap: float = math.inf) -> None:
        self.scale, self.eta = checks.number("scale", scale), checks.number("eta", eta)
        self.momentum = checks.number("momentum", momentum, above=-1, below=1)
        self.cap = checks.number("cap", cap, above=0, most=math.inf)

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return CFG(1.0 if self.scale == 1 else 2.0).asks(conds, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        c = parts["cond"]
        if "uncond" not in parts:
            return c, memory
        d = c.x0 - parts["uncond"].x0
        if memory is not None and self.momentum != 0:
            d = d + self.momentum * memory
        memory = d
        if self.cap < math.inf:
            norm = inner_product(d, d).sqrt()
            d = d * (self.cap / norm.clamp_min(1e-30)).clamp(max=1.0)
        along = inner_product(d, c.x0) / inner_product(c.x0, c.x0).clamp_min(1e-30) * c.x0
        return with_picture(c, c.x0 + (self.scale - 1) * (d - (1 - self.eta) * along), here), memory
