"""Builds a picture set from a person's own pictures: read, made square, checked for duplicates, split, written."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unnoise import extras
from unnoise.data.duplicates import NEAR, Thumbnail, near_groups, thumbnail
from unnoise.data.intake import Item, LeftOut, Quarantine, Source, printable
from unnoise.data.read_folder import PACKED, read_folder
from unnoise.data.read_kohya import read_kohya
from unnoise.data.render import encode
from unnoise.data.report import REPORT, report_of, unused
from unnoise.data.square import Fit, Squarer
from unnoise.data.write import Row, existing_set, manifest_at, write_set
from unnoise.errors import UnnoiseError
from unnoise.files import expanded, json_bytes

Progress = Callable[[int, int], None]
REVISION = 2  # raised when the same pictures would give another set
SALT = "unnoise folder"
SIZE = 128  # pixels, both sides
MAX_SET = 2**31 - 2**20  # bytes of all its pictures: a column of Parquet holds no more
ANOTHER = "another picture set, from other pictures or with other settings"


@dataclass(frozen=True)
class FolderSettings:
    """How pictures become a set.

    ``size``, ``fit`` and ``background`` as in ``Squarer``; a size of None means a TOML's resolution, or 128;
    ``keep_back`` the share of pictures held out for validation, from 0 to below 1; ``near`` as in ``near_groups``.
    """

    size: int | None = None
    fit: Fit = "crop"
    background: str = "white"
    keep_back: float = 0.1
    near: float = NEAR


@dataclass(frozen=True)
class UsablePicture:
    """A picture for the set.

    ``item`` without its bytes; ``content`` their SHA-256 (hex); ``webp`` the square picture's file and ``pixels`` the
    SHA-256 (hex) of its pixels; its ``thumbnail``; ``width`` and ``height`` before it was made square.
    """

    item: Item
    content: str
    webp: bytes
    pixels: str
    thumbnail: Thumbnail
    width: int
    height: int


def build_folder(
    path: Path, out: Path, settings: FolderSettings = FolderSettings(), progress: Progress | None = None
) -> dict[str, Any]:
    """Make a picture set in the folder ``out`` from the pictures at ``path``; return its manifest.

    Args:
        path: a folder, a dataset TOML of kohya's, a Parquet file or a WebDataset tar.
        out: a new or empty folder; one that already holds the same set is left as it is.
        settings: see ``FolderSettings``.
        progress: called with (done, total at most) pictures.

    Raises:
        UnnoiseError: a setting is wrong, nothing at ``path`` can be used, ``out`` holds something else, or pyarrow is
            missing.
    """
    extras.require("pyarrow")
    path, out = expanded(path), expanded(out)
    check(path, out, settings)
    aside = Quarantine()
    source, resolution, ignored = source_of(path, aside)
    size = resolution or SIZE if settings.size is None else settings.size
    settings = replace(settings, size=size)
    usable, digest = usable_pictures(source, Squarer(size, settings.fit, settings.background), aside, progress)
    if not usable:
        first = f", the first because of: {aside.entries[0]['name']}: {_why(aside.entries[0])}" if aside.entries else ""
        first += f"; beside lie {unused(list(aside.beside.values()))}" if aside.beside else ""
        raise UnnoiseError(f"no picture at {path} can be used{first}", "name a folder with PNG, JPEG or WebP pictures")
    rows = rows_of(usable, near_groups([t.thumbnail for t in usable], settings.near), settings.keep_back)
    origin = {"kind": "folder", "revision": REVISION, "settings": vars(settings), "sources_sha256": digest}
    origin["versions"] = {"pillow": _pillow()}
    existing = existing_set(out, origin, ANOTHER)
    if existing is not None:
        return existing
    report = report_of(rows, aside, ignored, settings.keep_back)
    smaller = sum(min(t.width, t.height) < size for t in usable)
    extra = {"origin": origin, "name": printable(path.name), "left_out": len(aside.entries)}
    extra |= {"not_used": sum(each["count"] for each in aside.beside.values()), "enlarged": smaller}
    return write_set(out, rows, {**extra, "salt": SALT}, {REPORT: json_bytes(report)})


def check(path: Path, out: Path, settings: FolderSettings) -> None:
    """Checks the settings and paths before anything is read.

    Raises:
        UnnoiseError: no set can be built from them.
    """
    if not path.exists():
        raise UnnoiseError(f"there is nothing at {path}", "name a folder of pictures")
    if not 0 <= settings.keep_back < 1:
        raise UnnoiseError(f"--keep-back {settings.keep_back:g} is no share", "choose it from 0 to below 1")
    if not 0 <= settings.near <= 255:
        raise UnnoiseError(f"--near {settings.near:g} is no difference of levels", "choose it from 0 to 255")
    Squarer(SIZE if settings.size is None else settings.size, settings.fit, settings.background)
    if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
        raise UnnoiseError(f"{out} is inside {path}, and would be imported next time", "name another folder with --out")
    before = manifest_at(out)
    if before is not None and before.get("origin", {}).get("kind") != "folder":
        raise UnnoiseError(f"{out} holds {ANOTHER}", "name a new folder with --out, or remove this one")


def source_of(path: Path, aside: Quarantine) -> tuple[Source, int | None, list[str]]:
    """(pictures, the TOML's resolution, ignored training settings) of a folder or file.

    Raises:
        UnnoiseError: the path is a file of another kind.
    """
    ending = path.suffix.lower()
    if path.is_dir():
        return read_folder(path.resolve(), aside), None, []
    if ending == ".toml":
        return read_kohya(path, aside)
    if ending in PACKED:
        return PACKED[ending](path, path.name, aside), None, []
    raise UnnoiseError(f"{path} is no folder", "name a folder, or a file that ends in .toml, .parquet or .tar")


def usable_pictures(
    source: Source, squarer: Squarer, aside: Quarantine, progress: Progress | None = None
) -> tuple[list[UsablePicture], str]:
    """The pictures that can be used, and the SHA-256 (hex) of everything that was read.

    Raises:
        UnnoiseError: they are too large for one set.
    """
    usable, names, digest, size = [], Counter[str](), hashlib.sha256(), 0
    for count, item in enumerate(source.items, 1):
        name = printable(item.name)
        names[name] += 1
        name = name if names[name] == 1 else f"{name} ({names[name]})"
        content = hashlib.sha256(item.data).hexdigest()
        digest.update(json.dumps([name, content, item.captions, item.repeats]).encode() + b"\n")
        try:
            picture, width, height = squarer(item.data)
            pixels = hashlib.sha256(picture.tobytes()).hexdigest()
            item = replace(item, name=name, data=b"")
            usable.append(UsablePicture(item, content, encode(picture), pixels, thumbnail(picture), width, height))
            size += len(usable[-1].webp)
        except LeftOut as why:
            aside.add(name, why)
        if size > MAX_SET:
            raise UnnoiseError(
                f"the first {len(usable):,} pictures fill a set", "name fewer, or choose a smaller --size"
            )
        if progress is not None:
            progress(count, source.num_items)
    return usable, digest.hexdigest()


def rows_of(usable: Sequence[UsablePicture], groups: Sequence[int], keep_back: float) -> list[Row]:
    """The rows of the set: a group of near duplicates is one family, on one side of the split.

    Raises:
        UnnoiseError: nothing would be left to train on.
    """
    first: dict[str, int] = {}
    contents: dict[int, list[str]] = defaultdict(list)
    for index, (t, group) in enumerate(zip(usable, groups, strict=True)):
        first.setdefault(t.pixels, index)
        contents[group].append(t.content)
    held_out = {group for group, members in contents.items() if fraction(min(members)) < keep_back}
    if held_out == contents.keys():
        near = f", which are nearly equal, in {len(contents):,} of them," if len(contents) < len(usable) else ""
        near = ", which are nearly equal," if near and len(contents) == 1 else near
        what = f"{len(usable):,} pictures{near}" if len(usable) > 1 else "the one picture"
        hint = "choose 0, a smaller --near, or other pictures" if near else "choose 0, or add pictures"
        raise UnnoiseError(f"--keep-back {keep_back:g} keeps all of {what} and leaves none to train on", hint)
    return [
        Row(
            t.item.name,
            t.webp,
            t.pixels,
            list(t.item.captions) or [""],  # the empty prompt: trainings read it as no prompt
            {"width": t.width, "height": t.height},
            usable[group].item.name,
            first[t.pixels],
            *(("tier1", "validation") if group in held_out else ("train", "train")),
            repeats=t.item.repeats,
        )
        for t, group in zip(usable, groups, strict=True)
    ]


def fraction(content: str) -> float:
    """A number in [0, 1) that SHA-256 draws from a picture's content: the same at any size, on every computer."""
    return int.from_bytes(hashlib.sha256(f"{SALT}/{content}".encode()).digest()[:8], "big") / 2**64


def _why(entry: dict[str, str]) -> str:
    return f"{entry['kind']}, {entry['detail']}" if entry["detail"] else entry["kind"]


def _pillow() -> str:
    from PIL import __version__

    return __version__
