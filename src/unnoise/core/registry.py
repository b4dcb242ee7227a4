"""Names for the things that can be chosen: adding one is adding one file.

A leaf says its name with ``@register("ddim")`` and lies in the folder of its kind (``unnoise/solvers/ddim.py``). The
index is read from the source text, so listing every method imports neither the methods nor torch; ``find`` imports the
one file that it needs.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path as FilePath
from typing import Any, NamedTuple, TypeVar

from unnoise.core import checks
from unnoise.errors import UnnoiseError

KINDS = (
    "paths",
    "predictions",
    "spacings",
    "solvers",
    "guidances",
    "objectives",
    "networks",
    "autoencoders",
    "encoders",
    "recipes",
)

_ROOT = FilePath(__file__).resolve().parent.parent
_T = TypeVar("_T")
_LIVE: dict[tuple[str, str], Any] = {}


class Entry(NamedTuple):
    """One line of the index: what a menu shows, and where the thing lives.

    Attributes:
        facts: the class attributes that are written as plain values, such as a solver's order.
    """

    name: str
    aliases: tuple[str, ...]
    summary: str
    module: str
    attribute: str
    facts: dict[str, Any]


def register(name: str, *aliases: str) -> Callable[[_T], _T]:
    """Gives a class or a recipe its public name and aliases. The folder that its file lies in is its kind."""

    def decorate(thing: _T) -> _T:
        module = getattr(thing, "__module__", "")
        kind = getattr(thing, "kind", None) or module.split(".")[1 if module.startswith("unnoise.") else 0]
        for each in (name, *aliases):
            _LIVE[kind, each] = thing
        thing.name = name  # type: ignore[attr-defined]
        return thing

    return decorate


def _entry(node: ast.stmt, module: str) -> Entry | None:
    if not isinstance(node, ast.ClassDef | ast.FunctionDef):
        return None
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "register":
            names = tuple(str(ast.literal_eval(argument)) for argument in mark.args)
            summary = (ast.get_docstring(node) or "").split("\n")[0]
            return Entry(names[0], names[1:], summary, module, node.name, _facts(node))
    return None


def _facts(node: ast.ClassDef | ast.FunctionDef) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in node.body if isinstance(node, ast.ClassDef) else ():
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        if isinstance(target, ast.Name) and isinstance(getattr(line, "value", None), ast.Constant):
            found[target.id] = line.value.value  # type: ignore[attr-defined]
    return found


def index(kind: str) -> dict[str, Entry]:
    """The methods of a kind by name, in alphabetical order, read from the source without importing it.

    Raises:
        UnnoiseError: there is no such kind.
    """
    return _index(checks.choice("kind of method", kind, *KINDS))


@cache
def _index(kind: str) -> dict[str, Entry]:
    entries = []
    for file in sorted((_ROOT / kind).glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            entry = _entry(node, f"unnoise.{kind}.{file.stem}")
            if entry:
                entries.append(entry)
    return {entry.name: entry for entry in sorted(entries)}


def find(kind: str, name: str) -> Any:
    """The class or recipe of that name or alias.

    Raises:
        UnnoiseError: nothing is called that; the nearest names are told.
    """
    if (checks.text("kind", kind), checks.text("name", name)) in _LIVE:
        return _LIVE[kind, name]
    entries = index(kind)
    for entry in entries.values():
        if name == entry.name or name in entry.aliases:
            return getattr(importlib.import_module(entry.module), entry.attribute)
    near = difflib.get_close_matches(name, entries, n=3, cutoff=0.4)
    what = kind.removesuffix("s")
    hint = f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(entries)}"
    raise UnnoiseError(f"no {what} is called {name!r}", hint)
