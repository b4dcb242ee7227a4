"""Removes parts of a picture's file that do not affect its pixels: metadata must not make a picture unreadable.

Pillow refuses a whole picture if a text or a colour profile in it is too large, too short, or has a wrong checksum.
Nothing is decoded here: parts of the file are removed before Pillow sees them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Container, Iterator
from typing import NamedTuple

MAX_TEXT = 2**20  # bytes of one compressed text, unpacked; Pillow reads no more
MAX_TEXTS = 2**25  # bytes of all texts of a picture
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
WAY_UP = ("XML:com.adobe.xmp", "Raw profile type exif")  # texts that may say which side of a picture is its top
DECIDE = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")  # transparency, orientation, animation

NO_LENGTH = (0x00, 0x01, *range(0xD0, 0xDB), 0xFF)  # of a JPEG: the start of its pixels, and marks without a body
NEEDED_SEGMENTS = {  # of a JPEG: first bytes and minimal length; two say how colours are stored, one which side is up
    0xE0: ((b"JFIF\0",), 14),
    0xE1: ((b"Exif\0\0", b"http://ns.adobe.com/xap/"), 0),
    0xEE: ((b"Adobe",), 12),
}


class Lean(NamedTuple):
    """``data`` a file that Pillow reads; ``unreadable`` names of requested texts that are too large or damaged."""

    data: bytes
    unreadable: tuple[str, ...] = ()


class Chunk(NamedTuple):
    """A part of a PNG: its type, and its bytes in the file, with length, type and checksum."""

    kind: bytes
    whole: memoryview

    @property
    def body(self) -> bytes:
        """Its content, without length, type and checksum."""
        return bytes(self.whole[8:-4])

    @property
    def is_sound(self) -> bool:
        """Whether its checksum is right."""
        return zlib.crc32(self.whole[4:-4]) == int.from_bytes(self.whole[-4:], "big")


def lean(data: bytes, texts: Container[str] = WAY_UP) -> Lean:
    """A PNG or JPEG file with only the parts that affect its pixels; any other file unchanged.

    Of a PNG it keeps the critical chunks, ``DECIDE``, and the requested texts within ``MAX_TEXT`` and ``MAX_TEXTS``; of
    a JPEG the segments that are no metadata, and Exif and XMP. The decoder refuses any other damage.

    Args:
        texts: keys of the PNG texts to keep.
    """
    if data.startswith(PNG_MAGIC):
        return _lean_png(data, texts)
    return Lean(_lean_jpeg(data)) if data.startswith(b"\xff\xd8\xff") else Lean(data)


def _lean_png(data: bytes, texts: Container[str]) -> Lean:
    parts: list[bytes | memoryview] = [PNG_MAGIC]
    unreadable: list[str] = []
    budget, depth, colour = MAX_TEXTS, 8, 6
    for chunk in chunks(memoryview(data)):
        kind, name, keep = chunk.kind, chunk.kind.decode(), True
        if kind == b"IHDR" and len(chunk.body) == 13:
            depth, colour = chunk.body[8:10]
        if not kind or not kind[0] & 0x20:  # the rest after the last complete chunk, or a critical one
            parts.append(chunk.whole)
            continue
        if kind == b"tRNS":
            parts.append(_clear(chunk, depth, colour))
            continue
        if kind in TEXTS:
            name = bytes(chunk.whole[8:88]).partition(b"\0")[0].decode("latin-1")
            if name not in texts:
                continue
            size = _text_size(chunk, budget)
            keep, budget = size is not None, budget - (MAX_TEXT if size is None else size)
        elif kind not in DECIDE:
            continue
        if keep and chunk.is_sound:
            parts.append(chunk.whole)
        else:
            unreadable.append(name)
    return Lean(b"".join(parts), tuple(unreadable))


def chunks(data: memoryview) -> Iterator[Chunk]:
    """The chunks of a PNG up to its end mark; if a chunk is incomplete, the rest of the file as one without a type."""
    at = len(PNG_MAGIC)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = bytes(data[at + 4 : at + 8])
        if end > len(data) or not kind.isalpha():
            yield Chunk(b"", data[at:])
            return
        yield Chunk(kind, data[at:end])
        if kind == b"IEND":
            return
        at = end


def _text_size(chunk: Chunk, budget: int) -> int | None:
    """The unpacked size of the text in a chunk, in bytes; None if above ``budget``, or above Pillow's limit."""
    if budget < MAX_TEXT or len(chunk.whole) > budget:
        return None
    text, packed = chunk.body.partition(b"\0")[2], b""
    if chunk.kind == b"zTXt":
        packed = text[1:]
    elif chunk.kind == b"iTXt" and text[:1] == b"\1":  # flag, method, language, key in that language, text
        packed = text[2:].partition(b"\0")[2].partition(b"\0")[2]
    if not packed:
        return len(text)
    unpack = zlib.decompressobj()
    try:
        size = len(unpack.decompress(packed, MAX_TEXT))
    except zlib.error:
        return None
    return None if unpack.unconsumed_tail else size


def _clear(chunk: Chunk, depth: int, colour: int) -> bytes | memoryview:
    """A PNG's chunk with the transparent colour, scaled as Pillow scales its pixels; empty if it is invalid.

    Pillow widens grey of 2 and 4 bits and narrows colours of 16 bits, but not the transparent one among them.
    """
    body = chunk.body
    if len(body) not in {0: (2,), 2: (6,), 3: range(257)}.get(colour, ()):  # grey, colours, a palette
        return b""
    widen = {2: 85, 4: 17}.get(depth, 1) if colour == 0 else 1
    if not chunk.is_sound or (widen == 1 and (depth, colour) != (16, 2)):
        return chunk.whole
    values = struct.unpack(f">{len(body) // 2}H", body)
    body = struct.pack(f">{len(values)}H", *(value >> 8 if colour == 2 else value * widen & 255 for value in values))
    return bytes(chunk.whole[:8]) + body + zlib.crc32(chunk.kind + body).to_bytes(4, "big")


def _lean_jpeg(data: bytes) -> bytes:
    """The file without comments, profiles, previews and other metadata before the pixels."""
    parts, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in NO_LENGTH:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        is_note = marker == 0xFE or 0xE0 <= marker <= 0xEF
        heads, least = NEEDED_SEGMENTS.get(marker, ((), 0))
        if not is_note or (data.startswith(heads, at + 4) and end - at - 4 >= least):
            parts.append(data[at:end])
        if end < at + 4:
            break
        at = end
    return b"".join([*parts, data[at:]])
