"""Which near duplicates are found, and which different drawings are taken for one.

    python bench/duplicates.py data/emoji cifar10-train.tar

Prints the tables of docs/data.md. Copies are made of every fifteenth picture of the set, of the first 250 photographs
of the folder or tar, and of drawings that are made here; each is compared with its original. Then each kind is grouped.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

from unnoise.data import duplicates
from unnoise.data.duplicates import near_groups, thumbnail
from unnoise.data.folder import source_of
from unnoise.data.intake import Quarantine
from unnoise.data.square import Squarer
from unnoise.data.store import open_set

Picture = Image.Image
Draw = Callable[[ImageDraw.ImageDraw, np.random.Generator, int], None]
LARGE, SIZE = 512, 128
WORDS = "the of and to in is you that it he was for on are as with his they at be this have from or".split()  # noqa: SIM905
SMOOTH, FLIP = Image.Resampling.LANCZOS, Image.Transpose.FLIP_LEFT_RIGHT


def packed(picture: Picture, kind: str, quality: int) -> Picture:
    """Compressed and read again."""
    data = io.BytesIO()
    picture.save(data, kind, quality=quality)
    return Image.open(data).convert("RGB")


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "JPEG 90": lambda picture: packed(picture, "JPEG", 90),
    "JPEG 60": lambda picture: packed(picture, "JPEG", 60),
    "JPEG 30": lambda picture: packed(picture, "JPEG", 30),
    "WebP 50": lambda picture: packed(picture, "WEBP", 50),
    "half, back": lambda picture: picture.resize((SIZE // 2,) * 2, SMOOTH).resize((SIZE,) * 2, SMOOTH),
    "mirrored": lambda picture: picture.transpose(FLIP),
    "1 % darker": lambda picture: picture.point(lambda v: v * 99 // 100),
    "cut by 1": lambda picture: picture.resize((SIZE,) * 2, SMOOTH, box=(1, 1, SIZE - 1, SIZE - 1)),
}


def icon(pen: ImageDraw.ImageDraw, rng: np.random.Generator, number: int) -> None:
    """Two to four thin shapes."""
    for _ in range(rng.integers(2, 5)):
        (left, right), (top, bottom) = np.sort(rng.integers(60, 440, (2, 2))).tolist()
        kind, box = rng.integers(3), (left, top, right + 8, bottom + 8)
        if kind == 0:
            pen.line(box, fill="black", width=4)
        else:
            (pen.ellipse if kind == 1 else pen.rectangle)(box, outline="black", width=4)


def framed(pen: ImageDraw.ImageDraw, rng: np.random.Generator, number: int) -> None:
    """The same in a round frame."""
    pen.ellipse((20, 20, 492, 492), outline="black", width=4)
    icon(pen, rng, number)


def page(pen: ImageDraw.ImageDraw, rng: np.random.Generator, number: int, size: int = 12) -> None:
    """Print."""
    for top in range(40, 470, size + 8):
        pen.text((40, top), " ".join(rng.choice(WORDS, 9)), fill="black", font=ImageFont.load_default(size))


def mark(pen: ImageDraw.ImageDraw, rng: np.random.Generator, number: int) -> None:
    """A small mark in any place and colour."""
    (x, y), (width, height) = rng.integers(60, 400, 2).tolist(), rng.integers(16, 40, 2).tolist()
    box, colour = (x, y, x + width, y + height), tuple(rng.integers(0, 256, 3).tolist())
    (pen.ellipse if number % 2 else pen.rectangle)(box, fill=colour)


def dot(pen: ImageDraw.ImageDraw, rng: np.random.Generator, number: int) -> None:
    """A black dot."""
    x, y = rng.integers(40, 460, 2).tolist()
    pen.ellipse((x, y, x + 10, y + 10), fill="black")


def letters(pen: ImageDraw.ImageDraw, rng: np.random.Generator, number: int) -> None:
    """Two letters in the middle, pairs of which share one."""
    pen.text((230, 230), chr(65 + number % 26) + chr(97 + number // 26), fill="black", font=ImageFont.load_default(48))


def digits(pen: ImageDraw.ImageDraw, rng: np.random.Generator, number: int) -> None:
    """A pale number."""
    pen.text((150, 150), f"{number:03}", fill="#c8c8c8", font=ImageFont.load_default(120))


KINDS: dict[str, Draw] = {
    "line drawings": icon,
    "the same, framed": framed,
    "pages of print": page,
    "small marks": mark,
    "small dots": dot,
    "pairs of letters": letters,
    "pale numbers": digits,
}


def drawn(draw: Draw, count: int) -> list[Picture]:
    """Drawings on white, made large and brought to size."""
    rng, made = np.random.default_rng(0), []
    for number in range(count):
        image = Image.new("RGB", (LARGE, LARGE), "white")
        draw(ImageDraw.Draw(image), rng, number)
        made.append(image.resize((SIZE, SIZE), SMOOTH))
    return made


def main(pictures: tyro.conf.Positional[Path], photographs: tyro.conf.Positional[Path], count: int = 120) -> None:
    """Prints both tables."""
    whole = open_set(pictures).pictures()
    kinds = {"emoji": [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in whole[::15]]}
    items, square = source_of(photographs, Quarantine())[0].items, Squarer(SIZE)
    kinds["photographs"] = [square(item.data).picture for item in islice(items, 250)]
    kinds |= {name: drawn(draw, count) for name, draw in KINDS.items()}
    thumbs = {name: [thumbnail(picture) for picture in made] for name, made in kinds.items()}
    print("| copies found | " + " | ".join(CHANGES) + " |\n|---" * 1 + "|---" * len(CHANGES) + "|")
    for name, made in kinds.items():
        found = []
        for change in CHANGES.values():
            pairs = zip(thumbs[name], [thumbnail(change(picture)) for picture in made], strict=True)
            found.append(f"{np.mean([near_groups(pair) == [0, 0] for pair in pairs]):.0%}")
        print(f"| {name} | " + " | ".join(found) + " |", flush=True)
    part = duplicates.PART
    for name, each in thumbs.items():
        sizes = []
        for duplicates.PART in (part, 1e3):
            sizes.append(Counter(near_groups(each)))
        told = [f"{len(found)} groups, the largest of {max(found.values())}" for found in sizes]
        print(f"| {len(each)} {name} | {told[0]} | {told[1]} |")


if __name__ == "__main__":
    tyro.cli(main)
