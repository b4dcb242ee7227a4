"""What is done, or read, inside a network for one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unnoise.core.condition import Condition

Look = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Edit:
    """Frozen data that says what to do at named sites of a network during one call; nobody patches a shared module.

    A network calls ``apply_edits(edits, site, value)`` at each of its sites. A fresh edit is the identity.

    Attributes:
        sites: names of sites, such as ``"down.0.res.1"``; a name ending in ``*`` stands for all that begin so.
    """

    kind: ClassVar[str] = "edits"
    sites: tuple[str, ...] = ()

    def at(self, site: str) -> bool:
        """Whether this edit acts there."""
        return any(site == each or (each.endswith("*") and site.startswith(each[:-1])) for each in self.sites)

    def __call__(self, site: str, value: Tensor) -> Tensor:
        """The site's value after the edit; of the same shape."""
        return value

    def beside(self, site: str, value: Tensor, look: Look, cond: Condition | None) -> Tensor:
        """The same where a prompt was attended to.

        Args:
            site, value: as above.
            look: ``look(tokens, mask)`` is what the queries that found the value find in another prompt: (B, L, D)
                tokens, (B, L) bool or None.
            cond: the condition of the call, row for row; settings alone belong to an edit, rows to a condition.
        """
        return self(site, value)


def apply_edits(
    edits: Sequence[Edit], site: str, value: Tensor, look: Look | None = None, cond: Condition | None = None
) -> Tensor:
    """The value of a site after every edit that acts there, in order; where there is a ``look``, by ``Edit.beside``."""
    for edit in edits:
        if edit.at(site):
            value = edit(site, value) if look is None else edit.beside(site, value, look, cond)
    return value
