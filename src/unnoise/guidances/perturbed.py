"""What PAG and SEG share: a push away from the same network, perturbed in one more call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.edit import Edit
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Ask, Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel


def names(sites: str | Sequence[str]) -> tuple[str, ...]:
    """The sites of an edit, of which one may be given as it is."""
    return (sites,) if isinstance(sites, str) else tuple(checks.several("sites", sites, checks.text))


def ask(
    inner: Guidance, strength: float, edit: Edit, conds: Mapping[str, Condition | None], here: NoiseLevel
) -> dict[str, Ask]:
    """What the inner guidance asks, the conditional call, and the same with the edit."""
    asks: Asks = inner.asks(conds, here)
    plain = Ask(conds["cond"])
    return dict(asks) if strength == 0 else {**asks, "cond": plain, str(edit): plain._replace(edits=(edit,))}


def push(
    inner: Guidance, strength: float, edit: Edit, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any
) -> tuple[Estimate, Any]:
    """``inner + strength (c - perturbed)``. An inner guidance with the same edit shares its call."""
    e, memory = inner.combine(parts, x, here, memory)
    if strength == 0:
        return e, memory
    c, p = parts["cond"], parts[str(edit)]
    return Estimate(e.x0 + strength * (c.x0 - p.x0), e.eps + strength * (c.eps - p.eps)), memory
