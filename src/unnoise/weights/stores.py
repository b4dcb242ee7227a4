"""The numbers of a file of another program, each storage to be read from front to back: zips and whole files.

A zip is believed only where its directory, its entries' own headers and its checksums agree, and no two entries
overlap. Nothing is read that is not named by what the file makes.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.foreign import read
from unnoise.weights.described import NUMBERS, Tensor
from unnoise.weights.nested import leaves
from unnoise.weights.pickles import Disassembly, disassemble
from unnoise.weights.torch_files import MAGIC, check_directory

CHUNK = 2**22  # bytes that are read at once: a multiple of every number's size
MAX_PICKLE, MAX_STEPS = 2**26, 3_000_000  # of a training's checkpoint, with the states of its optimiser


class Store(NamedTuple):
    """One storage.

    Attributes:
        size: its bytes.
        chunks: reads it, ``CHUNK`` bytes at a time but for the last. It raises ValueError or OSError where they are
            not all there or, at its end, where their checksum is wrong.
    """

    size: int
    chunks: Callable[[], Iterator[bytes]]


class Opened(NamedTuple):
    """A file with a pickle, of which nothing was made.

    Attributes:
        form: how it is packed, with an article.
        saved: what its pickle would make.
        others: its other pickles, which hold no weights.
        stores: {name: storage}.
    """

    form: str
    saved: Disassembly
    others: tuple[Disassembly, ...]
    stores: Mapping[str, Store]


def slice_of(path: Path, start: int, size: int) -> Store:
    """So many bytes of a file as a storage."""

    def chunks() -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(start)
            left = size
            while left:
                chunk = file.read(min(CHUNK, left))
                if not chunk:
                    raise ValueError("it is cut short")
                left -= len(chunk)
                yield chunk

    return Store(size, chunks)


def open_zip(path: Path) -> Opened:
    """A zip of ``torch.save``.

    Raises:
        ValueError: it is damaged, is of another kind, or its parts do not agree.
    """
    check_directory(path)
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            check_entries(path, entries, file.start_dir)
            names = {entry.filename: entry for entry in entries}
            pickles = [name for name in names if name.endswith(".pkl")]
            if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
                raise ValueError("it is a TorchScript program: code, and not weights alone")
            if len(pickles) != 1 or not pickles[0].endswith("data.pkl"):
                raise ValueError(f"a zip of torch.save has one data.pkl, this one has {len(pickles)} pickles")
            prefix = pickles[0].removesuffix("data.pkl")
            unchecked = not any(entry.CRC for entry in entries if entry.file_size)  # torch.save may leave them out
            order = _content(file, names.get(f"{prefix}byteorder"), unchecked, 16)
            if order not in (b"", b"little"):
                raise ValueError("its numbers are big-endian")
            saved = disassemble(_content(file, names[pickles[0]], unchecked, MAX_PICKLE), 0, MAX_STEPS)
        begin = f"{prefix}data/"
        stores = {
            name.removeprefix(begin): _stored(path, entry, unchecked)
            for name, entry in names.items()
            if name.startswith(begin)
        }
        return Opened("a zip of torch.save", saved, (), stores)
    except (zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise ValueError(f"it is a damaged zip ({' '.join(str(error).split())})") from None
    except (NotImplementedError, RuntimeError, EOFError, LookupError) as error:
        raise ValueError(f"it is a zip that cannot be read ({' '.join(str(error).split())})") from None


def check_entries(path: Path, entries: list[zipfile.ZipInfo], end: int) -> None:
    """Ensures that a zip's entries have names of their own, lie one after another, and are packed as usual.

    Args:
        path: of the zip.
        entries: of its directory.
        end: where the directory begins.

    Raises:
        ValueError: they do not.
    """
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("it is a zip in which two entries have one name")
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    ends = [*(entry.header_offset for entry in ordered[1:]), end][: len(ordered)]
    for entry, after in zip(ordered, ends, strict=True):
        begin = entry.header_offset
        head = read(path, 30, begin) if begin >= 0 else b""
        if len(head) < 30 or head[:4] != b"PK\3\4":
            raise ValueError(f"it is a zip whose entry {entry.filename[:80]} is not where its directory has it")
        if begin + 30 + sum(struct.unpack_from("<HH", head, 26)) + entry.compress_size > after:
            raise ValueError(f"it is a zip whose entry {entry.filename[:80]} overlaps what follows it")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 0x41:
            raise ValueError(f"it is a zip whose entry {entry.filename[:80]} is encrypted or packed in an unusual way")
        if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
            raise ValueError(f"it is a zip whose entry {entry.filename[:80]} has two sizes")


def _content(file: zipfile.ZipFile, entry: zipfile.ZipInfo | None, unchecked: bool, most: int) -> bytes:
    """The bytes of a small entry; none where there is no such entry."""
    if entry is None:
        return b""
    if entry.file_size > most:
        raise ValueError(f"{entry.filename[:80]} in it has {entry.file_size:,} bytes, more than {most:,}")
    with _entry(file, entry, unchecked) as stream:
        content: bytes = stream.read()
    if len(content) != entry.file_size:
        raise ValueError(f"{entry.filename[:80]} in it is cut short")
    return content


def _entry(file: zipfile.ZipFile, entry: zipfile.ZipInfo, unchecked: bool) -> Any:
    if unchecked:
        entry.CRC = None  # type: ignore[assignment]  # zipfile's own way to leave a checksum out
    return file.open(entry)


def _stored(path: Path, entry: zipfile.ZipInfo, unchecked: bool) -> Store:
    def chunks() -> Iterator[bytes]:
        try:
            with zipfile.ZipFile(path) as file, _entry(file, entry, unchecked) as stream:
                left = entry.file_size
                while left:
                    chunk = stream.read(min(CHUNK, left))
                    if not chunk:
                        raise ValueError(f"{entry.filename[:80]} in it is cut short")
                    left -= len(chunk)
                    yield chunk
                stream.read(1)  # at its end the checksum is compared
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError) as error:
            raise ValueError(f"it is a damaged zip ({' '.join(str(error).split())})") from None

    return Store(entry.file_size, chunks)


def open_pickle(path: Path) -> Opened:
    """A bare pickle, or what ``torch.save`` wrote before version 1.6: pickles, then the storages one after another.

    Raises:
        ValueError: it is damaged, or its parts do not agree.
    """
    data = read(path, MAX_PICKLE)
    size = path.stat().st_size
    if not data.startswith(MAGIC):
        saved = disassemble(data, 0, MAX_STEPS)
        rest = size - saved.end
        return Opened("a pickle", saved._replace(fault=saved.fault or (_behind(rest) if rest else "")), (), {})
    form, pickles, at = "a file of torch.save before version 1.6", [], 0
    for _ in range(5):  # the magic number, the version, the machine, what was saved, the names of its storages
        pickles.append(disassemble(data, at, MAX_STEPS))
        at = pickles[-1].end
        if pickles[-1].fault:
            return Opened(form, pickles[-1], tuple(pickles[:-1]), {})
    _, version, machine, saved, keys = pickles
    others = (pickles[0], version, machine, keys)
    if any(each.traps for each in pickles):
        return Opened(form, saved, others, {})
    if version.value != 1001:
        raise ValueError(f"{form}, of an unknown version")
    if ("little_endian", True) not in (machine.value if isinstance(machine.value, list) else ()):
        raise ValueError("its numbers are big-endian")
    stores, at = _in_turn(path, keys.value, at, size, saved)
    if at != size:
        raise ValueError(_behind(size - at))
    return Opened(form, saved, others, stores)


def _behind(count: int) -> str:
    return f"{count:,} bytes follow its end"


def _in_turn(path: Path, keys: Any, at: int, size: int, saved: Disassembly) -> tuple[dict[str, Store], int]:
    """The storages behind the pickles, each with its length before it, and the end of the last."""
    items = item_sizes(saved.value)
    stores: dict[str, Store] = {}
    for key in keys if isinstance(keys, list) else ():
        head = read(path, 8, at)
        if not isinstance(key, str) or key in stores or len(head) < 8 or key[:80] not in items:
            raise ValueError("the list of its storages does not agree with what it saves")
        length = struct.unpack("<q", head)[0] * items[key[:80]]
        if not 0 <= length <= size - at - 8:
            raise ValueError("it is cut short")
        stores[key[:80]] = slice_of(path, at + 8, length)
        at += 8 + length
    return stores, at


def item_sizes(value: Any) -> dict[str, int]:
    """{storage: bytes of a number} of all tensors of a description.

    Raises:
        ValueError: the size of such numbers is not known.
    """
    sizes = {}
    for name, leaf in leaves(value):
        if isinstance(leaf, Tensor):
            if leaf.dtype not in NUMBERS:
                raise ValueError(f"{name[:80]} holds numbers of the type {leaf.dtype[:60]}, which are not read here")
            sizes[leaf.storage] = NUMBERS[leaf.dtype][1]
    return sizes
