"""Reads a folder of pictures: captions from text files of the same stem or from ``metadata.jsonl``, sets within it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from unnoise.data.intake import (
    MAX_CAPTIONS,
    MAX_PICTURE,
    MAX_RECORD,
    Item,
    LeftOut,
    Quarantine,
    Source,
    captions_in,
    captions_of,
    inside,
    read_file,
)
from unnoise.data.read_parquet import read_parquet
from unnoise.data.read_tar import read_tar

METADATA = "metadata.jsonl"
PACKED = {".parquet": read_parquet, ".tar": read_tar}
Told = tuple[str, ...] | LeftOut  # a picture's captions, or why they cannot be used


def read_folder(root: Path, aside: Quarantine) -> Source:
    """Every picture below a folder, and those in its Parquet files and tars, in the order of their names.

    A picture's captions are the lines of the text file of its stem, or, before that, what a ``metadata.jsonl`` in its
    folder or above says of it. Names that begin with a dot are passed over. Links are followed within the folder.

    Args:
        root: the folder; must be resolved.
        aside: takes what is left out.
    """
    found = dict(walk(root, aside))
    told: dict[str, Told] = {}
    for name in [name for name in found if Path(name).name == METADATA]:
        told.update(read_metadata(root, name, found.pop(name), found, aside))
    texts = {Path(name).with_suffix("").as_posix(): name for name in found if Path(name).suffix.lower() == ".txt"}
    packed = [name for name in found if Path(name).suffix.lower() in PACKED]
    loose = [name for name in found if name not in {*packed, *texts.values()}]
    stems = {Path(name).with_suffix("").as_posix() for name in loose}
    for stem in texts.keys() - stems:
        aside.add(texts[stem], LeftOut("no picture", "a caption, and no picture of its name"))
    sources = [PACKED[Path(name).suffix.lower()](found[name], name, aside) for name in packed]

    def items() -> Iterator[Item]:
        for name in loose:
            said: Told | None = told.get(name)
            try:
                data = read_file(found[name], MAX_PICTURE, picture=True)  # first: what is no picture needs no caption
                stem = Path(name).with_suffix("").as_posix()
                if said is None:
                    said = captions_in(read_file(found[texts[stem]], MAX_CAPTIONS)) if stem in texts else ()
                if isinstance(said, LeftOut):
                    raise said
                yield Item(name, data, said)
            except LeftOut as why:
                aside.add(name, why)
        for source in sources:
            yield from source.items

    return Source(len(loose) + sum(source.num_items for source in sources), items())


def walk(root: Path, aside: Quarantine) -> Iterator[tuple[str, Path]]:
    """(name relative to the folder, file) of all that lies in it, sorted by name; ``root`` must be resolved."""

    def stumble(error: OSError) -> None:
        place = os.path.relpath(error.filename or root, root)
        aside.add(place, LeftOut("unreadable", error.strerror or str(error)))

    for folder, below, files in os.walk(root, onerror=stumble):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in [name for name in below if os.path.islink(os.path.join(folder, name))]:
            place = (Path(folder) / name).relative_to(root).as_posix()
            aside.add(place, LeftOut("a link to a folder", "not followed; name that folder itself"))
        for name in sorted(name for name in files if not name.startswith(".")):
            place = (Path(folder) / name).relative_to(root).as_posix()
            try:
                yield place, inside(root, place)
            except LeftOut as why:
                aside.add(place, why)


def read_metadata(root: Path, name: str, path: Path, found: dict[str, Path], aside: Quarantine) -> dict[str, Told]:
    """What a ``metadata.jsonl`` says of each picture, by the picture's name relative to ``root``.

    A line is an object with ``file_name``, relative to the metadata's own folder, and ``text``, a caption or a list of
    them; of several lines for one picture all count. A bad line is put aside, the others go on.
    """
    told: dict[str, Told] = {}
    folder = Path(name).parent
    try:
        lines = read_file(path, MAX_RECORD).split(b"\n")
    except LeftOut as why:
        aside.add(name, why)
        return {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            file_name, texts = metadata_row(line)
            place = os.path.relpath(inside(root / folder, file_name), root)
            place = place if place in found else (folder / file_name).as_posix()
            if place not in found:
                raise LeftOut("no picture", f"it names {file_name!r}, which is not there")
        except LeftOut as why:
            aside.add(f"{name}:{number}", why)
            continue
        before = told.get(place, ())
        try:
            told[place] = before if isinstance(before, LeftOut) else (*before, *captions_of(texts))
        except LeftOut as why:
            told[place] = why
    return told


def metadata_row(line: bytes) -> tuple[str, list[object]]:
    """(file name, captions) of one line.

    Raises:
        LeftOut: it is no object with a ``file_name`` and a ``text``.
    """
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise LeftOut("bad metadata", "the line is no JSON") from None
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str) or "text" not in row:
        raise LeftOut("bad metadata", 'the line wants {"file_name": "a.png", "text": "a caption"}')
    text = row["text"]
    return row["file_name"], text if isinstance(text, list) else [text]
