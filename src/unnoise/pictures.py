"""Tensors and pictures."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unnoise.errors import UnnoiseError


def to_bytes(x: Tensor) -> Tensor:
    """uint8 pictures from floats in about [-1, 1], clipped and rounded; any shape.

    Raises:
        UnnoiseError: a number of them is infinite or NaN, as damaged weights make them.
    """
    x = x.float()
    if not math.isfinite(x.sum()) and not torch.isfinite(x).all():
        hint = "verify the model with `unnoise inspect MODEL --verify`, or draw with --dtype float32"
        raise UnnoiseError("a picture has numbers that are not finite", hint)
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_bytes(pictures: Tensor) -> Tensor:
    """Floats in [-1, 1] from uint8 pictures; any shape."""
    return pictures.float() / 127.5 - 1


def to_images(pictures: Tensor) -> list[Image.Image]:
    """RGB images from (N, 3, H, W) uint8."""
    return [Image.fromarray(p.permute(1, 2, 0).contiguous().cpu().numpy()) for p in pictures]


def from_image(image: Image.Image) -> Tensor:
    """(3, H, W) uint8 from an RGB image."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def pixels_sha256(image: Image.Image) -> str:
    """SHA-256 (hex) of an RGB image's size and pixels, independent of the file format."""
    return hashlib.sha256(f"{image.width} x {image.height} ".encode() + image.convert("RGB").tobytes()).hexdigest()


def sheet(pictures: Tensor | Sequence[Image.Image], columns: int | None = None, gap: int = 4) -> Image.Image:
    """A contact sheet on white, filled row by row; about square unless ``columns`` is set."""
    images = to_images(pictures) if isinstance(pictures, Tensor) else list(pictures)
    columns = columns or max(1, math.ceil(math.sqrt(len(images))))
    rows = math.ceil(len(images) / columns)
    width, height = images[0].size
    out = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        out.paste(image, (gap + column * (width + gap), gap + row * (height + gap)))
    return out
