"""``unnoise list``: solvers, spacings and all other choices, read from the registry's index without torch."""

from __future__ import annotations

import sys

import tyro

from unnoise.core import registry
from unnoise.errors import one_line
from unnoise.notes import width


def listing(kind: tyro.conf.Positional[str | None] = None) -> None:
    """List solvers, spacings, guidances, paths, predictions, recipes and all other choices.

    Args:
        kind: one kind; by default all.
    """
    for each in [kind] if kind else registry.KINDS:
        entries = registry.index(each)
        print(f"{each}:")
        for entry in entries.values():
            source = f" (of the package {entry.package})" if entry.package else ""
            print(f"  {', '.join(entry.names):<36} {one_line(entry.summary)}{source}")
        for name, why in registry.faults(each).items():
            print(f"  {name:<36} cannot be used: {one_line(why)}")


def solvers() -> None:
    """Show every solver: its order, whether it draws noise, calls of the network a step, and when to choose it.

    A setting can change the order; docs/solvers.md and docs/stochastic-solvers.md describe how.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "solver", "order", "noise", "calls", "when to choose it", "also called", box=None, padding=(0, 2, 0, 0)
    )
    for entry in registry.index("solvers").values():
        facts = entry.facts
        order, calls = facts.get("order") or "none claimed", facts.get("evaluations", 1)
        noise = "yes" if facts.get("stochastic") else "no"
        table.add_row(entry.name, str(order), noise, str(calls), facts.get("use", ""), ", ".join(entry.aliases))
    Console(width=width() if sys.stdout.isatty() else 160).print(table)
