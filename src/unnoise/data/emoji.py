"""Builds the default picture set: every colour emoji that this computer's font can draw, captioned and split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unnoise import extras
from unnoise.data.attributes import attributes_of, concept_of, family_of
from unnoise.data.captions import captions_of, plain_name
from unnoise.data.colours import dominant_colour
from unnoise.data.font import FontInfo, check_font, find_font
from unnoise.data.render import Renderer, code_points, encode, sequences
from unnoise.data.splits import SALT, Member, split
from unnoise.data.words import COLOURED
from unnoise.data.write import Row, existing_set, write_set
from unnoise.files import expanded

Progress = Callable[[int, int], None]
REVISION = 1  # raised when captions, attributes or the split change


def build_emoji(
    out: Path, font: Path | None = None, progress: Progress | None = None, only: Callable[[str], bool] | None = None
) -> dict[str, Any]:
    """Draw, caption and split the emoji of a font into the folder ``out``; return its manifest.

    Args:
        out: a new or empty folder; one that already holds the same set is left as it is.
        font: a CBDT font file; None searches this computer.
        progress: called with (done, total) sequences.
        only: keeps the sequences for which it is true; None keeps all.

    Raises:
        UnnoiseError: emoji or pyarrow is missing, no usable font, no raqm, or ``out`` holds something else.
    """
    extras.require("emoji", "pyarrow")
    out, font = expanded(out), None if font is None else expanded(font)
    info = check_font(find_font(font))
    candidates = [s for s in sequences() if only is None or only(s)]
    origin = origin_of(info, candidates)
    existing = existing_set(out, origin)
    if existing is not None:
        return existing
    drawings = _draw(info, candidates, progress)
    rows = _rows(drawings)
    extra = {"origin": origin, "skipped": len(candidates) - len(drawings), "salt": SALT}
    return write_set(out, rows, extra)


def origin_of(info: FontInfo, candidates: list[str]) -> dict[str, Any]:
    """Everything that determines pictures and captions: font, list of sequences, versions of the drawing libraries."""
    from PIL import __version__ as pillow
    from PIL import features

    return {
        "kind": "emoji",
        "revision": REVISION,
        "font": info.record(),
        "sequences_sha256": hashlib.sha256("\n".join(code_points(s) for s in candidates).encode()).hexdigest(),
        "versions": {
            "emoji": extras.load("emoji").__version__,
            "pillow": pillow,
            "raqm": features.version("raqm") or "unknown",
        },
    }


@dataclass(frozen=True)
class Drawing:
    """A sequence that the font has: its WebP file, the SHA-256 (hex) of its pixels, its colour word."""

    sequence: str
    webp: bytes
    pixels: str
    colour: str | None


def _draw(info: FontInfo, candidates: list[str], progress: Progress | None) -> list[Drawing]:
    """Everything that the font can draw, in the order of the sequences."""
    renderer = Renderer(Path(info.path))
    drawings = []
    for count, sequence in enumerate(candidates, 1):
        picture = renderer.draw(sequence)
        if picture is not None:
            pixels = hashlib.sha256(picture.tobytes()).hexdigest()
            colour = dominant_colour(np.asarray(picture)) if plain_name(sequence) in COLOURED else None
            drawings.append(Drawing(sequence, encode(picture), pixels, colour))
        if progress is not None:
            progress(count, len(candidates))
    return drawings


def _rows(drawings: list[Drawing]) -> list[Row]:
    """The rows of the drawings, with captions, attributes and split."""
    attributes = [attributes_of(d.sequence, plain_name(d.sequence)) for d in drawings]
    captions = captions_of(attributes, [d.colour for d in drawings], [d.pixels for d in drawings])
    first: dict[str, int] = {}
    for index, d in enumerate(drawings):
        first.setdefault(d.pixels, index)
    codes = [code_points(d.sequence) for d in drawings]
    members = [
        Member(code, family_of(code), concept_of(code), len(a.tones), first[d.pixels])
        for code, d, a in zip(codes, drawings, attributes, strict=True)
    ]
    return [
        Row(m.id, d.webp, d.pixels, texts, a.record(), m.family, m.identical, tier, part)
        for m, d, texts, a, (tier, part) in zip(members, drawings, captions, attributes, split(members), strict=True)
    ]
