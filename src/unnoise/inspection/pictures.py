"""Pictures: format, size, colours, the blocks that carry words, and the record in these of how the picture was made.

No pixel is decoded, but where a picture without words may hide some in them (``engine.readers``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.engine.readers.read import texts_at, what_texts_say
from unnoise.errors import UnnoiseError
from unnoise.foreign import read
from unnoise.inspection.answer import Answer

MAX_BLOCKS = 100_000
COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
COMPONENTS = {1: "grey", 3: "colour", 4: "CMYK"}
CARRY = {b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"acTL", b"caBX", b"EXIF", b"XMP ", b"ICCP", b"ANIM"}
FIELDS = ("prompt", "negative", "steps", "sampler", "schedule", "cfg_scale", "seed", "size", "strength", "eta")
OURS = "unnoise; `unnoise replay` makes it again"
LABELS = {"size": "drawn at", "cfg_scale": "cfg scale"}  # fields whose label is not their name


class Block(NamedTuple):
    """A part of a picture's file: its kind, where its contents begin, and how long they are."""

    kind: bytes
    start: int
    size: int


def describe_picture(path: Path, name: str) -> Answer:
    """What a PNG, JPEG or WebP file is.

    Raises:
        UnnoiseError: it cannot be read.
    """
    length = path.stat().st_size
    blocks = list(BLOCKS[name](path, length))
    kinds = {block.kind for block in blocks}
    whole = ENDS[name](blocks, length)
    try:
        width, height, colours = SIZES[name](path, blocks)
    except (IndexError, StopIteration, struct.error):
        return Answer(f"a {name} picture", name, {}, "", "it ends before it says its size", "download it again")
    facts: dict[str, Any] = {"size": f"{width} x {height}", "colours": colours}
    carried = [block.kind.decode("latin-1").strip() for block in blocks if block.kind in CARRY]
    facts["carries"] = (
        ", ".join(f"{k} ({carried.count(k)})" if carried.count(k) > 1 else k for k in dict.fromkeys(carried))
        or "no words"
    )
    note = "it moves; only its first picture would be used" if kinds & {b"acTL", b"ANIM"} else ""
    if len(blocks) == MAX_BLOCKS:
        return Answer(f"a {name} picture", name, facts, "only its first parts were looked at, of more than 100,000")
    if not whole:
        return Answer(f"a {name} picture", name, facts, "", "it is cut short", "download it again")
    return with_texts(path, Answer(f"a {name} picture", name, facts, note), (width, height))


def with_texts(path: Path, answer: Answer, size: tuple[int, int]) -> Answer:
    """The answer with the picture's own record of how it was made."""
    try:
        texts = texts_at(path)
    except UnnoiseError:
        return answer
    reading = what_texts_say(texts)
    facts, notes = dict(answer.facts), [answer.note] if answer.note else []
    ours = bool({"unnoise", "unnoise-grid"} & set(texts))
    if reading is None:
        return answer._replace(facts={**facts, "made by": f"{OURS}, or says why not"}) if ours else answer
    facts["made by"] = OURS if ours else reading.tool
    for name in FIELDS:
        value = getattr(reading, name)
        if value not in (None, ""):
            facts[LABELS.get(name, name)] = f"{value[0]} x {value[1]}" if name == "size" else value
    if reading.size is not None and reading.size != size:
        notes.append("its words tell another size than the picture has: it was scaled or cut since")
    if reading.left_out and not ours:
        facts["also in it"] = ", ".join(list(reading.left_out)[:12])
    return answer._replace(facts=facts, note="; ".join([*notes, *reading.notes]))


def png_blocks(path: Path, length: int) -> Iterator[Block]:
    """The chunks of a PNG."""
    at = 8
    with path.open("rb") as file:
        for _ in range(MAX_BLOCKS):
            file.seek(at)
            head = file.read(8)
            if len(head) < 8:
                return
            size, kind = struct.unpack(">I4s", head)
            if at + 12 + size > length:
                return
            yield Block(kind, at + 8, size)
            at += 12 + size


def jpeg_blocks(path: Path, length: int) -> Iterator[Block]:
    """The segments of a JPEG up to its first scan; of APP1 and APP2 the kind is what they hold."""
    at = 2
    with path.open("rb") as file:
        for _ in range(MAX_BLOCKS):
            file.seek(at)
            head = file.read(24)
            if len(head) < 4 or head[0] != 0xFF:
                return
            if head[1] in (0xFF, 0x01, *range(0xD0, 0xD8)):
                at += 1 if head[1] == 0xFF else 2
                continue
            size = struct.unpack(">H", head[2:4])[0]
            chunk = {b"Exif": b"eXIf", b"http": b"XMP ", b"ICC_": b"iCCP"}.get(head[4:8])
            kind = chunk if chunk and head[1] in (0xE1, 0xE2) else b"tEXt" if head[1] == 0xFE else bytes(head[1:2])
            yield Block(kind, at + 4, size - 2)
            if head[1] == 0xDA:
                return
            at += 2 + size


def webp_blocks(path: Path, length: int) -> Iterator[Block]:
    """The chunks of a WebP file (RFC 9649)."""
    at = 12
    with path.open("rb") as file:
        for _ in range(MAX_BLOCKS):
            file.seek(at)
            head = file.read(8)
            if len(head) < 8:
                return
            kind, size = struct.unpack("<4sI", head)
            if at + 8 + size > length:
                return
            yield Block(kind, at + 8, size)
            at += 8 + size + size % 2


def png_size(path: Path, blocks: list[Block]) -> tuple[int, int, str]:
    width, height, bits, colours = struct.unpack(">IIBB", read(path, 10, blocks[0].start))
    return width, height, f"{COLOURS.get(colours, 'unknown')}, {bits} bits"


def jpeg_size(path: Path, blocks: list[Block]) -> tuple[int, int, str]:
    frames = {bytes([n]) for n in range(0xC0, 0xD0)} - {b"\xc4", b"\xc8", b"\xcc"}
    bits, height, width, parts = struct.unpack(
        ">BHHB", read(path, 6, next(b for b in blocks if b.kind in frames).start)
    )
    return width, height, f"{COMPONENTS.get(parts, 'unknown')}, {bits} bits"


def webp_size(path: Path, blocks: list[Block]) -> tuple[int, int, str]:
    first = blocks[0]
    body = read(path, 10, first.start)
    if first.kind == b"VP8X":
        alpha = " with alpha" if body[0] & 0x10 else ""
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"), f"RGB{alpha}, 8 bits"
    if first.kind == b"VP8L":
        bits = struct.unpack("<I", body[1:5])[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), "lossless, 8 bits"
    width, height = struct.unpack("<HH", body[6:10])
    return width & 0x3FFF, height & 0x3FFF, "RGB, 8 bits"


BLOCKS = {"PNG": png_blocks, "JPEG": jpeg_blocks, "WebP": webp_blocks}
SIZES = {"PNG": png_size, "JPEG": jpeg_size, "WebP": webp_size}
ENDS = {  # whether a picture is whole, as far as its blocks tell
    "PNG": lambda blocks, length: any(block.kind == b"IEND" for block in blocks),
    "JPEG": lambda blocks, length: any(block.kind == b"\xda" for block in blocks),
    "WebP": lambda blocks, length: any(block.kind in (b"VP8 ", b"VP8L", b"ANMF") for block in blocks),
}
