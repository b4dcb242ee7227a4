from __future__ import annotations

import math
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


@register("threshold", "dynamic-thresholding")
class Threshold(Guidance):
    """Imagen's dynamic thresholding: a predicted picture that leaves its range is clipped and shrunk back into it.

    Saharia et al. 2022 (arXiv 2205.11487), section 2.3: with s the given quantile of |x0| in a picture, and at least
    the bound, x0 becomes clip(x0, -s, s) bound / s. For pixels; latents have no range, see `mimic` for them.

    Args:
        inner: the guidance whose picture is thresholded.
        quantile: in (0, 1].
        bound: the range of the data is -bound to bound.
    """

    def __init__(self, inner: Guidance | None = None, quantile: float = 0.995, bound: float = 1.0) -> None:
        self.inner = checks.instance("inner", CFG() if inner is None else inner, Guidance, "give one, such as CFG(3.0)")
        self.quantile = checks.number("quantile", quantile, above=0, most=1)
        self.bound = checks.number("bound", bound, above=0, most=math.inf)

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return self.inner.asks(conds, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        guided, memory = self.inner.combine(parts, x, here, memory)
        size = guided.x0.abs().flatten(1)
        size = size if size.dtype == torch.float64 else size.float()  # torch has no quantile of half precision
        s = torch.quantile(size, self.quantile, dim=1).clamp_min(self.bound).to(x.dtype)
        s = s.reshape(-1, *[1] * (x.ndim - 1))  # (B, 1, ..., 1)
        return with_picture(guided, guided.x0.clamp(-s, s) * (self.bound / s), here), memory
