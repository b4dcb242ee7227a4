"""Growing a picture beyond its borders: windows as large as the picture, each half known, half drawn anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from unnoise.core import checks
from unnoise.errors import UnnoiseError

SIDES = ("left", "top", "right", "bottom")
WIDEST = 512  # pixels a side


class Window(NamedTuple):
    """A part of a picture that grows.

    Attributes:
        number: which of all windows, from 0.
        place: its rows and columns.
        picture: RGB; what is not known yet it holds as the nearest known pixels, so that an encoder sees no edge.
        mask: mode L, white where it is to be drawn.
    """

    number: int
    place: tuple[slice, slice]
    picture: Image.Image
    mask: Image.Image


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


def written(by: Margins) -> str:
    """The margins as ``margins`` reads them."""
    return ",".join(f"{side}={pixels}" for side, pixels in zip(SIDES, by, strict=True) if pixels)


def windows(by: Margins, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Corners (x, y) of windows that cover a grown picture of ``size``, in the order in which they are drawn.

    First to the right and to the left, then row by row downward and upward. Each goes at most half a window beyond what
    is known when its turn comes, so that it always sees a band half as wide as itself.

    Raises:
        UnnoiseError: margins or a size that cannot be drawn.
    """
    by = checked("by", by, 0)
    return _corners(by, *(checks.whole("size", side, 2, 4096) for side in size))


def checked(name: str, by: Margins, least: int = 1) -> Margins:
    """Margins that can be drawn, as plain numbers.

    Raises:
        UnnoiseError: they are none, one is out of range, or none is as large as ``least``.
    """
    checks.instance(name, by, Margins, "give Margins(left=64)")
    by = Margins(*(checks.whole(f"{name}.{side}", pixels, 0, WIDEST) for side, pixels in zip(SIDES, by, strict=True)))
    checks.whole(f"the largest of {name}", max(by), least, WIDEST)
    return by


def _corners(by: Margins, wide: int, high: int) -> Iterator[tuple[int, int]]:
    width, height = wide + by.left + by.right, high + by.top + by.bottom
    for edge in _edges(by.left + wide, width, wide // 2):
        yield edge - wide, by.top
    for edge in _edges(by.left, 0, wide // 2):
        yield edge, by.top
    columns = sorted({min(x, width - wide) for x in range(0, width - wide + wide // 2, wide // 2)})
    for edge in _edges(by.top + high, height, high // 2):
        yield from ((x, edge - high) for x in columns)
    for edge in _edges(by.top, 0, high // 2):
        yield from ((x, edge) for x in columns)


def _edges(edge: int, end: int, step: int) -> Iterator[int]:
    """How far what is known reaches after each move from ``edge`` to ``end``."""
    while edge != end:
        edge = min(edge + step, end) if end > edge else max(edge - step, end)
        yield edge


class Canvas:
    """A picture that grows: windows of it are filled one after the other, and what was there keeps its bits.

    Args:
        picture: RGB of any size, cut to the shape of ``size`` in the middle and scaled to it.
        by: how much is added.
        size: (width, height) of the picture and of the windows.

    Raises:
        UnnoiseError: an argument that is no such thing, or margins that cannot be drawn.
    """

    def __init__(self, picture: Image.Image, by: Margins, size: tuple[int, int]) -> None:
        checks.instance("picture", picture, Image.Image, "open it by PIL.Image.open")
        by = checked("by", by)
        self.by, self.size = by, size
        inner = np.asarray(ImageOps.fit(picture, size))  # (h, w, 3)
        room = ((by.top, by.bottom), (by.left, by.right))
        self.pixels = np.pad(inner, (*room, (0, 0)), mode="edge")  # (H, W, 3)
        self.known = np.pad(np.ones(inner.shape[:2], bool), room)  # (H, W)

    def windows(self) -> Iterator[Window]:
        """The windows that have anything to draw, each as it is once those before it are filled."""
        width, height = self.size
        for number, (x, y) in enumerate(windows(self.by, self.size)):
            place = (slice(y, y + height), slice(x, x + width))
            new = ~self.known[place]
            if new.any():
                window = nearest_known(self.pixels[place], self.known[place])
                yield Window(number, place, Image.fromarray(window), Image.fromarray(new.astype(np.uint8) * 255))

    def fill(self, window: Window, picture: Image.Image) -> None:
        """Takes what is new of a window from a picture of its size."""
        new = ~self.known[window.place]
        self.pixels[window.place] = np.where(new[..., None], np.asarray(picture), self.pixels[window.place])
        self.known[window.place] = True

    @property
    def image(self) -> Image.Image:
        """The picture as it is now."""
        return Image.fromarray(self.pixels)


def nearest_known(pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(H, W, 3) with each pixel that is not known (H, W) set to the nearest known one of its row, or else column."""
    pixels, known = pixels.copy(), known.copy()
    for axis in (1, 0):
        rows, masks = (pixels, known) if axis == 1 else (pixels.swapaxes(0, 1), known.swapaxes(0, 1))
        for row, there in zip(rows, masks, strict=True):
            places = np.flatnonzero(there)
            if len(places):
                gaps = np.abs(np.arange(len(there))[:, None] - places).argmin(1)
                row[:] = row[places[gaps]]
                there[:] = True
    return pixels
