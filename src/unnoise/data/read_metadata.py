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

from unnoise.data.fields import choice_note, choose, plain, texts_in
from unnoise.data.intake import MAX_RECORD, LeftOut, Quarantine, captions_of, inside, read_file, text_of
from unnoise.data.read_parquet import captions_in_cell, look, scalars, texts_of
from unnoise.data.sidecars import ending_of, folded
from unnoise.text import OTHER_MARKS

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # of several in one folder the first is used
FILE_NAMES = ("filename", "file", "image", "imagefile", "path", "imagepath", "filepath")  # as ``plain`` has them
Outcome = tuple[str, ...] | LeftOut  # a picture's captions, or the reason why they cannot be used
Lines = Iterator[tuple[int, Any]]  # the number of a line, and (file name, captions) or the reason why it cannot be used


class Pictures:
    """The pictures of a folder; finds the picture that a file name in metadata means."""

    def __init__(self, root: Path, files: Mapping[str, Path]) -> None:
        self.root, self.files = root, files
        self.folded: dict[str, list[str]] = defaultdict(list)
        for name in files:
            self.folded[folded(name)].append(name)

    def find(self, folder: PurePosixPath, file_name: str) -> str:
        """The picture of that name, as the folder has it; ``\\`` as well as ``/``, and other capitals if only one fits.

        Raises:
            LeftOut: there is none, or the name leads out of the folder.
        """
        name = (folder / file_name).as_posix()
        if name not in self.files and "\\" in file_name:
            name = (folder / file_name.replace("\\", "/")).as_posix()
        if name in self.files:
            return name
        place = os.path.relpath(inside(self.root / folder, file_name), self.root)
        if place in self.files:
            return place
        alike = self.folded.get(folded(name), [])
        if len(alike) != 1:
            raise LeftOut("no picture", f"it names {file_name!r}, which is not there")
        return alike[0]


def read_metadata(pictures: Pictures, tables: Mapping[str, Path], aside: Quarantine) -> dict[str, Outcome]:
    """The captions of each picture by its name, from all metadata files of a folder.

    Several rows for one picture in one file add up. A bad row is left out, the others are read.
    """
    outcomes: dict[str, Outcome] = {}
    for name in sorted(tables, key=rank):
        folder, here, spare = PurePosixPath(name).parent, dict[str, Outcome](), 0
        try:
            for number, row in LINES[ending_of(name)](tables[name], name, aside):
                try:
                    if isinstance(row, LeftOut):
                        raise row
                    place = pictures.find(folder, row[0])
                except LeftOut as why:
                    aside.add(f"{name}:{number}", why)
                    continue
                spare += place in outcomes
                join(here, place, row[1])
        except LeftOut as why:
            aside.add(name, why)
        if spare:
            aside.note(name, f"{spare:,} rows are not used: another metadata file names their pictures")
        outcomes = here | outcomes
    return outcomes


def rank(name: str) -> tuple[int, str, int]:
    """Orders metadata files: those of lower folders first, in one folder as in ``METADATA``."""
    path = PurePosixPath(name)
    return -len(path.parts), path.parent.as_posix(), METADATA.index(path.name.lower())


def join(outcomes: dict[str, Outcome], place: str, texts: list[object]) -> None:
    """Adds captions to those of a picture; none change nothing."""
    before = outcomes.get(place, ())
    try:
        if texts:
            outcomes[place] = before if isinstance(before, LeftOut) else (*before, *captions_of(texts))
    except LeftOut as why:
        outcomes[place] = why


def json_lines(path: Path, name: str, aside: Quarantine) -> Lines:
    """The lines of a file with one JSON object a line."""
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
    form = 'the line needs {"file_name": "a.png", "text": "a caption"}'
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise LeftOut("bad metadata", "the line is no JSON") from None
    if not isinstance(row, dict):
        raise LeftOut("bad metadata", form)
    key = file_name_of(list(row))
    texts = texts_in({name: value for name, value in row.items() if name != key}, lone=True)
    if key is None or not isinstance(row[key], str) or not (texts or None in row.values()):
        raise LeftOut("bad metadata", form)
    return row[key], texts


def file_name_of(names: list[str]) -> str | None:
    """The field that names the picture's file."""
    matches = [name for title in FILE_NAMES for name in names if plain(name) == title]
    return matches[0] if matches else None


def csv_lines(path: Path, name: str, aside: Quarantine) -> Lines:
    """The rows of a table with a line of titles and cells separated by commas, semicolons or tabs.

    If the caption is the last column, surplus cells of a row are part of it: it has separators and no quotes.
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
            caption, more = row.get(choice) or "", row.get(None) or []
            if any(more) and choice == names[-1]:
                caption = part.join([caption, *more])
            elif any(more):
                why = "the row has more cells than there are titles; put texts in quotes"
                yield table.line_num, LeftOut("bad metadata", why)
                continue
            if row.get(key):
                yield table.line_num, (row[key], [caption] if caption.strip() else [])
            else:
                yield table.line_num, LeftOut("bad metadata", "the row names no picture")
    except csv.Error as error:
        raise LeftOut("bad metadata", f"no table after line {table.line_num if table else 0}: {error}") from None


def parquet_lines(path: Path, name: str, aside: Quarantine) -> Lines:
    """The rows of a Parquet file, numbered from 0."""
    schema, count = look(path)
    key, choice = pick(texts_of(schema), name, aside)
    for number, (file_name, value) in enumerate(scalars(path, name, (key, choice), count, aside)):
        try:
            yield number, (str(file_name.as_py()), [*captions_in_cell(choice, value)])
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
    line = choice_note(choice)
    if line:
        aside.note(name, line)
    return key, choice.name


LINES = {".jsonl": json_lines, ".csv": csv_lines, ".parquet": parquet_lines}
