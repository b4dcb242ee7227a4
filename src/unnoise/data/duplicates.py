"""Pictures that are nearly the same: found by their thumbnails, grouped, so that no group is split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SIDE = 16  # of a thumbnail in colours
FINE = 64  # of one in grey, for drawings
NEAR = 4.0  # levels of 255, root mean square over a thumbnail in colours; docs/data.md shows what it separates
PART = 0.3  # the share of a drawing that may differ; root mean square as well
FAINT = 0.5  # levels of grey: anything weaker is no drawing
BLOCK = 256  # pictures compared at a time


class Thumbnail(NamedTuple):
    """``colours`` (16, 16, 3) and ``grey`` (64, 64), uint8: means over tiles, which keep noise and compression out."""

    colours: np.ndarray
    grey: np.ndarray


def thumbnail(picture: Image.Image) -> Thumbnail:
    """The thumbnails by which a square RGB picture is compared."""
    from PIL import Image

    colours = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = picture.convert("L").resize((FINE, FINE), Image.Resampling.BOX)
    return Thumbnail(np.asarray(colours), np.asarray(grey))


def near_groups(thumbnails: Sequence[Thumbnail], near: float = NEAR) -> list[int]:
    """For each picture the first one of its group: those that a chain of near pairs joins to it.

    A pair is near, as it is or one mirrored, if its thumbnails in colours differ by at most ``near`` levels, root mean
    square, and those in grey show the same drawing. The second rule is for drawings, which are mostly paper: two that
    have nothing in common may be nearer to one another than a photograph is to its own JPEG.

    All pairs are compared, by matrix products: ten thousand pictures are fifty million pairs and take a few seconds;
    drawings on paper take a minute or two.

    Args:
        thumbnails: of all pictures.
        near: levels of 255; 0 joins only equal thumbnails.
    """
    count = len(thumbnails)
    labels = np.arange(count)
    if count == 0:
        return []
    # centred, so that every sum is a whole number of at most 768 x 128^2 < 2^24, and float32 is exact
    plain = np.stack([each.colours for each in thumbnails]).astype(np.float32) - 128
    grey = np.stack([each.grey for each in thumbnails])
    shapes = [plain.reshape(count, -1), plain[:, :, ::-1].reshape(count, -1)]
    drawings = [grey.reshape(count, -1), grey[:, :, ::-1].reshape(count, -1)]
    square = (shapes[0] ** 2).sum(1, dtype=np.float64)
    limit = shapes[0].shape[1] * near**2
    for start in range(0, count, BLOCK):
        rows, rest = slice(start, start + BLOCK), slice(start, None)  # earlier blocks have covered the pairs before
        close = np.zeros((len(labels[rows]), count - start), dtype=bool)
        for shape, drawing in zip(shapes, drawings, strict=True):
            product = shapes[0][rows] @ shape[rest].T
            rough = square[rows, None] + square[rest] - 2.0 * product <= limit
            close |= rough & same_drawing(drawings[0][rows], drawing[rest], rough)
        for row in np.flatnonzero(close.any(1)):
            joined = np.unique(np.append(labels[rest][close[row]], labels[start + row]))
            if len(joined) > 1:
                labels[np.isin(labels, joined)] = joined[0]
    return [int(label) for label in labels]


def same_drawing(ours: np.ndarray, theirs: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(N, M) bool: whether a pair shows the same drawing. A drawing is the difference of the grey from its own mean.

    Two drawings are the same if they differ by at most ``PART`` of the stronger one, or by less than ``FAINT``.

    Args:
        ours, theirs: (N, P) and (M, P) uint8.
        pairs: (N, M) bool, the pairs to compare; all others are False.
    """
    same = np.zeros_like(pairs)
    columns = np.flatnonzero(pairs.any(0))
    pixels = ours.shape[1]
    first_values = ours.astype(np.float64)  # sums of up to 64^4 x 255^2 < 2^53 are exact in it, whatever their order
    first_sums, first_power = first_values.sum(1), pixels * (first_values**2).sum(1) - first_values.sum(1) ** 2
    for first in range(0, len(columns), 4 * BLOCK):
        part = columns[first : first + 4 * BLOCK]
        second_values = theirs[part].astype(np.float64)
        second_sums = second_values.sum(1)
        second_power = pixels * (second_values**2).sum(1) - second_sums**2
        apart = (
            first_power[:, None]
            + second_power
            - 2 * (pixels * (first_values @ second_values.T) - first_sums[:, None] * second_sums)
        )
        bound = np.maximum(PART**2 * np.maximum(first_power[:, None], second_power), (pixels * FAINT) ** 2)
        same[:, part] = apart <= bound
    return same
