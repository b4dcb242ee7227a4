"""The entry point: reads how a picture was made from any file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from unnoise.core.registry import Entry, find, index
from unnoise.data.intake import MAX_PICTURE, LeftOut, read_file
from unnoise.engine.readers import comfyui, flat, infotext, invokeai, novelai, own
from unnoise.engine.readers.container import texts_of
from unnoise.engine.readers.reading import Reading, read_json, unreadable
from unnoise.errors import one_line
from unnoise.notes import say

MARKS = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"  # bytes that may precede JSON: byte order marks, blanks
Reader = Callable[[Mapping[str, str]], Reading | None]
READERS: tuple[Reader, ...] = (  # ours, in the order in which they are tried
    invokeai.read, novelai.read, infotext.read, flat.read, comfyui.read,
    flat.read_tensor_art,
)  # fmt: skip


def read_settings(path: Path) -> Reading | None:
    """The settings in a picture (PNG, JPEG, WebP) or a JSON file; None if it has none in a known form.

    Our own pictures have an exact record, ``Reading.record``. The pixels are read only if
    the file has no text: some tools hide one there.

    Raises:
        UnnoiseError: the file cannot be opened, or is of a kind without settings.
    """
    data = _bytes(path)
    if data.lstrip(MARKS)[:1] == b"{":
        return _file(data, path)
    texts = _texts(data, path)
    if (mine := own.read(texts, path)) is not None:
        return mine
    return what_texts_say(texts)


def what_texts_say(texts: Mapping[str, str]) -> Reading | None:
    """The result of the first reader that knows these texts: ours, then those of other packages; None if none does."""
    return next((reading for read in readers() if (reading := read(texts)) is not None), None)


def readers() -> Iterator[Reader]:
    """Our readers, then those of other installed packages, whose errors do not end the reading."""
    yield from READERS
    yield from (partial(_ask, entry) for entry in index("readers").values() if entry.package)


def _ask(entry: Entry, texts: Mapping[str, str]) -> Reading | None:
    """The result of another package's reader; None, with a note, if it fails."""
    try:
        reading = find("readers", entry.name)(dict(texts))
        if reading is None or isinstance(reading, Reading):
            return reading
        why = f"it answers with {type(reading).__name__}, not with a Reading"
    except Exception as error:  # their code may raise anything
        why = f"{type(error).__name__}: {error}"
    say(f"note: the reader {entry.name} of the package {entry.package} failed ({one_line(why)})")
    return None


def texts_at(path: Path) -> dict[str, str]:
    """{keyword: text} of a picture, for ``what_texts_say``.

    Raises:
        UnnoiseError: the file cannot be opened, or is no PNG, JPEG or WebP.
    """
    return _texts(_bytes(path), path)


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path, MAX_PICTURE)
    except LeftOut as why:
        raise unreadable(path, why.detail or str(why)) from None


def _texts(data: bytes, path: Path) -> dict[str, str]:
    try:
        return texts_of(data)
    except ValueError as error:
        raise unreadable(path, str(error)) from None


def _file(data: bytes, path: Path) -> Reading | None:
    """The record of a JSON file: a ComfyUI graph, or flat settings.

    Raises:
        UnnoiseError: it is no JSON object, or too long.
    """
    try:
        values = read_json(data.decode(json.detect_encoding(data)))
    except ValueError as error:
        raise unreadable(path, f"it is no JSON ({error})") from None
    return comfyui.of_graph(values) or flat.file_settings(values)
