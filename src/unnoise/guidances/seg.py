from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.edit import Around, Edit
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import register
from unnoise.guidances.cfg import CFG
from unnoise.guidances.perturbed import ask, names, push


@dataclass(frozen=True)
class BlurredQueries(Edit):
    """Queries (B, heads, N, d) of self-attention over a grid of cells, smoothed over the grid.

    Attributes:
        blur: standard deviation of the Gaussian in cells; 0 leaves the queries, infinity makes each their mean.
    """

    blur: float = math.inf

    def at(self, site: str) -> bool:
        return site.endswith(".self.query") and super().at(site)

    def within(self, site: str, value: Tensor, around: Around) -> Tensor:
        if self.blur == math.inf:
            return value.mean(2, keepdim=True).expand_as(value)
        rows, columns = around.grid(value.shape[2])
        width = min(math.ceil(6 * self.blur) | 1, min(rows, columns) | 1)  # odd, three deviations each way, within it
        if self.blur == 0 or width < 3:
            return value
        place = torch.arange(width, dtype=torch.float32, device=value.device) - width // 2
        weights = torch.softmax(-0.5 * (place / self.blur) ** 2, 0).to(value.dtype)
        grid = value.transpose(2, 3).reshape(-1, 1, rows, columns)  # (B heads d, 1, rows, columns)
        half = width // 2
        grid = F.conv2d(F.pad(grid, (half, half, half, half), mode="reflect"), weights.outer(weights)[None, None])
        return grid.reshape(*value.shape[:2], value.shape[3], -1).transpose(2, 3)


@register("seg", "smoothed-energy")
class SEG(Guidance):
    """Smoothed energy guidance: away from the estimate of a network with blurred queries.

    Hong 2024 (arXiv 2408.00760): ``inner + strength (c - perturbed)``. Blurring the queries blurs the logits over the
    cells that ask, since these are linear in the query; without end, all cells ask the mean question.

    Args:
        inner: the guidance that it is added to.
        strength: how hard to push; 0 asks for no further call.
        blur: standard deviation of the blur in cells, from 0 (none) to infinity.
        sites: names of blocks whose self-attention is perturbed, ``*`` at the end for all that begin so.
    """

    def __init__(
        self,
        inner: Guidance | None = None,
        strength: float = 3.0,
        blur: float = math.inf,
        sites: Sequence[str] = ("mid.*",),
    ) -> None:
        self.inner = checks.instance("inner", CFG() if inner is None else inner, Guidance, "give one, such as CFG(3.0)")
        blur = checks.number("blur", blur, 0, math.inf)
        self.strength, self.edit = checks.number("strength", strength), BlurredQueries(names(sites), blur)

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return ask(self.inner, self.strength, self.edit, conds, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        return push(self.inner, self.strength, self.edit, parts, x, here, memory)
