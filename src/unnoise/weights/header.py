"""The header of a safetensors file: names, types and shapes of its tensors. No tensor is loaded, and no torch."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.errors import UnnoiseError
from unnoise.files import expanded
from unnoise.foreign import HEAD, PICKLE, SAFETENSORS, ZIP, instead, parse_json, read
from unnoise.weights.shapes import MAX_NAME, Shapes, Span

MAX_HEADER = 2**24  # bytes: 100,000 tensors, and all that trainers write of themselves
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "U16": 16,
    "U32": 32, "U64": 64, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
    "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64,
}  # fmt: skip


class Header(NamedTuple):
    """The header of a file of tensors.

    Attributes:
        tensors: {name: (type, shape)}.
        metadata: its strings.
        size: of the file in bytes.
    """

    tensors: Shapes
    metadata: Mapping[str, str]
    size: int

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return sum(math.prod(shape or ()) for _, shape in self.tensors.values())

    def kind(self) -> str:
        """What it is, by its tensors' names and shapes; "unknown" where no name is known."""
        from unnoise.weights.kinds import kind_of_tensors  # large tables, which loading a model does without

        return kind_of_tensors(self.tensors, self.metadata).what

    def dtypes(self) -> dict[str, int]:
        """{type: how many numbers}, the most frequent first."""
        counts: Counter[str] = Counter()
        for dtype, shape in self.tensors.values():
            counts[dtype] += math.prod(shape or ())
        return dict(counts.most_common())

    def groups(self, depth: int = 2) -> dict[str, tuple[int, int]]:
        """{beginning of the names: (tensors, numbers)}, in the order of the file."""
        groups: dict[str, tuple[int, int]] = {}
        for name, (_, shape) in self.tensors.items():
            parts = name.split(".")
            key = ".".join(parts[: max(1, min(depth, len(parts) - 1))])
            tensors, numbers = groups.get(key, (0, 0))
            groups[key] = (tensors + 1, numbers + math.prod(shape or ()))
        return groups


def read_header(path: Path) -> Header:
    """The header of a safetensors file, checked against the file's size.

    Raises:
        UnnoiseError: no such file, another kind of file, which is named, or a damaged one.
    """
    return _read(path)[0]


def safetensors_spans(path: Path) -> dict[str, Span]:
    """Where each tensor of a safetensors file lies.

    Raises:
        UnnoiseError: as ``read_header``; or numbers are of a type that is not known, or smaller than a byte.
    """
    spans = _read(path)[1]
    for name, span in spans.items():
        if BITS.get(span.dtype, 0) < 8:
            raise UnnoiseError(f"{path}: {name[:80]} holds {span.dtype[:20]}", "this program does not read that type")
    return spans


def _read(path: Path) -> tuple[Header, dict[str, Span]]:
    path = expanded(path)
    if path.is_dir():
        raise UnnoiseError(f"{path} is a folder", "name a .safetensors file in it")
    head = read(path, HEAD)
    size = path.stat().st_size
    kind = instead(head, SAFETENSORS)
    if kind is not None:
        pickled = kind.format in (PICKLE, ZIP)
        why = "which can hold pickles, and these can run code" if pickled else "not safetensors"
        mend = "ask for the same weights as safetensors" if pickled else "name a safetensors file"
        raise UnnoiseError(f"{path} is {kind.name}, {why}", kind.mend or mend)
    length = struct.unpack("<Q", head[:8])[0] if len(head) >= 8 else size
    if not 2 <= length <= size - 8:
        raise UnnoiseError(f"{path} is no safetensors file, or cut short", "copy or download it again")
    if length > MAX_HEADER:
        raise UnnoiseError(
            f"the header of {path} claims {length:,} bytes, more than {MAX_HEADER:,}", "check where it is from"
        )
    try:
        return _parse(parse_json(read(path, length, 8), unique=True), size - 8 - length, size)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnnoiseError(f"the header of {path} is damaged ({error})", "copy or download it again") from None


def _parse(header: dict[str, Any], room: int, size: int) -> tuple[Header, dict[str, Span]]:
    metadata = header.pop("__metadata__", {})
    if any(type(value) is not str for value in metadata.values()):
        raise ValueError("its metadata are no strings")
    tensors, spans = {}, {}
    for name, entry in header.items():
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if len(name) > MAX_NAME:
            raise ValueError(f"{name[:80]!r} is a name of {len(name):,} characters")
        if len(shape) > 16 or any(type(n) is not int or not 0 <= n < 2**53 for n in (*shape, start, end)):
            raise ValueError(f"{name[:80]!r} has no shape")
        if not start <= end <= room:
            raise ValueError(f"{name[:80]!r} ends behind the file's end: it is cut short")
        if dtype in BITS and (end - start) * 8 != -(-math.prod(shape) * BITS[dtype] // 8) * 8:
            raise ValueError(f"{name[:80]!r} has {end - start} bytes for {math.prod(shape)} numbers of {dtype}")
        tensors[name] = (str(dtype), shape)
        spans[name] = Span(str(dtype), shape, size - room + start, end - start)
    check_apart(spans)
    return Header(tensors, metadata, size), spans


def check_apart(spans: Mapping[str, Span]) -> None:
    """Ensures that no two tensors share bytes.

    Raises:
        ValueError: two do; they are named.
    """
    before = ""
    for name, span in sorted(spans.items(), key=lambda item: (item[1].start, item[1].size)):
        if span.size and before and span.start < spans[before].start + spans[before].size:
            raise ValueError(f"{before[:80]!r} and {name[:80]!r} overlap")
        before = name if span.size else before
