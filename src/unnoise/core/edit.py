"""What is done, or read, inside a network for one call."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from unnoise.core.condition import Condition
from unnoise.errors import UnnoiseError

Look = Callable[[Tensor, Tensor | None], Tensor]


class Around(NamedTuple):
    """What an edit may look at beside the value of a site. Settings belong to an edit, rows to a condition.

    Attributes:
        cond: the condition of the call, row for row with the value.
        cells: of the call's state along each axis, such as (rows, columns); None for a square.
        look: where a prompt was attended to: ``look(tokens, mask)`` is what the queries that found the value find in
            another prompt, (B, L, D) tokens and (B, L) bool or None.
    """

    cond: Condition | None = None
    cells: tuple[int, ...] | None = None
    look: Look | None = None

    def grid(self, count: int) -> tuple[int, ...]:
        """The cells along each axis of a map of ``count`` cells: the state's, divided by one number and rounded up."""
        cells = self.cells or (math.isqrt(count),) * 2
        grids = (tuple(-(-each // shrink) for each in cells) for shrink in range(1, max(cells) + 1))
        return next(grid for grid in grids if math.prod(grid) == count)


NOTHING_AROUND = Around()


@dataclass(frozen=True)
class Edit:
    """Frozen data for what to do at named sites of a network during one call; no shared module is patched.

    A network calls ``apply_edits(edits, site, value)`` at each of its sites. A fresh edit is the identity. Edits of the
    same settings are equal, so that calls that share them can be made as one.

    Attributes:
        sites: names of sites, such as ``"down.0.res.1"``; a name ending in ``*`` stands for all that begin so.
    """

    kind: ClassVar[str] = "edits"
    sites: tuple[str, ...] = ()

    def at(self, site: str) -> bool:
        """Whether this edit acts there."""
        return any(stands_for(each, site) for each in self.sites)

    def __call__(self, site: str, value: Tensor) -> Tensor:
        """The site's value after the edit; of the same shape."""
        return value

    def within(self, site: str, value: Tensor, around: Around) -> Tensor:
        """The same for edits that look at what is around the value. Others leave this be."""
        return self(site, value)


def stands_for(pattern: str, site: str) -> bool:
    """Whether a name stands for that site: it is the site's own, or ends in ``*`` and the site begins so."""
    return site == pattern or (pattern.endswith("*") and site.startswith(pattern[:-1]))


def apply_edits(edits: Sequence[Edit], site: str, value: Tensor, around: Around = NOTHING_AROUND) -> Tensor:
    """The value of a site after every edit that acts there, in order."""
    for edit in edits:
        if edit.at(site):
            value = edit.within(site, value, around)
    return value


def check_sites(sites: Sequence[str], edits: Iterable[Edit] = (), read: Iterable[str] = ()) -> None:
    """Ensures that a network has the sites that edits and reads name.

    Args:
        sites: all that the network has.
        edits: each of their names stands for at least one site.
        read: each is a site.

    Raises:
        UnnoiseError: one is no site of the network.
    """
    names = frozenset(sites)
    strange = [site for site in read if site not in names]
    strange += [p for edit in edits for p in edit.sites if not any(stands_for(p, site) for site in sites)]
    if strange:
        tops = dict.fromkeys(".".join(site.split(".")[:2]) for site in sites)
        hint = f"choose among: {', '.join(tops)}" if tops else "it has none: leave them out"
        raise UnnoiseError(f"the network has no site {strange[0]!r}", hint)
