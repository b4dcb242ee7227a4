"""A picture's file without what does not decide its pixels: notes of other programs must not spoil a healthy picture.

Pillow gives up on a whole picture where a text or a colour profile in it is too large, too short, or has a wrong sum.
Nothing here is decoded: parts of the file are left out before Pillow sees them.
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
DECIDE = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")  # what is clear, which side is the top, and whether it moves

NO_LENGTH = (0x00, 0x01, *range(0xD0, 0xDB), 0xFF)  # of a JPEG: the start of its pixels, and marks without a body
WANTED_NOTES = {  # of a JPEG: how they begin and their least length; two say how colours are stored, one what is up
    0xE0: ((b"JFIF\0",), 14),
    0xE1: ((b"Exif\0\0", b"http://ns.adobe.com/xap/"), 0),
    0xEE: ((b"Adobe",), 12),
}


class Lean(NamedTuple):
    """``data`` a file that Pillow reads; ``left_out`` what was wanted of it and is too large or damaged."""

    data: bytes
    left_out: tuple[str, ...] = ()


class Chunk(NamedTuple):
    """A part of a PNG: its type, and its bytes with length, type and sum as they lie in the file."""

    kind: bytes
    whole: memoryview

    @property
    def body(self) -> bytes:
        """What it says."""
        return bytes(self.whole[8:-4])

    @property
    def is_sound(self) -> bool:
        """Whether its sum is right."""
        return zlib.crc32(self.whole[4:-4]) == int.from_bytes(self.whole[-4:], "big")


def lean(data: bytes, texts: Container[str] = WAY_UP) -> Lean:
    """The file of a PNG or JPEG with what decides its pixels, and of any other kind as it is.

    Of a PNG it keeps the critical chunks, ``DECIDE``, and the wanted texts within ``MAX_TEXT`` and ``MAX_TEXTS``; of a
    JPEG the segments that hold no notes, Exif and XMP. What is damaged beyond that is left to the decoder to refuse.

    Args:
        texts: keys of a PNG's texts that are wanted.
    """
    if data.startswith(PNG_MAGIC):
        return _lean_png(data, texts)
    return Lean(_lean_jpeg(data)) if data.startswith(b"\xff\xd8\xff") else Lean(data)


def _lean_png(data: bytes, texts: Container[str]) -> Lean:
    kept: list[bytes | memoryview] = [PNG_MAGIC]
    left_out: list[str] = []
    budget, depth, colour = MAX_TEXTS, 8, 6
    for chunk in chunks(memoryview(data)):
        kind, name, keep = chunk.kind, chunk.kind.decode(), True
        if kind == b"IHDR" and len(chunk.body) == 13:
            depth, colour = chunk.body[8:10]
        if not kind or not kind[0] & 0x20:  # what follows the last whole chunk, or a critical one
            kept.append(chunk.whole)
            continue
        if kind == b"tRNS":
            kept.append(_clear(chunk, depth, colour))
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
            kept.append(chunk.whole)
        else:
            left_out.append(name)
    return Lean(b"".join(kept), tuple(left_out))


def chunks(data: memoryview) -> Iterator[Chunk]:
    """The chunks of a PNG to its end mark, and what is no whole chunk before that as one more, without a type."""
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
    """How many bytes the text in a chunk has, unpacked; None if more than ``budget``, or than Pillow unpacks."""
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
    """A PNG's chunk that names the clear colour, in the numbers that Pillow gives its pixels; empty if it is none.

    Pillow widens grey of 2 and 4 bits and narrows colours of 16 bits, but not the clear one among them.
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
    """The same up to the pixels without comments, profiles, previews and the notes of cameras and programs."""
    kept, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in NO_LENGTH:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        is_note = marker == 0xFE or 0xE0 <= marker <= 0xEF
        heads, least = WANTED_NOTES.get(marker, ((), 0))
        if not is_note or (data.startswith(heads, at + 4) and end - at - 4 >= least):
            kept.append(data[at:end])
        if end < at + 4:
            break
        at = end
    return b"".join([*kept, data[at:]])
