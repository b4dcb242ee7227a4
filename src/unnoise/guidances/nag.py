from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.edit import Around, Edit
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import register
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG
from unnoise.guidances.edited import combined, edited
from unnoise.guidances.perturbed import names


def pushed(plus: Tensor, minus: Tensor, strength: float, cap: float, blend: float) -> Tensor:
    """Features (B, N, D) pushed from ``minus`` past ``plus``, at most ``cap`` times as large in L1, then blended.

    Chen et al. 2025 (arXiv 2505.21179), section 4.1: Z~ = Z+ + s (Z+ - Z-), times min(R, tau)/R with R = |Z~|_1/|Z+|_1
    for each cell, and alpha of that with 1 - alpha of Z+.
    """
    far = plus + strength * (plus - minus)
    least = torch.finfo(far.dtype).tiny  # features of a cell that are all zero stay zero
    room = cap * plus.abs().sum(-1, keepdim=True) / far.abs().sum(-1, keepdim=True).clamp_min(least)
    return plus + blend * (far * room.clamp_max(1.0) - plus)


@dataclass(frozen=True)
class Away(Edit):
    """What cells found in the prompt, pushed away from what the same cells find in the condition's ``other_tokens``.

    Attributes:
        strength, cap, blend: see ``pushed``.
    """

    strength: float = 1.0
    cap: float = 2.5
    blend: float = 0.5

    def at(self, site: str) -> bool:
        return site.endswith(".cross.out") and super().at(site)

    def within(self, site: str, value: Tensor, around: Around) -> Tensor:
        cond = around.cond
        if around.look is None or cond is None or cond.other_tokens is None:
            raise UnnoiseError("NAG has no other prompt's tokens to steer away from", "give a negative prompt")
        minus = around.look(cond.other_tokens.to(value.dtype), cond.other_mask)
        return pushed(value, minus, self.strength, self.cap, self.blend)


def away_from(cond: Condition | None, other: Condition) -> Condition | None:
    """The condition with the tokens of another one beside its own; itself if it has them already."""
    if cond is None or (cond.other_tokens is other.tokens and cond.other_mask is other.token_mask):
        return cond
    return replace(cond, other_tokens=other.tokens, other_mask=other.token_mask)


@register("nag", "normalized-attention")
class NAG(Guidance):
    """Normalized attention guidance: inside cross-attention, away from the negative prompt; works without CFG.

    Chen et al. 2025 (arXiv 2505.21179). The calls with the prompt look at both prompts with the same queries. Costs a
    second attention, not a second call: ``NAG(Plain())`` gives networks a negative prompt that CFG would spoil.

    Args:
        inner: the guidance whose calls with the prompt are changed.
        strength: s, how hard to push; 0 is the inner guidance alone. The authors' code counts it from 1.
        cap: tau, how much larger than before features may become.
        blend: alpha, in [0, 1], how much of the result is taken.
        sites: names of places with cross-attention, ``*`` at the end for all that begin so.
    """

    def __init__(
        self,
        inner: Guidance | None = None,
        strength: float = 2.0,
        cap: float = 2.5,
        blend: float = 0.5,
        sites: Sequence[str] = ("*",),
    ) -> None:
        self.inner = checks.instance("inner", CFG() if inner is None else inner, Guidance, "give one, such as CFG(3.0)")
        self.strength, self.cap = checks.number("strength", strength), checks.number("cap", cap, above=0, most=math.inf)
        self.blend = checks.number("blend", blend, 0, 1)
        self.sites = names(sites)

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        if self.strength == 0:
            return self.inner.asks(conds, here)
        cond, other = conds["cond"], conds.get("uncond")
        if other is None:
            raise UnnoiseError("NAG wants a second prompt to steer away from", "give one, if only the empty one")
        edit = Away(self.sites, self.strength, self.cap, self.blend)
        both = away_from(cond, other)
        asks = edited(self.inner, "nag", edit, {**conds, "cond": both}, here, only=both)
        # calls that are not edited, such as a weaker network's, go without the other prompt
        return {
            n: ask._replace(cond=cond) if ask.cond is both and edit not in ask.edits else ask for n, ask in asks.items()
        }

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        return combined(self.inner, "nag", parts, x, here, memory)
