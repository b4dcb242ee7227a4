"""Runs to look at: film strips and moving pictures of what happens between noise and picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GAP, MARGIN, INK = 4, 18, (60, 60, 60)


def evenly(count: int, most: int) -> list[int]:
    """At most so many of ``count`` places, the first and the last among them, as even as whole numbers are."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count - 1]
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def strip(rows: Sequence[Sequence[Image.Image]], captions: Sequence[str], names: Sequence[str] = ()) -> Image.Image:
    """A film strip: rows of equally large pictures, one above the other, and a caption below each column.

    Args:
        rows: of the same length, each a list of RGB pictures.
        captions: one for each column.
        names: of the rows, written above each; none if left out.
    """
    width, height = rows[0][0].size
    font = ImageFont.load_default(11)
    head = MARGIN if names else 0
    across = max(width, *(round(font.getlength(text)) for text in captions)) if captions else width
    size = (len(rows[0]) * (across + GAP) + GAP, len(rows) * (height + GAP + head) + GAP + MARGIN)
    out = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(out)
    for number, row in enumerate(rows):
        top = GAP + number * (height + GAP + head)
        if names:
            pen.text((GAP, top), names[number], INK, font)
        for place, image in enumerate(row):
            out.paste(image, (GAP + place * (across + GAP) + (across - width) // 2, top + head))
    for place, text in enumerate(captions):
        left = GAP + place * (across + GAP) + (across - font.getlength(text)) / 2
        pen.text((left, size[1] - MARGIN), text, INK, font)
    return out


def gif(images: Sequence[Image.Image], milliseconds: int = 120, hold: int = 1500) -> bytes:
    """A GIF that runs for ever: each picture for so long, the last for ``hold``; all of one size."""
    shades = [image.quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for image in images]
    times = [milliseconds] * (len(shades) - 1) + [hold]
    data = io.BytesIO()
    shades[0].save(data, "GIF", save_all=True, append_images=shades[1:], duration=times, loop=0, optimize=False)
    return data.getvalue()
