from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Ask, Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import register


@register("embedded", "distilled")
class Embedded(Guidance):
    """Tells the network the scale, where it was distilled to draw as if guided by it: one call a step.

    Meng et al. 2023 (arXiv 2210.03142), section 3.1; as latent consistency models and Flux are drawn. The negative
    prompt is not read.

    Args:
        scale: how hard to steer, counted as `cfg` counts it.
    """

    def __init__(self, scale: float = 7.5) -> None:
        self.scale = checks.number("scale", scale)

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        cond = conds["cond"] or Condition()
        device = next((value.device for value in vars(cond).values() if value is not None), None)
        scale = torch.full((cond.count or 1,), self.scale, dtype=torch.float32, device=device)  # (B,) float32
        return {"cond": Ask(replace(cond, scale=scale))}

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        return parts["cond"], memory
