"""Reads files with the captions of many pictures: ``metadata.jsonl``, ``metadata.csv`` and ``metadata.parquet``.

They are those of the ``datasets`` library's ``imagefolder``: rows of ``file_name``, relative to the file's own folder,
and a caption.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from unnoise.data.fields import choose, plain, texts_in, told_of
from unnoise.data.intake import MAX_RECORD, LeftOut, Quarantine, captions_of, inside, read_file, text_of
from unnoise.data.read_parquet import look, said_of, scalars, texts_of
from unnoise.data.sidecars import ending_of, folded
from unnoise.text import OTHER_MARKS

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # of several in one folder the first is used
FILE_NAMES = ("filename", "file", "image", "imagefile", "path", "imagepath", "filepath")  # as ``plain`` has them
Told = tuple[str, ...] | LeftOut  # a picture's captions, or why they cannot be used
Lines = Iterator[tuple[int, Any]]  # the number of a line, and (file name, captions) or why it cannot be used


class Pictures:
    """The pictures of a folder, to be found by the names that metadata give them."""

    def __init__(self, root: Path, found: Mapping[str, Path]) -> None:
        self.root, self.found = root, found
        self.folded: dict[str, list[str]] = defaultdict(list)
        for name in found:
            self.folded[folded(name)].append(name)

    def named(self, folder: PurePosixPath, file_name: str) -> str:
        """The picture of that name, as the folder has it; ``\\`` as well as ``/``, and other capitals if only one fits.

        Raises:
            LeftOut: there is none, or the name leads out of the folder.
        """
        name = (folder / file_name).as_posix()
        if name not in self.found and "\\" in file_name:
            name = (folder / file_name.replace("\\", "/")).as_posix()
        if name in self.found:
            return name
        place = os.path.relpath(inside(self.root / folder, file_name), self.root)
        if place in self.found:
            return place
        alike = self.folded.get(folded(name), [])
        if len(alike) != 1:
            raise LeftOut("no picture", f"it names {file_name!r}, which is not there")
        return alike[0]


def read_metadata(pictures: Pictures, found: Mapping[str, Path], aside: Quarantine) -> dict[str, Told]:
    """What all metadata files of a folder say of each picture, by the picture's name.

    Of several rows for one picture in one file all count. A bad row is put aside, the others go on.
    """
    told: dict[str, Told] = {}
    for name in sorted(found, key=rank):
        folder, here, spare = PurePosixPath(name).parent, dict[str, Told](), 0
        try:
            for number, row in LINES[ending_of(name)](found[name], name, aside):
                try:
                    if isinstance(row, LeftOut):
                        raise row
                    place = pictures.named(folder, row[0])
                except LeftOut as why:
                    aside.add(f"{name}:{number}", why)
                    continue
                spare += place in told
                join(here, place, row[1])
        except LeftOut as why:
            aside.add(name, why)
        if spare:
            aside.note(name, f"{spare:,} rows are not used: another metadata file names their pictures")
        told = here | told
    return told


def rank(name: str) -> tuple[int, str, int]:
    """Orders metadata files: those of lower folders first, in one folder as in ``METADATA``."""
    path = PurePosixPath(name)
    return -len(path.parts), path.parent.as_posix(), METADATA.index(path.name.lower())


def join(told: dict[str, Told], place: str, texts: list[object]) -> None:
    """Adds captions to those of a picture; none change nothing."""
    before = told.get(place, ())
    try:
        if texts:
            told[place] = before if isinstance(before, LeftOut) else (*before, *captions_of(texts))
    except LeftOut as why:
        told[place] = why


def json_lines(path: Path, name: str, aside: Quarantine) -> Lines:
    """Of objects, one a line."""
    data = read_file(path, MAX_RECORD)
    if b"\0" in data[:2] or data.startswith(OTHER_MARKS):
        data = text_of(data).encode("utf-8", "surrogatepass")
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                yield number, metadata_row(line)
            except LeftOut as why:
                yield number, why


def metadata_row(line: bytes) -> tuple[str, list[object]]:
    """(file name, captions) of one line.

    Raises:
        LeftOut: it is no object with a name and a caption.
    """
    wants = 'the line wants {"file_name": "a.png", "text": "a caption"}'
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise LeftOut("bad metadata", "the line is no JSON") from None
    if not isinstance(row, dict):
        raise LeftOut("bad metadata", wants)
    key = file_name_of(list(row))
    texts = texts_in({name: value for name, value in row.items() if name != key}, lone=True)
    if key is None or not isinstance(row[key], str) or not (texts or None in row.values()):
        raise LeftOut("bad metadata", wants)
    return row[key], texts


def file_name_of(names: list[str]) -> str | None:
    """The field that names the picture's file."""
    there = [name for wanted in FILE_NAMES for name in names if plain(name) == wanted]
    return there[0] if there else None


def csv_lines(path: Path, name: str, aside: Quarantine) -> Lines:
    """Of a table with a line of titles, its cells parted by commas, semicolons or tabs.

    Where the caption stands last, the cells of a row that has too many are parts of it, parted by signs without quotes.
    """
    text = text_of(read_file(path, MAX_RECORD))
    text = text if "\n" in text else text.replace("\r", "\n")  # as a Macintosh ends its lines
    titles = text.partition("\n")[0]
    parts = [part for part in (",", ";", "\t") if file_name_of([t.strip().strip('"') for t in titles.split(part)])]
    table = None
    try:
        lines = (line[0] for line in re.finditer(r"[^\n]*\n|[^\n]+", text))
        part = parts[0] if parts else ","
        table = csv.DictReader(lines, delimiter=part, strict=True)
        names = [str(title) for title in table.fieldnames or ()]
        key, choice = pick(names, name, aside)
        for row in table:
            said, more = row.get(choice) or "", row.get(None) or []
            if any(more) and choice == names[-1]:
                said = part.join([said, *more])
            elif any(more):
                why = "the row has more cells than there are titles; put texts in quotes"
                yield table.line_num, LeftOut("bad metadata", why)
                continue
            if row.get(key):
                yield table.line_num, (row[key], [said] if said.strip() else [])
            else:
                yield table.line_num, LeftOut("bad metadata", "the row names no picture")
    except csv.Error as error:
        raise LeftOut("bad metadata", f"no table after line {table.line_num if table else 0}: {error}") from None


def parquet_lines(path: Path, name: str, aside: Quarantine) -> Lines:
    """Of a Parquet file, numbered from 0."""
    schema, count = look(path)
    key, choice = pick(texts_of(schema), name, aside)
    for number, (file_name, said) in enumerate(scalars(path, name, (key, choice), count, aside)):
        try:
            yield number, (str(file_name.as_py()), [*said_of(choice, said)])
        except (LookupError, UnicodeDecodeError):
            yield number, LeftOut("bad metadata", "the name is not UTF-8")
        except LeftOut as why:
            yield number, why


def pick(names: list[str], name: str, aside: Quarantine) -> tuple[str, str]:
    """(column of file names, column of captions) of a table.

    Raises:
        LeftOut: one of them is missing.
    """
    key = file_name_of(names)
    choice = choose([each for each in names if each != key])
    if key is None or choice.name is None:
        missing = "file_name" if key is None else "text"
        raise LeftOut("bad metadata", f"of its columns {', '.join(names)[:200]} none is called {missing}")
    line = told_of(choice)
    if line:
        aside.note(name, line)
    return key, choice.name


LINES = {".jsonl": json_lines, ".csv": csv_lines, ".parquet": parquet_lines}
