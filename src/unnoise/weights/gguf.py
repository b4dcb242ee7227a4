"""The header of a GGUF file (versions 2 and 3): its strings, and its tensors' names, types and shapes.

Nothing is taken on trust: counts and lengths are checked against what is there before anything is read, arrays are
passed over, and at most ``MAX_BYTES`` of the file are looked at. Written after the format's page in ggml's repository.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path

from unnoise.errors import UnnoiseError
from unnoise.foreign import GGUF, HEAD, instead, read
from unnoise.weights.header import Header
from unnoise.weights.shapes import MAX_NAME, Span

MAX_BYTES = 2**25  # vocabularies of language models take ten megabytes
MAX_COUNT = 65_536  # of keys and of tensors
MAX_STRINGS = 2**19  # in arrays
MAX_TEXT = 4096  # bytes of a value that is kept
MAX_DIMS = 8  # of a tensor
STRING, ARRAY = 8, 9
SHAPE = "comfy.gguf.orig_shape."  # and a tensor's name: a key of the shape that it had before it was reshaped
PLAIN = ("F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64")  # which are read; the rest are quantised
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TYPES = {  # number: (name, numbers in a block, bytes of a block)
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip


class Cursor:
    """Reads a beginning of a file from front to back.

    Raises:
        ValueError: from every method, where the bytes end too early or what they say is out of range.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.strings_left = data, 0, MAX_STRINGS

    def skip(self, count: int) -> int:
        """Goes on by so many bytes and returns where they began."""
        begin = self.at
        if not 0 <= count <= len(self.data) - begin:
            raise ValueError("it ends in its header")
        self.at += count
        return begin

    def number(self, code: str) -> int:
        """One number of a type of ``struct``, little endian."""
        value: int = struct.unpack_from(f"<{code}", self.data, self.skip(struct.calcsize(f"<{code}")))[0]
        return value

    def text(self) -> str:
        """A string: its length and its bytes, of which the first are kept."""
        length = self.number("Q")
        begin = self.skip(length)
        return self.data[begin : begin + min(length, MAX_TEXT)].decode("utf-8", "replace")

    def value(self, kind: int, whole: bool = False) -> str:
        """One value as text; of an array how many it has, or its numbers if a few are wanted ``whole``.

        Raises:
            ValueError: its type is not known, or arrays hold too much.
        """
        if kind == STRING:
            return self.text()
        if kind in SCALARS:
            return str(self.number(SCALARS[kind]))
        if kind != ARRAY:
            raise ValueError(f"a value is of the unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner in SCALARS and whole and count <= MAX_DIMS:
            return " ".join(str(self.number(SCALARS[inner])) for _ in range(count))
        if inner in SCALARS:
            self.skip(count * struct.calcsize(f"<{SCALARS[inner]}"))
        elif inner == STRING:
            self.strings_left -= count
            if self.strings_left < 0:
                raise ValueError(f"its arrays hold more than {MAX_STRINGS:,} strings")
            for _ in range(count):
                self.skip(self.number("Q"))
        else:
            raise ValueError("an array holds arrays")
        return f"{count:,} values"


def read_gguf(path: Path) -> Header:
    """What a GGUF file holds. Values of the key ``general.alignment`` and all others are in ``metadata``, as text.

    Raises:
        UnnoiseError: no such file, another kind of file, another version, or a damaged one.
    """
    return _read(path)[0]


def gguf_spans(path: Path) -> dict[str, Span]:
    """Where each tensor of a GGUF file lies.

    Raises:
        UnnoiseError: as ``read_gguf``; or numbers are quantised, or a shape of another size is claimed for them.
    """
    spans = _read(path)[1]
    quantised = sorted({span.dtype for span in spans.values() if span.dtype not in PLAIN})
    if quantised:
        kinds = ", ".join(quantised)
        raise UnnoiseError(
            f"{path} is quantised ({kinds}), and this program reads F32, F16 and BF16 of GGUF",
            "ask for the same weights as F16",
        )
    return spans


def _read(path: Path) -> tuple[Header, dict[str, Span]]:
    data = read(path, MAX_BYTES)
    size = path.stat().st_size
    if (kind := instead(data[:HEAD], GGUF)) is not None or data[:4] != b"GGUF":
        raise UnnoiseError(f"{path} is {kind.name if kind else 'no GGUF file'}, not GGUF", kind.mend if kind else "")
    cursor = Cursor(data)
    try:
        cursor.skip(4)
        version = cursor.number("I")
        if version not in (2, 3):
            raise ValueError(
                "its numbers are big-endian" if not version & 0xFFFF else f"version {version} is not known"
            )
        return _parse(cursor, size, version)
    except ValueError as error:
        raise UnnoiseError(f"{path} is a GGUF file that cannot be read: {error}", "download it again") from None


def _parse(cursor: Cursor, size: int, version: int) -> tuple[Header, dict[str, Span]]:
    num_tensors, num_keys = cursor.number("Q"), cursor.number("Q")
    if num_tensors > MAX_COUNT or num_keys > MAX_COUNT:
        raise ValueError(f"it claims {num_tensors:,} tensors and {num_keys:,} keys; at most {MAX_COUNT:,} are read")
    metadata = {"GGUF version": str(version)}
    for _ in range(num_keys):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"), key.startswith(SHAPE))
    spans: dict[str, Span] = {}
    for _ in range(num_tensors):
        name, num_dims = cursor.text(), cursor.number("I")
        if num_dims > MAX_DIMS or len(name) > MAX_NAME:
            raise ValueError(f"{name[:80]!r} has {num_dims} dimensions and a name of {len(name):,} characters")
        shape = tuple(cursor.number("Q") for _ in range(num_dims))[::-1]  # the file has them in reverse
        number, start = cursor.number("I"), cursor.number("Q")
        if any(n >= 2**53 for n in (*shape, start)):
            raise ValueError(f"{name[:80]!r} has no shape")
        kind, block, room = TYPES.get(number, (f"type {number}", 1, 0))
        size_of_all = -(-math.prod(shape) // block) * room
        if name in spans:
            raise ValueError(f"two tensors have the name {name[:80]!r}")
        spans[name] = Span(kind, original(name, shape, metadata), start, size_of_all)
    step = metadata.get("general.alignment", "32")
    align = int(step) if step.isdecimal() and 0 < int(step) <= 2**20 else 32
    begin = -(-cursor.at // align) * align
    end = max((span.start + span.size for span in spans.values()), default=0)
    if spans and begin + end > size:
        raise ValueError(f"its tensors end at byte {begin + end:,}, and it has {size:,}: it is cut short")
    tensors = {name: (span.dtype, span.shape) for name, span in spans.items()}
    spans = {name: span._replace(start=begin + span.start) for name, span in spans.items()}
    return Header(tensors, metadata, size), spans


def original(name: str, shape: tuple[int, ...], metadata: Mapping[str, str]) -> tuple[int, ...]:
    """The shape that a tensor had before the file's writer changed it: the key of ComfyUI-GGUF's converter.

    Raises:
        ValueError: it is of another size.
    """
    text = metadata.get(f"{SHAPE}{name}")
    if text is None:
        return shape
    if not re.fullmatch(r"\d{1,16}( \d{1,16}){0,7}", text) or math.prod(map(int, text.split())) != math.prod(shape):
        raise ValueError(f"the original shape of {name[:80]!r} is not as large as it")
    return tuple(map(int, text.split()))
