"""Growing a picture beyond its borders: windows of the model's size, each half known, half drawn anew."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from unnoise.core import checks
from unnoise.errors import UnnoiseError

if TYPE_CHECKING:
    from unnoise.core.sample import Step
    from unnoise.engine.settings import Settings
    from unnoise.engine.text_to_picture import Pipeline

SIDES = ("left", "top", "right", "bottom")
WIDEST = 512  # pixels a side


class Margins(NamedTuple):
    """Pixels that a picture grows by at each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


def margins(text: str) -> Margins:
    """Reads "64", for every side, or "right=64,top=32".

    Raises:
        UnnoiseError: it is neither, or a margin cannot be drawn.
    """
    how = "write pixels for all sides, such as 64, or for some: right=64,top=32"
    pairs = [part.partition("=") for part in checks.text("margins", text).replace(" ", "").split(",")]
    if len(pairs) == 1 and not pairs[0][1]:
        pairs = [(side, "=", pairs[0][0]) for side in SIDES]
    sides = [side for side, _, _ in pairs]
    numbers = all(re.fullmatch(r"\d{1,9}", value) for _, _, value in pairs)
    if not numbers or not set(sides) <= set(SIDES) or len(set(sides)) < len(sides):
        raise UnnoiseError(f"{text!r} names no margins", how)
    return checked("margins", Margins(**{side: int(value) for side, _, value in pairs}))


def windows(by: Margins, size: int) -> Iterator[tuple[int, int]]:
    """Corners (x, y) of squares of ``size`` pixels that cover a grown square, in the order in which they are drawn.

    First to the right and to the left, then row by row downward and upward. Each goes at most half a window beyond what
    is known when its turn comes, so that it always sees a band half as wide as itself.

    Raises:
        UnnoiseError: margins or a size that cannot be drawn.
    """
    by, size = checked("by", by, 0), checks.whole("size", size, 2, 4096)
    return _corners(by, size)


def checked(name: str, by: Margins, least: int = 1) -> Margins:
    """Margins that can be drawn, as plain numbers.

    Raises:
        UnnoiseError: they are none, one is out of range, or none is as large as ``least``.
    """
    checks.instance(name, by, Margins, "give Margins(left=64)")
    by = Margins(*(checks.whole(f"{name}.{side}", pixels, 0, WIDEST) for side, pixels in zip(SIDES, by, strict=True)))
    checks.whole(f"the largest of {name}", max(by), least, WIDEST)
    return by


def _corners(by: Margins, size: int) -> Iterator[tuple[int, int]]:
    step, width, height = size // 2, size + by.left + by.right, size + by.top + by.bottom
    for edge in _edges(by.left + size, width, step):
        yield edge - size, by.top
    for edge in _edges(by.left, 0, step):
        yield edge, by.top
    columns = sorted({min(x, width - size) for x in range(0, width - size + step, step)})
    for edge in _edges(by.top + size, height, step):
        yield from ((x, edge - size) for x in columns)
    for edge in _edges(by.top, 0, step):
        yield from ((x, edge) for x in columns)


def _edges(known: int, end: int, step: int) -> Iterator[int]:
    """How far what is known reaches after each move from ``known`` to ``end``."""
    while known != end:
        known = min(known + step, end) if end > known else max(known - step, end)
        yield known


def outpaint(
    picture: Image.Image, by: Margins, size: int, fill: Callable[[Image.Image, Image.Image, int], Image.Image]
) -> Image.Image:
    """A picture with its surroundings: what was there keeps its bits.

    Args:
        picture: RGB of any size, cut square in the middle and scaled to ``size``.
        by: how much is added.
        size: of the windows, which is the model's.
        fill: ``fill(window, mask, number)`` draws a window anew where the mask (mode L) is white. What is not known
            yet, the window holds as the nearest known pixels, so that an encoder sees no edge.

    Raises:
        UnnoiseError: an argument that is no such thing, or margins that cannot be drawn.
    """
    checks.instance("picture", picture, Image.Image, "open it by PIL.Image.open")
    by, size = checked("by", by), checks.whole("size", size, 2, 4096)
    if not callable(fill):
        raise UnnoiseError(f"fill is {checks.shown(fill)}, which cannot be called", "make it by window_fill")
    inner = np.asarray(ImageOps.fit(picture, (size, size)))  # (size, size, 3)
    room = ((by.top, by.bottom), (by.left, by.right))
    canvas = np.pad(inner, (*room, (0, 0)), mode="edge")  # (H, W, 3)
    known = np.pad(np.ones((size, size), bool), room)  # (H, W)
    for number, (x, y) in enumerate(windows(by, size)):
        here = (slice(y, y + size), slice(x, x + size))
        new = ~known[here]
        if not new.any():
            continue
        window = nearest_known(canvas[here], known[here])
        drawn = fill(Image.fromarray(window), Image.fromarray(new.astype(np.uint8) * 255), number)
        canvas[here] = np.where(new[..., None], np.asarray(drawn), canvas[here])
        known[here] = True
    return Image.fromarray(canvas)


def window_fill(
    pipeline: Pipeline, prompt: str, seed: int, negative: str, settings: Settings, look: Callable[[Step], None]
) -> Callable[[Image.Image, Image.Image, int], Image.Image]:
    """What ``outpaint`` fills windows with: runs of a pipeline that keep what is known of them.

    Args:
        seed: of the first window; the noise of the others is drawn from it and their number.
        look: is shown each step.
    """

    def fill(window: Image.Image, mask: Image.Image, number: int) -> Image.Image:
        own = (seed + number * 0x9E3779B97F4A7C15) % 2**63  # far from the seeds of other pictures
        begin = pipeline.start(window, 1.0, mask, settings.rules)
        for step in pipeline.run([prompt], [own], negative, settings, begin):
            look(step)
            last = step
        return pipeline.decode(last.run.x, begin)[0]

    return fill


def nearest_known(pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(H, W, 3) with each pixel that is not known (H, W) set to the nearest known one of its row, or else column."""
    pixels, known = pixels.copy(), known.copy()
    for axis in (1, 0):
        rows, seen = (pixels, known) if axis == 1 else (pixels.swapaxes(0, 1), known.swapaxes(0, 1))
        for row, there in zip(rows, seen, strict=True):
            places = np.flatnonzero(there)
            if len(places):
                gaps = np.abs(np.arange(len(there))[:, None] - places).argmin(1)
                row[:] = row[places[gaps]]
                there[:] = True
    return pixels
