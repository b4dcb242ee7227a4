"""Film strips and moving pictures: every frame is where it should be, and stays as long as it should."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unnoise.study.film import GAP, MARGIN, gif, strip, table

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (90, 90, 90)]
FRAMES = [Image.new("RGB", (120, 60), colour) for colour in COLOURS]


def test_a_strip_holds_every_frame_and_writes_below() -> None:
    drawn = np.asarray(strip([FRAMES, FRAMES[::-1]], ["a", "b", "c", "d"], ["one", "other"]))
    for place, colour in enumerate(COLOURS):
        for row, wanted in enumerate((colour, COLOURS[::-1][place])):
            top, left = GAP + MARGIN + row * (60 + GAP + MARGIN), GAP + place * (120 + GAP)
            assert (drawn[top : top + 60, left : left + 120] == wanted).all()
        below = drawn[-MARGIN:, GAP + place * (120 + GAP) : (place + 1) * (120 + GAP)]
        assert below.min() < 128, "a caption"


def test_captions_wider_than_the_frames_do_not_meet() -> None:
    drawn = strip([[Image.new("RGB", (8, 8), "red")] * 2], ["a long caption"] * 2)
    assert drawn.width > 2 * 60
    marks = (np.asarray(drawn)[-MARGIN:].min(axis=(0, 2)) < 128).nonzero()[0]
    assert np.diff(marks).max() >= GAP


def test_a_gif_shows_each_frame_for_its_time() -> None:
    with Image.open(io.BytesIO(gif(FRAMES, 50, 700))) as film:
        assert film.n_frames == 4
        assert film.info["loop"] == 0
        for number, colour in enumerate(COLOURS):
            film.seek(number)
            assert film.info["duration"] == (700 if number == 3 else 50)
            assert abs(np.asarray(film.convert("RGB"), dtype=int) - colour).max() <= 3


@pytest.mark.parametrize("labels", [(("a", "b"), ("first", "second")), ((), ())])
def test_pictures_of_a_table_lie_whole_in_their_boxes_whatever_their_size(labels: tuple[Any, Any]) -> None:
    sizes = [[(30, 20), (64, 8)], [(8, 40), (96, 16)]]
    colours = [["red", "green"], ["blue", "black"]]
    rows = [
        [Image.new("RGB", size, colour) for size, colour in zip(*each, strict=True)]
        for each in zip(sizes, colours, strict=True)
    ]
    out, boxes = table(rows, *labels)
    places = [
        (image, box) for row, found in zip(rows, boxes, strict=True) for image, box in zip(row, found, strict=True)
    ]
    for image, box in places:
        assert out.crop(box).tobytes() == image.tobytes()
    assert max(right for _, (_, _, right, _) in places) < out.width, "nothing is cut off"
    assert max(below for _, (_, _, _, below) in places) < out.height
