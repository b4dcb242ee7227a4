"""What NAG and FreeU share: another guidance, whose calls are made with an edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from unnoise.core.condition import Condition
from unnoise.core.edit import Edit
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import OWN, Ask, Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel

_ANY = object()


def edited(
    inner: Guidance, mark: str, edit: Edit, conds: Mapping[str, Condition | None], here: NoiseLevel, only: Any = _ANY
) -> dict[str, Ask]:
    """The inner guidance's calls of the run's own network with the edit, under names of their own.

    So an outer guidance that asks for "cond" (PAG, a ramp) gets it as it is, and the inner one gets it edited.

    Args:
        mark: what the names begin with.
        only: the one condition whose calls are edited, at whatever guidance scale; all if left out.
    """

    def change(ask: Ask) -> bool:
        return ask.network == OWN and (only is _ANY or same_prompt(ask.cond, only))

    asks: Asks = inner.asks(conds, here)
    return {
        f"{mark} {name}" if change(ask) else name: ask._replace(edits=(*ask.edits, edit)) if change(ask) else ask
        for name, ask in asks.items()
    }


def same_prompt(one: Condition | None, other: Condition | None) -> bool:
    """Whether two conditions hold the very same values, but for the guidance scale."""
    if one is None or other is None:
        return one is other
    return all(getattr(one, f.name) is getattr(other, f.name) for f in fields(one) if f.name != "scale")


def combined(
    inner: Guidance, mark: str, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any
) -> tuple[Estimate, Any]:
    """What the inner guidance makes of its calls, under the names that it gave them."""
    start = f"{mark} "
    own = {name.removeprefix(start): part for name, part in parts.items() if name.startswith(start)}
    return inner.combine({**parts, **own}, x, here, memory)
