"""A contact sheet: many small pictures on one page, to look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch


def contact_sheet(
    pictures: torch.Tensor, path: Path, columns: int = 16, size: int | None = None, titles: Sequence[str] = ()
) -> None:
    """Write uint8 RGB pictures (n, 3, height, width) as one PNG, row by row.

    Args:
        columns: pictures in a row.
        size: side of each in pixels, None for their own.
        titles: a line of text under each, cut to its width, or nothing.

    Raises:
        OSError: the file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    count, _, height, width = pictures.shape
    side = (width, height) if size is None else (size, round(size * height / width))
    columns = max(1, min(columns, count))
    step = side[1] + (14 if titles else 0)
    page = Image.new("RGB", (columns * side[0], max(1, math.ceil(count / columns) * step)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(10)
    for index in range(count):
        x, y = index % columns * side[0], index // columns * step
        picture = Image.fromarray(pictures[index].permute(1, 2, 0).contiguous().numpy())
        page.paste(picture if size is None else picture.resize(side, Image.Resampling.LANCZOS), (x, y))
        if titles:
            line = fitting(titles[index], side[0] - 4, lambda text: draw.textlength(text, font=font))
            draw.text((x + 2, y + side[1]), line, fill="black", font=font)
    page.save(path)


def fitting(line: str, width: float, length: Callable[[str], float]) -> str:
    """The longest beginning of a line that fits, by bisection; of a very long line only the beginning is measured.

    Args:
        length: of a text, in the unit of ``width``; measuring long texts takes long.
    """
    line = line[: 8 * max(1, round(width))]
    fits, too_long = 0, len(line) + 1
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (middle, too_long) if length(line[:middle]) <= width else (fits, middle)
    return line[:fits]
