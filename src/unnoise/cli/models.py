"""``unnoise models``: the models on this machine, whoever made them, by the headers of their files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import tyro

from unnoise import notes
from unnoise.errors import UnnoiseError
from unnoise.foreign import quoted
from unnoise.weights import index as listed
from unnoise.weights.entry import Entry
from unnoise.weights.lookup import matches
from unnoise.weights.quick import full_hash
from unnoise.weights.roles import BROKEN, KINDS, OTHER, PICKLE

EMPTY = "no models are listed; `unnoise models add FOLDER` reads a folder of them"
TITLES = {
    PICKLE: "pickles, which are never opened here (`unnoise convert FILE --out FILE.safetensors` rewrites one)",
    BROKEN: "broken",
}
WIDEST = 44  # letters of a name in the table
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
Json = Annotated[bool, tyro.conf.arg(name="json")]


def models(
    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = (),
    kind: str | None = None,
    full: Annotated[bool, tyro.conf.arg(name="hash")] = False,
    as_json: Json = False,
) -> None:
    """List the models that `unnoise models add` found: name, family, size, hash and place, by kind.

    Args:
        names: those models alone; without a name all.
        kind: one kind alone: checkpoint, denoiser, autoencoder, text encoder, adapter and so on.
        full: compute the SHA-256 of all bytes of those that are listed, which takes some seconds for each gigabyte.
        as_json: print them as one line of JSON on standard output.
    """
    if kind is not None and kind not in KINDS:
        raise UnnoiseError(f"no kind of model is called {kind!r}", f"one of: {', '.join(KINDS)}")
    index = listed.read_index()
    entries = list(index.entries.values())
    if names:
        entries = list({entry.path: entry for name in names for entry in matches(name, entries)}.values())
    entries = [entry for entry in entries if kind in (None, entry.kind)]
    if full:
        entries = hashed(entries)
    if as_json:
        place = str(listed.home() / listed.LIST)
        models = [{**entry._asdict(), "hash": entry.short()} for entry in entries]
        print(json.dumps({"list": place, "folders": list(index.folders), "models": models}))
    elif not entries:
        print(EMPTY if not index.entries else "no model of this kind is listed")
    else:
        print("\n".join(table(entries)))


def add(folder: Folder, as_json: Json = False) -> None:
    """Read the headers of all models in a folder, and remember where they lie; nothing is copied or loaded.

    Folders of ComfyUI, AUTOMATIC1111 and Forge, a Hugging Face hub's cache, models in diffusers' layout and folders
    of unnoise's own models are understood. A folder that was added before is read again where it changed.

    Args:
        folder: the folder; those inside of it are read too.
        as_json: print what was found as one line of JSON on standard output.
    """
    report([scanned(folder)], as_json)


def scan(as_json: Json = False) -> None:
    """Read all folders of the list again. Files of the same size and time as before are not read.

    Args:
        as_json: print what was found as one line of JSON on standard output.
    """
    folders = listed.read_index().folders
    if not folders:
        raise UnnoiseError("no folder was added", "add one: `unnoise models add FOLDER`")
    there = [folder for folder in folders if os.path.isdir(folder)]
    for folder in sorted(set(folders) - set(there)):
        again = "`unnoise models remove` takes them off the list"
        notes.say(f"note: {quoted(folder, 4096)} is not there now, such as a disk that is not mounted; {again}")
    report([scanned(Path(folder)) for folder in there], as_json)


def remove(folder: Folder) -> None:
    """Take the models of a folder off the list. The files stay where they are.

    Args:
        folder: a folder that was added.
    """
    count = listed.remove(folder)
    notes.tell(f"{count:,} {'model' if count == 1 else 'models'} taken off the list; no file was touched")


def scanned(folder: Path) -> listed.Change:
    """What adding a folder finds, with progress on a terminal."""
    with counter("reading headers") as tick:
        return listed.add(folder, lambda entry: tick())


@contextmanager
def counter(what: str) -> Iterator[Callable[[], None]]:
    """Shows on a terminal how many were done; the function that it gives counts one more."""
    err = notes.console()
    if not err.is_terminal:
        yield lambda: None
        return
    count = 0
    with err.status(what) as status:

        def tick() -> None:
            nonlocal count
            count += 1
            status.update(f"{what}: {count:,}")

        yield tick


def hashed(entries: list[Entry]) -> list[Entry]:
    """The entries with the SHA-256 of those that are one file, computed where it is not known, and kept in the list."""
    files = [e for e in entries if os.path.isfile(e.path) and not e.path.endswith(".json")]  # the index of shards
    unread = [entry for entry in files if not entry.sha256 and entry.kind != BROKEN]
    news: dict[str, Entry] = {}
    done = 0
    try:
        with notes.progress("hashing", "MB") as bar:
            task = bar.add_task("", total=sum(entry.bytes for entry in unread) // 10**6)

            def advance(count: int) -> None:
                nonlocal done
                done += count
                bar.update(task, completed=done // 10**6)

            for entry in unread:
                stat = os.stat(entry.path)
                if (stat.st_size, stat.st_mtime_ns) != (entry.bytes, entry.changed):
                    raise UnnoiseError(f"{entry.path} has changed since it was listed", "run `unnoise models scan`")
                digest = full_hash(Path(entry.path), advance)
                news[entry.path] = entry._replace(sha256=digest)
    finally:  # what is known stays known if it is stopped
        if news:
            listed.keep(news)
    return [news.get(entry.path, entry) for entry in entries]


def report(changes: list[listed.Change], as_json: bool) -> None:
    """Prints what was found, and notes of what was passed over."""
    for note in (note for change in changes for note in change.notes):
        notes.say(f"note: {quoted(note, 4096)}")
    if as_json:
        rows = [{"folder": each.folder, "fresh": each.fresh, "models": [e._asdict() for e in each.entries],
                 "notes": list(each.notes)} for each in changes]  # fmt: skip
        print(json.dumps(rows))
        return
    for change in changes:
        counts = [(kind, [e for e in change.entries if e.kind == kind]) for kind in KINDS]
        text = ", ".join(f"{len(found):,} {plural(kind, len(found))}" for kind, found in counts if found) or "no models"
        print(f"{quoted(change.folder, 4096)}: {text}; {change.fresh:,} new or changed")
        for entry in counts[-1][1]:
            print(f"  broken: {quoted(entry.path, 4096)}: {quoted(entry.fault, 600)}")


def table(entries: Iterable[Entry]) -> Iterator[str]:
    """The lines of the list: under each kind a line for each model."""
    for kind in KINDS:
        found = sorted((e for e in entries if e.kind == kind), key=lambda e: (e.name.lower(), e.path))
        if not found:
            continue
        yield f"{TITLES.get(kind, kind)}:"
        rows = [(quoted(e.name, 120), e.family or "-", notes.size_text(e.bytes), e.short(), e) for e in found]
        name, family = (min(WIDEST, max(len(row[column]) for row in rows)) for column in (0, 1))
        for title, group, size, short, entry in rows:
            yield f"  {title:<{name}}  {group:<{family}}  {size:>9}  {short:<11}  {quoted(entry.path, 4096)}"
            if entry.fault:
                yield f"    {quoted(entry.fault, 600)}"


def plural(kind: str, count: int) -> str:
    """The kind as a noun after a number."""
    return f"{kind}s" if count > 1 and kind not in (OTHER, BROKEN) else kind
