"""Pictures that are nearly the same: found by their thumbnails, grouped, so that no group is split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SIDE = 16  # of a thumbnail
NEAR = 4.0  # levels of 255, root mean square over a thumbnail: see docs/data.md for what it parts
BLOCK = 256  # pictures compared at a time


def thumbnail(picture: Image.Image) -> np.ndarray:
    """(16, 16, 3) uint8: means over a square picture's tiles, which keep noise and compression out."""
    from PIL import Image

    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))


def near_groups(thumbnails: Sequence[np.ndarray], near: float = NEAR) -> list[int]:
    """For each picture the first one of its group: those that a chain of near pairs joins to it.

    A pair is near if its thumbnails differ by at most ``near`` levels, root mean square, as they are or one mirrored.
    All pairs are compared, by products of matrices: ten thousand pictures are fifty million pairs and some seconds.

    Args:
        thumbnails: of all pictures, of one shape.
        near: levels of 255; 0 joins equal thumbnails alone.
    """
    count = len(thumbnails)
    labels = np.arange(count)
    if count == 0:
        return []
    # centred, so that every sum is a whole number of at most 768 x 128^2 < 2^24, and float32 is exact
    plain = np.stack(thumbnails).astype(np.float32) - 128
    shapes = [plain.reshape(count, -1), plain[:, :, ::-1].reshape(count, -1)]
    square = (shapes[0] ** 2).sum(1, dtype=np.float64)
    limit = shapes[0].shape[1] * near**2
    for start in range(0, count, BLOCK):
        rows = slice(start, start + BLOCK)
        close = np.zeros((len(labels[rows]), count), dtype=bool)
        for shape in shapes:
            product = plain[rows].reshape(-1, shape.shape[1]) @ shape.T
            close |= square[rows, None] + square - 2.0 * product <= limit
        for row in np.flatnonzero(close.sum(1) > 1):
            joined = np.unique(labels[close[row]])
            if len(joined) > 1:
                labels[np.isin(labels, joined)] = joined[0]
    return [int(label) for label in labels]
