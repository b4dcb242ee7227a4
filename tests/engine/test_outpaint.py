"""Growing a picture: the windows cover what is new, see enough of what is known, and what was there keeps its bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unnoise.engine.outpaint import Canvas, Margins, margins, nearest_known, windows, written
from unnoise.errors import UnnoiseError

SIZE = 16
SIZES = st.tuples(st.integers(8, 24), st.integers(8, 24))
some = st.builds(Margins, *[st.integers(0, 40)] * 4)


def outpaint(
    picture: Image.Image,
    by: Margins,
    size: tuple[int, int],
    fill: Callable[[Image.Image, Image.Image, int], Image.Image],
) -> Image.Image:
    """The grown picture, its windows filled by a function of (picture, mask, number)."""
    canvas = Canvas(picture, by, size)
    for window in canvas.windows():
        canvas.fill(window, fill(window.picture, window.mask, window.number))
    return canvas.image


@given(some, SIZES)
def test_windows_cover_the_canvas_and_see_half_of_themselves(by: Margins, size: tuple[int, int]) -> None:
    width, height = size
    known = np.zeros((height + by.top + by.bottom, width + by.left + by.right), bool)
    known[by.top : by.top + height, by.left : by.left + width] = True
    for x, y in windows(by, size):
        assert x >= 0 <= y
        here = known[y : y + height, x : x + width]
        assert here.shape == (height, width), "no window leaves the canvas"
        assert here.mean() >= 0.5
        here[:] = True
    assert known.all()


def test_what_was_there_keeps_its_bits() -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8))
    by, seen = Margins(9, 3, 20, 0), []

    def fill(window: Image.Image, mask: Image.Image, number: int) -> Image.Image:
        seen.append((number, np.asarray(mask).any(), window.size))
        return Image.new("RGB", window.size, (number, 200, 200))

    grown = np.asarray(outpaint(picture, by, (SIZE, SIZE), fill))
    assert grown.shape == (SIZE + 3, SIZE + 29, 3)
    assert np.array_equal(grown[3:, 9 : 9 + SIZE], np.asarray(picture))
    outside = np.ones(grown.shape[:2], bool)
    outside[3:, 9 : 9 + SIZE] = False
    assert (grown[outside][:, 1:] == 200).all(), "everything new was drawn"
    assert all(new and size == (SIZE, SIZE) for _, new, size in seen)


def test_each_window_knows_what_was_drawn_before() -> None:
    """A fill that goes on with the mean of what it sees gives one colour; to see nothing would give black."""

    def fill(window: Image.Image, mask: Image.Image, number: int) -> Image.Image:
        seen = np.asarray(window)[np.asarray(mask) == 0]
        return Image.new("RGB", window.size, tuple(int(c) for c in seen.mean(0).round()))

    grown = outpaint(Image.new("RGB", (5, 5), (10, 20, 30)), Margins(33, 33, 33, 33), (SIZE, SIZE), fill)
    assert set(grown.get_flattened_data() if hasattr(grown, "get_flattened_data") else grown.getdata()) == {
        (10, 20, 30)
    }


def test_the_nearest_known_pixels() -> None:
    pixels = np.zeros((3, 4, 3), np.uint8)
    pixels[1] = [[1] * 3, [2] * 3, [3] * 3, [4] * 3]
    known = np.zeros((3, 4), bool)
    known[1, 1:3] = True
    assert nearest_known(pixels, known)[..., 0].tolist() == [[2, 2, 3, 3]] * 3


def test_margins_are_read() -> None:
    assert margins("64") == Margins(64, 64, 64, 64)
    assert margins("right=64, top=32") == Margins(top=32, right=64)


@given(some.filter(any))
def test_margins_are_read_as_they_are_written(by: Margins) -> None:
    assert margins(written(by)) == by


@pytest.mark.parametrize("text", ["", "0", "-3", "left", "left=", "middle=3", "left=1,left=2", "1,2", "left=513", "x"])
def test_margins_that_are_none(text: str) -> None:
    with pytest.raises(UnnoiseError, match="margins"):
        margins(text)
