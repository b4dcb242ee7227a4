"""Finds the training pictures nearest to a picture, by outlines first and colours second.

The search shows whether a picture is new. A distance between pixels would miss a copy that was moved by a few pixels
or painted in another colour, so features are computed in three steps:

1. it is centred: moved and scaled, without distortion, until the centre and the spread of its edges are those of all
   others (moments, Hu 1962, doi 10.1109/TIT.1962.1057692), so that neither place nor size counts;
2. its outlines: histograms of oriented gradients in 8 x 8 cells (Dalal and Triggs 2005, doi 10.1109/CVPR.2005.177),
   with their bilinear votes, their strongest colour channel and their clipped block norm; one block of 3 x 3 cells
   around each cell, so that each cell is counted once. They ignore which colour is on which side of an edge;
3. its colours: means over 4 x 4 tiles, with so small a weight that they only decide between equal outlines, such as
   the five skin tones of one person.

A picture is compared as it is and mirrored. Everything is computed from pixels, without a network: the index belongs
to a picture set, is valid for every model trained on it, and does not share a model's blind spots.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.nn import functional as F

from unnoise.data.store import PictureSet
from unnoise.errors import UnnoiseError
from unnoise.files import expanded, json_bytes, new_folder, save_tensors, sha256
from unnoise.pictures import from_image, to_images
from unnoise.study.film import strip

FORMAT = 1
SIDE, CELLS, ANGLES, TILES, MARGIN = 64, 8, 8, 4, 8
CLIP = 0.4  # of a block's length, the most for one direction; Dalal and Triggs have 0.2 for blocks of 4 cells of 9
COLOUR = 0.12  # weight of colours against outlines, both root mean squares
SPREAD = 0.5  # standard deviation of a centred picture's edges, of half its side
INDEX, FEATURES, PICTURES, NOTICE = "index.json", "features.safetensors", "pictures.webp", "NOTICE"


def slopes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(dx, dy, length), each (N, h, w): the gradient of the channel where it is longest; 0 at the border."""
    dx = F.pad(x[..., 1:-1, 2:] - x[..., 1:-1, :-2], (1, 1, 1, 1))  # (N, 3, h, w)
    dy = F.pad(x[..., 2:, 1:-1] - x[..., :-2, 1:-1], (1, 1, 1, 1))
    length = (dx.square() + dy.square()).sqrt()
    best = length.argmax(1, keepdim=True)
    return tuple(each.gather(1, best)[:, 0] for each in (dx, dy, length))  # type: ignore[return-value]


def centred(x: Tensor) -> Tensor:
    """(N, 3, 64, 64) in [0, 1], moved and scaled so that the edges' centre is the middle and their spread ``SPREAD``.

    A margin in the background colour is added first, so that things at the border have an edge there too.
    """
    border = torch.cat([x[..., 0, :], x[..., -1, :], x[..., 0], x[..., -1]], 2)  # (N, 3, 4 * 64)
    ground = border.median(2).values[:, :, None, None]  # (N, 3, 1, 1)
    x = F.pad(x - ground, (MARGIN,) * 4) + ground  # (N, 3, h, w)
    mass = slopes(x)[2].square() + 1e-6  # (N, h, w); a blank picture stays where it is
    at = torch.linspace(-1, 1, x.shape[-1])
    total = mass.sum((1, 2))
    across, down = mass.sum(1) / total[:, None], mass.sum(2) / total[:, None]  # (N, w), (N, h)
    cx, cy = across @ at, down @ at
    variance = (across @ at.square() - cx.square() + down @ at.square() - cy.square()) / 2
    scale = (variance.sqrt() / SPREAD).clamp(0.1, 2)  # (N,)
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, 0, 2], theta[:, 1, 2] = cx, cy
    grid = F.affine_grid(theta, [len(x), 3, SIDE, SIDE], align_corners=True)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=True)


def outlines(x: Tensor) -> Tensor:
    """(N, 8 * 8 * 8) in [0, ``CLIP``]: the amount of edge in each of eight directions, in each of 8 x 8 cells."""
    dx, dy, length = slopes(x)
    angle = torch.atan2(dy, dx).remainder(math.pi) / math.pi * ANGLES  # (N, h, w) in [0, 8]: without a sign
    below = angle.floor()
    votes = torch.zeros(len(x), ANGLES, SIDE, SIDE)
    for direction, share in ((below, 1 - angle + below), (below + 1, angle - below)):
        votes.scatter_add_(1, direction.long().remainder(ANGLES)[:, None], (length * share)[:, None])
    cell = SIDE // CELLS
    hat = 1 - (torch.arange(2 * cell) + 0.5 - cell).abs() / cell  # a vote is shared with the next cells
    kernel = (hat[:, None] * hat).expand(ANGLES, 1, 2 * cell, 2 * cell)
    cells = F.conv2d(F.pad(votes, (cell // 2,) * 4), kernel, stride=cell, groups=ANGLES)  # (N, 8, 8, 8)
    block = F.avg_pool2d(cells.square().sum(1, keepdim=True), 3, 1, 1) * 9
    return (cells / (block + 1.0).sqrt()).clamp(max=CLIP).flatten(1)  # + 1: grain on a plain ground is no edge


@torch.inference_mode()
def describe(pixels: Tensor) -> Tensor:
    """(N, 560) uint8 features of pictures: 512 of outlines, 48 of colours.

    Args:
        pixels: (N, 3, H, W) uint8, of any size.
    """
    rows = []
    for part in torch.split(pixels, 256):
        x = centred(F.interpolate(part.float() / 255, size=(SIDE, SIDE), mode="area"))
        colours = F.adaptive_avg_pool2d(x, TILES).flatten(1)
        rows.append((torch.cat([outlines(x) / CLIP, colours], 1) * 255).round().to(torch.uint8))
    return torch.cat(rows)


def weighted(descriptions: Tensor) -> Tensor:
    """(N, 560) float32, scaled so that the Euclidean distance is the distance of the search."""
    shapes = CELLS**2 * ANGLES
    x = descriptions.float() / 255
    x[:, :shapes] *= CLIP / shapes**0.5
    x[:, shapes:] *= COLOUR / (x.shape[1] - shapes) ** 0.5
    return x


class Match(NamedTuple):
    """A training picture and its distance: 0 is equal, 1 the median distance to the nearest of another family.

    Attributes:
        row: in the index.
        caption: its first caption; "" if it has none.
        mirrored: whether it is near as its mirror image.
    """

    row: int
    distance: float
    caption: str
    mirrored: bool


@dataclass(frozen=True)
class Index:
    """All data to find training pictures, and to show them.

    Attributes:
        features: (N, 560) uint8, from ``describe``.
        unit: the distance that counts as 1, between features scaled by ``weighted``.
        captions: the first caption of each picture.
        sheet: all pictures at 64 x 64, row by row, ``columns`` in a row.
        pictures_sha256: of the picture set.
    """

    features: Tensor
    unit: float
    captions: Sequence[str]
    sheet: Image.Image
    columns: int
    pictures_sha256: str

    def __len__(self) -> int:
        return len(self.captions)

    @cached_property
    def _weighted(self) -> Tensor:
        return weighted(self.features)

    def search(self, pixels: Tensor, count: int = 3) -> list[list[Match]]:
        """For each picture the nearest training pictures, the nearest first.

        Args:
            pixels: (N, 3, H, W) uint8, of any size.
            count: how many, at least 1.
        """
        exact = "donot_use_mm_for_euclid_dist"  # the fast form has no correct digits for equal pictures
        ways = [
            torch.cdist(weighted(describe(each)), self._weighted, compute_mode=exact)
            for each in (pixels, pixels.flip(-1))
        ]
        distance, way = torch.stack(ways).min(0)  # (N, M)
        best = (distance / self.unit).topk(min(count, len(self)), largest=False)
        return [
            [Match(row, far, self.captions[row], bool(way[number, row])) for row, far in zip(rows, fars, strict=True)]
            for number, (rows, fars) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        ]

    def search_image(self, image: Image.Image, count: int = 3) -> list[Match]:
        """The same for one RGB picture, made ``square``."""
        return self.search(from_image(square(image))[None], count)[0]

    def picture(self, row: int) -> Image.Image:
        """A training picture, 64 x 64."""
        down, across = divmod(row, self.columns)
        return self.sheet.crop((across * SIDE, down * SIDE, (across + 1) * SIDE, (down + 1) * SIDE))


def one(features: Tensor, families: Sequence[str]) -> float:
    """The median distance of a picture to the nearest of another family; 1 if there is only one family."""
    x, numbers = weighted(features), {name: number for number, name in enumerate(dict.fromkeys(families))}
    own = torch.tensor([numbers[name] for name in families])
    rows = [
        torch.cdist(part, x).masked_fill(own[start : start + 256, None] == own, math.inf).amin(1)
        for start, part in ((start, x[start : start + 256]) for start in range(0, len(x), 256))
    ]
    median = float(torch.cat(rows).median())
    return median if 0 < median < math.inf else 1.0


def build(pictures: PictureSet) -> Index:
    """The index of the pictures of a set that train a denoiser.

    Raises:
        UnnoiseError: there are none.
    """
    rows = pictures.select("denoiser")
    if not rows:
        raise UnnoiseError(f"no picture of the set at {pictures.path} is for training", "name another set")
    pixels = pictures.pictures(rows)
    features = describe(pixels)
    columns = math.ceil(len(rows) ** 0.5)
    sheet = Image.new("RGB", (columns * SIDE, -(-len(rows) // columns) * SIDE), "white")
    small = [F.interpolate(part.float(), size=(SIDE, SIDE), mode="area") for part in torch.split(pixels, 256)]
    for place, image in enumerate(to_images(torch.cat(small).round().to(torch.uint8))):
        down, across = divmod(place, columns)
        sheet.paste(image, (across * SIDE, down * SIDE))
    captions = [pictures.captions[row][0] for row in rows]
    unit = one(features, [pictures.family[row] for row in rows])
    return Index(features, unit, captions, sheet, columns, pictures.pictures_sha256)


def save(index: Index, folder: Path, notice: str, quality: int = 75) -> None:
    """Writes an index as a folder of plain files, complete or not at all; an older one is replaced.

    Args:
        notice: copyright and licence of the pictures.
        quality: of the WebP.

    Raises:
        UnnoiseError: the disk is full or cannot be written.
    """
    with new_folder(folder, replace=True) as scratch:
        save_tensors(scratch / FEATURES, {"features": index.features})
        index.sheet.save(scratch / PICTURES, "WEBP", quality=quality, method=6)
        (scratch / NOTICE).write_text(notice, encoding="utf-8")
        record = {
            "format": FORMAT,
            "unit": index.unit,
            "columns": index.columns,
            "pictures_sha256": index.pictures_sha256,
            "files": {name: sha256(scratch / name) for name in (FEATURES, PICTURES)},
            "captions": list(index.captions),
        }
        (scratch / INDEX).write_bytes(json_bytes(record))


def open_index(folder: Path) -> Index:
    """The index in a folder, every file of it verified.

    Raises:
        UnnoiseError: there is none, it is damaged or of a newer format.
    """
    folder = expanded(folder)
    damaged = UnnoiseError(f"the index of training pictures at {folder} is damaged", "install unnoise again")
    if not (folder / INDEX).is_file():
        raise UnnoiseError(f"there is no index of training pictures at {folder}", "name a picture set with --data")
    try:
        record: dict[str, Any] = json.loads((folder / INDEX).read_bytes())
        if record["format"] > FORMAT:
            raise UnnoiseError(f"{folder} has format {record['format']}, this reads up to {FORMAT}", "update unnoise")
        if any(sha256(folder / name) != record["files"][name] for name in (FEATURES, PICTURES)):
            raise damaged
        features = load((folder / FEATURES).read_bytes())["features"]
        with Image.open(folder / PICTURES, formats=["WEBP"]) as file:
            sheet = file.convert("RGB")
        captions, unit, columns = record["captions"], float(record["unit"]), int(record["columns"])
        if len(captions) != len(features) or not unit > 0 or columns * SIDE != sheet.width:
            raise damaged
        return Index(features, unit, captions, sheet, columns, str(record["pictures_sha256"]))
    except (LookupError, OSError, SafetensorError, TypeError, ValueError):
        raise damaged from None


def square(image: Image.Image) -> Image.Image:
    """An RGB picture cropped to the square in the middle, 128 x 128."""
    return ImageOps.fit(image, (2 * SIDE, 2 * SIDE))


def beside(index: Index, image: Image.Image, matches: Sequence[Match]) -> Image.Image:
    """A strip: the picture, and the nearest training pictures with distance and caption below each."""
    pictures = [square(index.picture(match.row)) for match in matches]
    captions = [f"{match.distance:.2f} {match.caption}"[:40] for match in matches]
    return strip([[square(image), *pictures]], ["the picture", *captions])
