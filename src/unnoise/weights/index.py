"""The list of the models on this machine: one JSON file in the user's data folder. Nothing is copied.

It is made by ``unnoise models add FOLDER`` from the headers of the files there, and ``lookup`` finds models in it by
name. Each change reads it again, adds to it and writes it whole, under a lock, so that two at a time lose nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.errors import UnnoiseError, one_line
from unnoise.files import expanded, explain, write_whole
from unnoise.foreign import parse_json, read
from unnoise.weights.entry import Entry, entry_of
from unnoise.weights.roles import AUTOENCODER, KINDS, TINY, UNDECIDED
from unnoise.weights.walk import Walk

FORMAT = 1
RULES = 1  # of recognition: entries that were made by others are made again
LIST = "models.json"
MAX_LIST = 2**28  # bytes of the list: of 100,000 models it has 60 MB
HOME = "UNNOISE_HOME"


class Index(NamedTuple):
    """The list: folders that were added, and the models in them, each with its path as the key."""

    folders: tuple[str, ...] = ()
    entries: Mapping[str, Entry] = {}


class Change(NamedTuple):
    """What adding or scanning a folder found.

    Attributes:
        folder: the folder.
        entries: all models in it.
        fresh: how many of them are new or changed.
        notes: what was passed over, a line each.
    """

    folder: str
    entries: tuple[Entry, ...]
    fresh: int
    notes: tuple[str, ...]


def home() -> Path:
    """The folder of what unnoise keeps for a user: $UNNOISE_HOME, or ``unnoise`` in $XDG_DATA_HOME or ~/.local/share.

    Raises:
        UnnoiseError: it begins with the home folder of an unknown user.
    """
    if own := os.environ.get(HOME):
        return Path(os.path.abspath(expanded(own)))
    base = os.environ.get("XDG_DATA_HOME", "")  # which must be absolute, by the specification of such folders
    return (Path(base) if os.path.isabs(base) else expanded("~/.local/share")) / "unnoise"


def read_index() -> Index:
    """The list as it stands; empty where there is none.

    Raises:
        UnnoiseError: it cannot be read, is damaged, or was written by a newer unnoise.
    """
    path = home() / LIST
    if not os.path.lexists(path):
        return Index()
    mend = f"delete it and add your folders again: rm {path}; unnoise models add FOLDER"
    try:
        value = parse_json(read(path, MAX_LIST))
        if type(value["format"]) is int and value["format"] > FORMAT:
            raise UnnoiseError(f"the list of models at {path} was written by a newer unnoise", "update unnoise")
        old = value["rules"] != RULES
        folders = tuple(str(folder) for folder in value["folders"])
        entries = [entry_from(each, old) for each in value["models"]]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        reason = one_line(f"{type(error).__name__}: {error}")[:80]
        raise UnnoiseError(f"the list of models at {path} is damaged ({reason})", mend) from None
    return Index(folders, {entry.path: entry for entry in entries})


def entry_from(value: Mapping[str, Any], old: bool) -> Entry:
    """An entry as JSON has it; an old one as if its file had changed since.

    Raises:
        ValueError: a value is of another type.
        KeyError: a value is missing.
    """
    fields = {name: value[name] for name in Entry._fields}
    fields["parts"] = tuple(fields["parts"])
    for name, example in Entry("", "", "")._asdict().items():
        if type(fields[name]) is not type(example):
            raise ValueError(f"{name} is no {type(example).__name__}")
    if fields["kind"] not in KINDS or not os.path.isabs(fields["path"]):
        raise ValueError("a model has no kind or no path")
    return Entry(**{**fields, **({"changed": 0} if old else {})})


def write_index(index: Index) -> None:
    """Writes the list whole or not at all.

    Raises:
        UnnoiseError: the folder cannot be made or written.
    """
    about = {"format": FORMAT, "rules": RULES, "folders": list(index.folders)}
    models = ",\n".join(json.dumps(entry._asdict()) for entry in index.entries.values())  # a line for each
    write_whole(home() / LIST, f'{json.dumps(about)[:-1]}, "models": [\n{models}\n]}}\n'.encode())


@contextlib.contextmanager
def changed() -> Iterator[None]:
    """Within, no other process changes the list.

    Raises:
        UnnoiseError: the folder cannot be made or written.
    """
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("a") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise explain(error, folder) from None


def add(folder: Path, found: Callable[[Entry], object] = lambda entry: None) -> Change:
    """Reads the headers in a folder and puts its models into the list; those that are gone leave it.

    Args:
        folder: the folder.
        found: is called with each entry as it is made.

    Raises:
        UnnoiseError: it is no folder, or the list cannot be read or written.
    """
    root = Path(os.path.abspath(expanded(folder)))
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "is not there"
        raise UnnoiseError(f"{root} {what}", "name the folder that holds your models")
    known = read_index().entries
    walk = Walk(root)
    entries: dict[str, Entry] = {}
    fresh = 0
    for item in walk:
        path = os.path.abspath(item.path)
        old = known.get(path)
        inside = [e for e in entries.values() if e.path.startswith(f"{path}{os.sep}")] if not item.files else []
        entry = entry_of(item, old, inside)
        if entry is None:
            continue
        if item.form == "diffusers":
            for part in inside:  # an autoencoder whose own file does not tell whose it is
                if part.kind in (AUTOENCODER, TINY) and part.family == UNDECIDED and entry.family:
                    entries[part.path] = part._replace(family=entry.family)
        fresh += entry != old
        entries[path] = entry
        found(entry)
    with changed():
        now = read_index()
        rest = {path: entry for path, entry in now.entries.items() if not is_in(path, str(root))}
        folders = tuple(sorted({*now.folders, str(root)}))
        write_index(Index(folders, {**rest, **entries}))
    return Change(str(root), tuple(entries.values()), fresh, tuple(walk.notes))


def remove(folder: Path) -> int:
    """Takes a folder's models off the list, except those in another folder of it; returns how many. Files stay.

    Raises:
        UnnoiseError: the folder was never added, or the list cannot be read or written.
    """
    root = os.path.abspath(expanded(folder))
    with changed():
        now = read_index()
        if root not in now.folders:
            names = ", ".join(now.folders[:6]) or "no folder"
            raise UnnoiseError(f"{root} was not added", f"the list has {names}")
        folders = tuple(each for each in now.folders if each != root)
        rest = {p: e for p, e in now.entries.items() if not is_in(p, root) or any(is_in(p, each) for each in folders)}
        write_index(Index(folders, rest))
    return len(now.entries) - len(rest)


def keep(entries: Mapping[str, Entry]) -> None:
    """Replaces entries of the list whose files are still those that were read, such as by ones with their SHA-256.

    Raises:
        UnnoiseError: the list cannot be read or written.
    """
    with changed():
        now = read_index()
        news = {path: entry for path, entry in entries.items()
                if path in now.entries and now.entries[path].changed == entry.changed}  # fmt: skip
        write_index(now._replace(entries={**now.entries, **news}))


def is_in(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it, by their names."""
    return path == folder or path.startswith(f"{folder.rstrip(os.sep)}{os.sep}")
