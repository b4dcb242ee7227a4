"""What the laws are asked of: every setting of a method of a kind; ``ask`` does so for one method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from laws import guidances, paths, predictions, solver_facts, solvers, spacings
from laws.world import applies
from unnoise.core.registry import find

Law = Callable[[Any], None]

KINDS: dict[str, tuple[list[Law], Callable[[str], list[Any]]]] = {  # (laws, the things to try for a name)
    "paths": (paths.LAWS, lambda name: [find("paths", name)()]),
    "predictions": (predictions.LAWS, lambda name: [find("predictions", name)()]),
    "guidances": (guidances.LAWS, guidances.guidances),
    "spacings": (spacings.LAWS, spacings.makers),
    "solvers": (solvers.LAWS, solver_facts.solvers),
}


def cases_of(kind: str, name: str) -> Iterator[tuple[int, Law, Any]]:
    """(number of the setting, law, thing) for each law that says something about a method."""
    laws, things = KINDS[kind]
    for i, thing in enumerate(things(name)):
        yield from ((i, law, thing) for law in laws if applies(law, thing))


def ask(kind: str, name: str) -> list[str]:
    """Asks a method, ours or an installed package's, every law that is about it; the names of these laws.

    Args:
        kind: "solvers", "guidances", "spacings", "paths" or "predictions".
        name: in the registry.

    Raises:
        AssertionError: it breaks a law, which the traceback names.
    """
    asked = []
    for _, law, thing in cases_of(kind, name):
        law(thing)
        asked.append(law.__name__)
    return asked
