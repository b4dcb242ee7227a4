from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel, over
from unnoise.core.registry import register
from unnoise.guidances.cfg import CFG
from unnoise.guidances.moved import inner_product, with_picture


@register("cfg-zero", "cfg-zero-star")
class CFGZero(Guidance):
    """CFG-Zero*: CFG from the best multiple of the unconditional velocity; a run's first steps stand still.

    Fan et al. 2025 (arXiv 2503.18886), "optimized scale" and "zero-init". With v = eps - x0, the velocity of the flow
    path, and s = <v_c, v_u> / |v_u|^2 for each picture on its own

        v = s v_u + scale (v_c - s v_u)          v = 0 in the first ``zero_steps`` steps

    The paper is about flow networks. This velocity depends neither on the path nor on the prediction, so the same
    lines serve all; to stand still is what it is on the flow path, x0 = eps = x / (alpha + sigma).

    Args:
        scale: how hard to steer; 1 is plain conditional sampling.
        zero_steps: how many steps at the start of a run stand still; 0 for none. The paper takes the first 4 %.
            Inside a guidance that begins later, the first steps that this one sees.
    """

    def __init__(self, scale: float = 3.0, zero_steps: int = 1) -> None:
        self.scale, self.zero_steps = checks.number("scale", scale), checks.whole("zero_steps", zero_steps, 0)

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return CFG(1.0 if self.scale == 1 else 2.0).asks(conds, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        number = memory or 0  # of the step; all calls of a multi-stage step see the same
        c = parts["cond"]
        if number < self.zero_steps:
            still = x / over(here.alpha + here.sigma, x)
            return Estimate(still, still), number + 1
        if "uncond" not in parts:
            return c, number + 1
        u = parts["uncond"]
        v_c, v_u = c.eps - c.x0, u.eps - u.x0
        s = inner_product(v_c, v_u) / inner_product(v_u, v_u).clamp_min(1e-30)
        push = (self.scale - 1) * (v_c - s * v_u)  # v = v_c + push, of which the picture takes the noise's share
        share = over(here.sigma / (here.alpha + here.sigma), x)
        return with_picture(c, c.x0 - share * push, here), number + 1
