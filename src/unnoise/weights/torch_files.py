"""Files of ``torch.save`` and other pickles, bare or in a zip: what is in them, read without opening a pickle."""

from __future__ import annotations

import itertools
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.errors import UnnoiseError
from unnoise.foreign import read
from unnoise.weights.described import NUMBERS, Call, Pairs, Tensor
from unnoise.weights.pickles import MAX_BYTES, MAX_NODES, Disassembly, disassemble
from unnoise.weights.shapes import MAX_NAME, Shapes

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch wrote first, before it used zips
MAX_DIRECTORY, MAX_ENTRIES, MAX_PICKLES, MAX_DEPTH = 2**24, 100_000, 8, 8


class TorchFile(NamedTuple):
    """What a file with pickles holds.

    Attributes:
        form: how it is packed, with an article.
        tensors: {name: (type, shape)}, names of what lies deeper joined by dots.
        top: names at the top; empty where there are none.
        listed: whether what it makes is a list of tensors without names.
        places: the devices that its tensors were on.
        opened: each pickle in it.
        fault: what is wrong with it; "" if nothing was found.
    """

    form: str
    tensors: Shapes
    top: tuple[str, ...]
    listed: bool
    places: tuple[str, ...]
    opened: tuple[Disassembly, ...]
    fault: str

    @property
    def traps(self) -> list[str]:
        """What its pickles call that runs code."""
        return list(dict.fromkeys(name for each in self.opened for name in each.traps))

    @property
    def foreign(self) -> list[str]:
        """What its pickles want of other programs."""
        return list(dict.fromkeys(name for each in self.opened for name in each.foreign))


def read_pickle(path: Path) -> TorchFile:
    """What a bare pickle holds, or a file that torch wrote before it used zips.

    Raises:
        UnnoiseError: it cannot be read.
    """
    data = read(path, MAX_BYTES)
    if not data.startswith(MAGIC):
        opened = disassemble(data)
        rest = path.stat().st_size - opened.end
        fault = opened.fault or (f"{rest:,} bytes follow its end" if rest else "")
        return _file("a pickle", (opened,), fault)
    pickles: list[Disassembly] = []
    at = 0
    for _ in range(5):  # the magic number, the version, the machine, what was saved, the names of its storages
        pickles.append(disassemble(data, at))
        at = pickles[-1].end
        if pickles[-1].fault:
            break
    fault = next((each.fault for each in pickles if each.fault), "")
    saved = pickles[3] if len(pickles) > 3 else pickles[-1]
    return _file(
        "a file of torch.save before version 1.6", (saved, *[each for each in pickles if each is not saved]), fault
    )


def read_zip(path: Path) -> tuple[TorchFile | None, list[str]]:
    """(what its pickles hold, or None if there is none in it; names of its first entries).

    Raises:
        UnnoiseError: it cannot be read or is damaged.
    """
    damaged = "copy or download it again"
    try:
        check_directory(path)
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            names = [entry.filename for entry in entries]
            pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
            if not pickles:
                return None, names[:200]
            contents, fault = [], "two entries have one name" if len(set(names)) < len(names) else ""
            for entry in sorted(pickles, key=lambda e: not e.filename.endswith("data.pkl"))[:MAX_PICKLES]:
                if entry.file_size > MAX_BYTES:
                    raise ValueError(f"{entry.filename[:80]} in it has {entry.file_size:,} bytes")
                with file.open(entry) as stream:
                    contents.append(disassemble(stream.read(MAX_BYTES)))
    except (zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise UnnoiseError(f"{path} is a damaged zip ({' '.join(str(error).split())})", damaged) from None
    except (NotImplementedError, RuntimeError, ValueError, EOFError, LookupError, OSError) as error:
        raise UnnoiseError(f"{path} is a zip that cannot be read ({error})", damaged) from None
    script = any(name.endswith("constants.pkl") or "/code/" in name for name in names)
    torch_file = _file("a TorchScript program" if script else "a zip of torch.save", tuple(contents), fault)
    sizes = {entry.filename.rpartition("/data/")[2]: entry.file_size for entry in entries if "/data/" in entry.filename}
    lacking = _lacking(contents[0].value, sizes)
    return torch_file._replace(fault=torch_file.fault or contents[0].fault or lacking), names[:200]


def check_directory(path: Path) -> None:
    """Ensures that a zip's directory, which is read whole, is no larger than that of a file of weights.

    Raises:
        ValueError: it is, or there is none.
    """
    size = path.stat().st_size
    tail = read(path, 66_000, max(0, size - 66_000))
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise ValueError("its directory at the end is not there: it is cut short")
    count, length = struct.unpack_from("<HI", tail, at + 10)
    if (wide := tail.rfind(b"PK\x06\x06", 0, at)) >= 0 and len(tail) >= wide + 56:
        count, length = struct.unpack_from("<QQ", tail, wide + 32)
    if count > MAX_ENTRIES or length > MAX_DIRECTORY:
        raise ValueError(f"its directory claims {count:,} entries and {length:,} bytes")


def walk(value: Any) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of what lies in a description, names joined by dots; it looks at ``MAX_NODES`` places at most."""
    waiting = [("", value, 0)]
    for _ in range(MAX_NODES):
        if not waiting:
            return
        name, value, depth = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif depth < MAX_DEPTH:
            inner = itertools.islice(entries(value), max(0, MAX_NODES - len(waiting)))
            waiting.extend([(f"{name}.{key}" if name else key, each, depth + 1) for key, each in inner][::-1])


def entries(value: Any) -> Iterator[tuple[str, Any]]:
    """(key, value) of a dictionary or list that a pickle would make."""
    if isinstance(value, Call) and isinstance(value.arguments, Pairs):
        value = value.arguments
    if isinstance(value, Pairs):
        yield from ((str(key)[:MAX_NAME], inner) for key, inner in value if isinstance(key, str | int | float | bool))
    elif isinstance(value, list | tuple) and not isinstance(value, Tensor | Call):
        yield from ((str(place), inner) for place, inner in enumerate(value))


def _file(form: str, opened: tuple[Disassembly, ...], fault: str) -> TorchFile:
    value = opened[0].value
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    places: dict[str, None] = {}
    for name, tensor in walk(value):
        tensors[name[:MAX_NAME]] = (NUMBERS.get(tensor.dtype, (tensor.dtype, 0))[0], tensor.shape)
        places[tensor.place] = None
    top = [key for key, _ in itertools.islice(entries(value), 1000)]
    listed = isinstance(value, list | tuple) and not isinstance(value, Pairs | Call | Tensor)
    return TorchFile(form, tensors, tuple(top), listed, tuple(places), opened, fault)


def _lacking(value: Any, sizes: dict[str, int]) -> str:
    """Which numbers are not in the zip, though a tensor needs them; "" if none."""
    for name, tensor in walk(value):
        least = tensor.numbers * NUMBERS.get(tensor.dtype, ("", 0))[1]
        if sizes.get(tensor.storage, -1) < least or (
            math.prod(tensor.shape) > tensor.numbers and 0 not in tensor.shape
        ):
            return f"the numbers of {name[:80]} are not all in it"
    return ""
