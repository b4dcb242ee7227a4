"""Names for the things that can be chosen: adding one is adding one file.

A leaf registers itself with ``@register("ddim")`` and lies in its kind's folder (``unnoise/solvers/ddim.py``). The
index is read from the source text, so listing every method imports neither the methods nor torch; ``find`` imports the
one file that it needs. Methods of other installed packages stand in the index beside ours: see ``core.packages``.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path as FilePath
from typing import Any, NamedTuple, TypeVar

from unnoise.core import checks, packages
from unnoise.errors import UnnoiseError, one_line

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
    "readers",
)
_FOLDERS = {"readers": "engine/readers"}  # of kinds that have no room of their own
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,60}")

_ROOT = FilePath(__file__).resolve().parent.parent
_T = TypeVar("_T")
_LIVE: dict[tuple[str, str], Any] = {}


class Entry(NamedTuple):
    """One line of the index: what a menu shows, and where the thing lives.

    Attributes:
        facts: the class attributes that are written as plain values, such as a solver's order.
        package: the name of the installed distribution that brings it; "" for our own.
    """

    name: str
    aliases: tuple[str, ...]
    summary: str
    module: str
    attribute: str
    facts: dict[str, Any]
    package: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and aliases."""
        return (self.name, *self.aliases)


def register(name: str, *aliases: str) -> Callable[[_T], _T]:
    """Gives a class or a recipe its public name and aliases. The folder that its file lies in is its kind; of another
    package's the group of its entry point.

    Raises:
        UnnoiseError: another package takes a name of ours.
    """

    def decorate(thing: _T) -> _T:
        module, attribute = getattr(thing, "__module__", ""), getattr(thing, "__qualname__", "")
        kind = getattr(thing, "kind", None) or _kind_of(module, attribute)
        for each in (name, *aliases):
            if not module.startswith("unnoise.") and kind in KINDS and (owner := _owner(own(kind), each)):
                raise UnnoiseError(_conflict(module, kind, each, owner), "its author must rename it")
            _LIVE[kind, each] = thing
        thing.name, thing.kind = name, kind  # type: ignore[attr-defined]
        return thing

    return decorate


def _kind_of(module: str, attribute: str) -> str:
    """By where a thing is defined: in a folder of ours, or by an entry point that names it."""
    for kind in KINDS:
        if module.startswith(f"unnoise.{_FOLDERS.get(kind, kind).replace('/', '.')}."):
            return kind
    target = f"{module}:{attribute}"
    return next((offer.kind for offer in packages.offers() if offer.target == target), module.split(".")[0])


def _owner(entries: Mapping[str, Entry], name: str) -> Entry | None:
    return next((entry for entry in entries.values() if name in entry.names), None)


def _conflict(who: str, kind: str, name: str, entry: Entry) -> str:
    return f"{who} calls its {kind.removesuffix('s')} {name!r}, which is the name of unnoise's own {entry.module}"


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
    facts: dict[str, Any] = {}
    for line in node.body if isinstance(node, ast.ClassDef) else ():
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        if isinstance(target, ast.Name) and isinstance(getattr(line, "value", None), ast.Constant):
            facts[target.id] = line.value.value  # type: ignore[attr-defined]
    return facts


def index(kind: str) -> dict[str, Entry]:
    """The methods of a kind by name, in alphabetical order, read from the source without importing it: ours, and those
    that other installed packages offer.

    Raises:
        UnnoiseError: there is no such kind.
    """
    entries = own(kind)
    others = _offered(kind)[0]
    return {name: (entries | others)[name] for name in sorted(entries | others)} if others else entries


def own(kind: str) -> dict[str, Entry]:
    """The methods of a kind that come with unnoise, by name, in alphabetical order.

    Raises:
        UnnoiseError: there is no such kind.
    """
    return _index(checks.choice("kind of method", kind, *KINDS))


def faults(kind: str) -> dict[str, str]:
    """Why methods of a kind that other packages offer cannot be used: {name: why, the package named}.

    Raises:
        UnnoiseError: there is no such kind.
    """
    return _offered(checks.choice("kind of method", kind, *KINDS))[1]


def package_of(cls: type) -> str:
    """The name of the installed package that offers this class; "" for ours, and for what no package offers."""
    target = f"{cls.__module__}:{cls.__qualname__}"
    return next((offer.package for offer in packages.offers() if offer.target == target), "")


@cache
def _index(kind: str) -> dict[str, Entry]:
    return {entry.name: entry for entry in sorted(_entries(kind))}


@cache
def _named(kind: str, name: str) -> Entry | None:
    """The method of ours of that name or alias. Of all files only those are parsed whose text has the name in it, and
    what other packages offer is not looked at: a model is loaded sooner."""
    return next((entry for entry in _entries(kind, name) if name in entry.names), None)


def _entries(kind: str, name: str = "") -> Iterator[Entry]:
    """The methods of ours, or those in files that register one of that name."""
    folder, pattern = _FOLDERS.get(kind, kind), re.compile(rf'@register\([^)]*"{re.escape(name)}"')
    for file in sorted((_ROOT / folder).glob("*.py")):
        text = file.read_text(encoding="utf-8")
        for node in ast.parse(text).body if not name or pattern.search(text) else ():
            if entry := _entry(node, f"unnoise.{folder.replace('/', '.')}.{file.stem}"):
                yield entry


@cache
def _offered(kind: str) -> tuple[dict[str, Entry], dict[str, str]]:
    """({name: entry}, {name: why it cannot be used}) of other packages' methods."""
    entries: dict[str, Entry] = {}
    wrong: dict[str, str] = {}
    for offer in packages.offers():
        if offer.kind != kind:
            continue
        try:
            entry = _read(offer)
            for name in entry.names:
                if owner := _owner(own(kind), name):
                    raise ValueError(_conflict(f"the package {offer.package}", kind, name, owner))
                if rival := _owner(entries, name):
                    raise ValueError(f"the packages {rival.package} and {offer.package} both offer it; uninstall one")
        except ValueError as why:
            wrong[one_line(offer.name)] = str(why) if offer.package in str(why) else f"package {offer.package}: {why}"
            continue
        entries[entry.name] = entry
    return entries, wrong


def _read(offer: packages.Offer) -> Entry:
    """The entry of an offer, read from its source.

    Raises:
        ValueError: there is no source, or no method in it of the entry point's name.
    """
    if not _NAME.fullmatch(offer.name):
        raise ValueError(f"{offer.name!r} is no name")
    module, attribute = offer.place
    try:
        file = packages.source_of(module)
        nodes = ast.parse(file.read_text(encoding="utf-8")).body if file is not None else None
    except Exception as error:  # whatever finds their modules is not ours either
        raise ValueError(f"the source of {module} cannot be read ({error})") from None
    if nodes is None:
        raise ValueError(f"the source of {module} is not there")
    match = next((entry for node in nodes if (entry := _entry(node, module)) and entry.attribute == attribute), None)
    if match is None or match.name != offer.name:
        raise ValueError(f'{module} has no {attribute} with @register("{offer.name}")')
    return match._replace(package=offer.package)


def find(kind: str, name: str) -> Any:
    """The class or recipe of that name or alias.

    Raises:
        UnnoiseError: nothing has that name, and the message lists the nearest; or another package's cannot be used.
    """
    if (checks.text("kind", kind), checks.text("name", name)) in _LIVE:
        return _LIVE[kind, name]
    if ours := _named(checks.choice("kind of method", kind, *KINDS), name):
        return _thing(ours)
    entries, what = index(kind), kind.removesuffix("s")
    if entry := _owner(entries, name):
        return _offered_thing(kind, entry) if entry.package else _thing(entry)
    if why := faults(kind).get(name):
        raise UnnoiseError(f"the {what} {name!r} cannot be used: {why}", "update that package, or uninstall it")
    near = difflib.get_close_matches(name, entries, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(entries)}"
    raise UnnoiseError(f"no {what} is called {name!r}", hint)


def _thing(entry: Entry) -> Any:
    return getattr(importlib.import_module(entry.module), entry.attribute)


def _offered_thing(kind: str, entry: Entry) -> Any:
    what = f"the {kind.removesuffix('s')} {entry.name!r} of the package {entry.package}"
    mend = f"update {entry.package}, or uninstall it"
    try:
        thing = _thing(entry)
    except (Exception, SystemExit) as error:  # of their code, anything
        raise UnnoiseError(f"{what} cannot be imported ({type(error).__name__}: {error})", mend) from error
    if getattr(thing, "kind", None) != kind:
        raise UnnoiseError(f"{what} is none: it is one of the {getattr(thing, 'kind', 'unknown')}", mend)
    return thing
