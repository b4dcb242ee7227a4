"""From an emoji sequence to a 128 x 128 picture, or to nothing where the font cannot draw it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from unnoise import extras
from unnoise.data.font import FONT_SIZE

if TYPE_CHECKING:
    from PIL import Image

SIZE = 128  # pixels, both sides
NONCHARACTER = "\U0010fffe"  # no font maps it, so that it shows what a missing glyph looks like


def sequences() -> list[str]:
    """All fully-qualified emoji sequences that the ``emoji`` package knows, sorted by code points."""
    emoji = extras.load("emoji")
    status = emoji.STATUS["fully_qualified"]
    return sorted(s for s, record in emoji.EMOJI_DATA.items() if record["status"] == status)


def code_points(sequence: str) -> str:
    """The sequence's code points in lower-case hexadecimal: ``"1f469-200d-1f692"``."""
    return "-".join(f"{ord(c):x}" for c in sequence)


class Renderer:
    """Draws sequences with one bitmap font; see ``draw``."""

    def __init__(self, path: Path) -> None:
        from PIL import ImageFont

        self.font = ImageFont.truetype(str(path), FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
        self.cell = self.font.getlength("\U0001f600")  # the advance of one glyph: 136 pixels in Noto
        self.missing = self._draw(NONCHARACTER).tobytes()

    def draw(self, sequence: str) -> Image.Image | None:
        """RGB, 128 x 128, on white; None where the font lacks it.

        A joined sequence that is no ligature of the font falls apart into several glyphs, so that its advance is
        longer than one cell; an unknown character draws the missing glyph or nothing.
        """
        if self.font.getlength(sequence) > self.cell * 1.25:
            return None
        picture = self._draw(sequence)
        if picture.tobytes() == self.missing or picture.getextrema() == ((255, 255),) * 3:
            return None
        return picture

    def _draw(self, sequence: str) -> Image.Image:
        from PIL import Image, ImageDraw

        # the bitmap sits in the middle of a cell that is a little wider than high: cut both sides, never scale
        width = max(SIZE, round(self.cell))
        ink = Image.new("RGBA", (width, SIZE), (0, 0, 0, 0))
        ImageDraw.Draw(ink).text((0, 0), sequence, font=self.font, embedded_color=True)
        margin = (width - SIZE) // 2
        ink = ink.crop((margin, 0, margin + SIZE, SIZE))
        picture = Image.new("RGB", (SIZE, SIZE), "white")
        picture.paste(ink, mask=ink.getchannel("A"))
        return picture


def encode(picture: Image.Image) -> bytes:
    """The picture as lossless WebP."""
    out = io.BytesIO()
    picture.save(out, "WEBP", lossless=True, quality=75, method=4)
    return out.getvalue()
