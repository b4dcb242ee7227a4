"""``unnoise list``: what can be chosen, read from the registry's index without torch."""

from __future__ import annotations

import tyro

from unnoise.core import registry


def listing(kind: tyro.conf.Positional[str | None] = None) -> None:
    """List what can be chosen: solvers, spacings, guidances, paths, predictions, recipes and the rest.

    Args:
        kind: one kind; all of them if left out.
    """
    for each in [kind] if kind else registry.KINDS:
        entries = registry.index(each)
        print(f"{each}:")
        for entry in entries.values():
            names = ", ".join((entry.name, *entry.aliases))
            print(f"  {names:<36} {entry.summary}")
