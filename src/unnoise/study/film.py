"""Film strips and animations of the way from noise to picture, and tables of pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GAP, MARGIN, INK = 4, 18, (60, 60, 60)


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` indices, the first and the last among them, spread as evenly as possible."""
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


def table(
    rows: Sequence[Sequence[Image.Image]], across: Sequence[str], down: Sequence[str] = ()
) -> tuple[Image.Image, list[list[tuple[int, int, int, int]]]]:
    """Pictures in rows and columns with a label above each column and one before each row.

    Args:
        rows: of the same length, of equally large RGB pictures.
        across: a label for each column.
        down: a label for each row; none if left out.

    Returns:
        The table, and for each picture the box (left, top, right, bottom) in which it lies there, pixel by pixel.
    """
    width, height = rows[0][0].size
    font = ImageFont.load_default(11)
    head = MARGIN if across else 0
    side = GAP + max(math.ceil(font.getlength(text)) for text in down) if down else 0
    column = max(width, *(math.ceil(font.getlength(text)) for text in across)) if across else width
    size = (side + len(rows[0]) * (column + GAP) + GAP, head + len(rows) * (height + GAP) + GAP)
    out = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(out)
    lefts = [side + GAP + place * (column + GAP) for place in range(len(rows[0]))]
    for left, text in zip(lefts, across, strict=False):
        pen.text((left + (column - font.getlength(text)) / 2, GAP), text, INK, font)
    boxes = []
    for number, row in enumerate(rows):
        top = head + GAP + number * (height + GAP)
        for text in down[number : number + 1]:
            pen.text((side - font.getlength(text), top + height / 2 - 6), text, INK, font)
        corners = [(left + (column - width) // 2, top) for left in lefts]
        for corner, image in zip(corners, row, strict=True):
            out.paste(image, corner)
        boxes.append([(x, y, x + width, y + height) for x, y in corners])
    return out, boxes


def gif(images: Sequence[Image.Image], milliseconds: int = 120, hold: int = 1500) -> bytes:
    """A GIF that loops for ever: each picture for ``milliseconds``, the last for ``hold``; all of one size."""
    shades = [image.quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for image in images]
    times = [milliseconds] * (len(shades) - 1) + [hold]
    data = io.BytesIO()
    shades[0].save(data, "GIF", save_all=True, append_images=shades[1:], duration=times, loop=0, optimize=False)
    return data.getvalue()
