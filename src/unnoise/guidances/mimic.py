from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import register
from unnoise.guidances.cfg import CFG
from unnoise.guidances.moved import with_picture


@register("mimic", "mimic-scale")
class Mimic(Guidance):
    """CFG at a high scale whose channels are given the extent that a lower scale has: dynamic thresholding of latents.

    The "CFG scale fix" of sd-dynamic-thresholding (Goodwin 2023), in its usual mode. For each channel of each picture,
    about the channel's mean: m is the largest deviation of the picture guided at the mimicked scale, s the larger of m
    and the given quantile of the deviations at the full scale. These are clipped to s, then multiplied by m / s. Not
    Imagen's method, which is `threshold`: the range is not given but taken from the lower scale.

    Args:
        scale: how hard to steer.
        mimic: the scale whose extent is taken.
        quantile: in (0, 1]; of the deviations at the full scale.
    """

    def __init__(self, scale: float = 12.0, mimic: float = 5.0, quantile: float = 1.0) -> None:
        self.scale, self.mimic = checks.number("scale", scale), checks.number("mimic", mimic)
        self.quantile = checks.number("quantile", quantile, above=0, most=1)

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return CFG(1.0 if self.scale == self.mimic == 1 else 2.0).asks(conds, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        c = parts["cond"]
        if "uncond" not in parts:
            return c, memory
        u = parts["uncond"].x0
        first = min(2, x.ndim - 1)  # a channel is all that lies behind its axis; states without one are one channel
        low, high = ((u + scale * (c.x0 - u)).flatten(first) for scale in (self.mimic, self.scale))
        mean = high.mean(-1, keepdim=True)
        high, low = high - mean, low - low.mean(-1, keepdim=True)
        size = high.abs() if high.dtype == torch.float64 else high.abs().float()
        m = low.abs().amax(-1, keepdim=True)
        s = torch.maximum(m, torch.quantile(size, self.quantile, dim=-1, keepdim=True).to(m.dtype))
        x0 = high.clamp(-s, s) * (m / s.clamp_min(1e-30)) + mean
        return with_picture(c, x0.reshape(x.shape), here), memory
