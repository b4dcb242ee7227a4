from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.edit import Edit
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import register
from unnoise.guidances.cfg import CFG
from unnoise.guidances.perturbed import ask, names, push


@dataclass(frozen=True)
class IdentityMap(Edit):
    """Each cell attends to itself alone: self-attention maps (B, heads, N, N) become the identity."""

    def at(self, site: str) -> bool:
        return site.endswith(".self") and super().at(site)

    def __call__(self, site: str, value: Tensor) -> Tensor:
        return torch.eye(value.shape[-1], dtype=value.dtype, device=value.device).expand_as(value)


@register("pag", "perturbed-attention")
class PAG(Guidance):
    """Perturbed-attention guidance: away from the estimate of a network whose cells cannot see one another.

    Ahn et al. 2024 (arXiv 2403.17377): ``inner + strength (c - perturbed)``, where in the perturbed
    call the chosen self-attention maps are the identity. Needs no empty prompt: ``PAG(Plain())`` works without CFG.

    Args:
        inner: the guidance that it is added to.
        strength: how hard to push; 0 asks for no further call.
        sites: names of blocks whose self-attention is perturbed, ``*`` at the end for all that begin so.
    """

    def __init__(self, inner: Guidance | None = None, strength: float = 3.0, sites: Sequence[str] = ("mid.*",)) -> None:
        self.inner = checks.instance("inner", CFG() if inner is None else inner, Guidance, "give one, such as CFG(3.0)")
        self.strength, self.edit = checks.number("strength", strength), IdentityMap(names(sites))

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return ask(self.inner, self.strength, self.edit, conds, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        return push(self.inner, self.strength, self.edit, parts, x, here, memory)
