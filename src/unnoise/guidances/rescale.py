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
from unnoise.guidances.moved import axes, with_picture


@register("rescale")
class Rescale(Guidance):
    """Guidance that keeps the contrast of the unguided picture: a cure for frying.

    Lin et al. 2023 (arXiv 2305.08891), equations 15 and 16, applied to the predicted picture x0 whatever the network
    predicts: rescaling is not invariant to the choice, so the choice is fixed here.

    Args:
        inner: the guidance whose answer is rescaled.
        amount: 0 leaves it as it is, 1 takes the unguided standard deviation whole.
    """

    def __init__(self, inner: Guidance | None = None, amount: float = 0.7) -> None:
        self.inner = checks.instance("inner", CFG() if inner is None else inner, Guidance, "give one, such as CFG(3.0)")
        self.amount = checks.number("amount", amount, 0, 1)

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return self.inner.asks(conds, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        guided, memory = self.inner.combine(parts, x, here, memory)
        plain = parts.get("cond")
        if plain is None or guided is plain or self.amount == 0:
            return guided, memory
        want, have = (torch.std(e.x0, dim=axes(x), keepdim=True) for e in (plain, guided))
        factor = self.amount * want / have.clamp_min(1e-12) + (1 - self.amount)
        return with_picture(guided, guided.x0 * factor, here), memory
