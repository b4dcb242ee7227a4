"""Film strips and animations of the way from noise to picture, and tables of pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import accumulate

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
        rows: of the same length, of RGB pictures, each in the middle of its cell.
        across: a label for each column.
        down: a label for each row; none if left out.

    Returns:
        The table, and for each picture the box (left, top, right, bottom) in which it lies there, pixel by pixel.
    """
    font = ImageFont.load_default(11)
    head = MARGIN if across else 0
    side = GAP + max(math.ceil(font.getlength(text)) for text in down) if down else 0
    label = max(math.ceil(font.getlength(text)) for text in across) if across else 0
    columns = [max(label, *(image.width for image in column)) for column in zip(*rows, strict=True)]
    heights = [max(image.height for image in row) for row in rows]
    lefts = list(accumulate((width + GAP for width in columns), initial=side + GAP))
    tops = list(accumulate((height + GAP for height in heights), initial=head + GAP))
    out = Image.new("RGB", (lefts[-1], tops[-1]), "white")
    pen = ImageDraw.Draw(out)
    for left, width, text in zip(lefts, columns, across, strict=False):
        pen.text((left + (width - font.getlength(text)) / 2, GAP), text, INK, font)
    for top, height, text in zip(tops, heights, down, strict=False):
        pen.text((side - font.getlength(text), top + height / 2 - 6), text, INK, font)
    boxes: list[list[tuple[int, int, int, int]]] = []
    for top, height, row in zip(tops, heights, rows, strict=False):
        boxes.append([])
        for left, width, image in zip(lefts, columns, row, strict=False):
            x, y = left + (width - image.width) // 2, top + (height - image.height) // 2
            out.paste(image, (x, y))
            boxes[-1].append((x, y, x + image.width, y + image.height))
    return out, boxes


def gif(images: Sequence[Image.Image], milliseconds: int = 120, hold: int = 1500) -> bytes:
    """A GIF that loops for ever: each picture for ``milliseconds``, the last for ``hold``; all of one size."""
    shades = [image.quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for image in images]
    times = [milliseconds] * (len(shades) - 1) + [hold]
    data = io.BytesIO()
    shades[0].save(data, "GIF", save_all=True, append_images=shades[1:], duration=times, loop=0, optimize=False)
    return data.getvalue()
