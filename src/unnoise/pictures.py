"""Tensors and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unnoise.errors import UnnoiseError

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 2**27


def open_picture(path: Path) -> Image.Image:
    """The picture of a PNG, JPEG or WebP file in RGB, turned as its camera says; what is clear becomes white.

    Raises:
        UnnoiseError: no such file, another format, damaged, or of more than 2^27 pixels.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:  # known from the header, before anything is decoded
                raise UnnoiseError(f"{path} has {file.width} x {file.height} pixels", "make it smaller first")
            image = ImageOps.exif_transpose(file)
            if image.mode in ("RGBA", "LA", "PA", "P"):
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except FileNotFoundError:
        raise UnnoiseError(f"there is no picture at {path}", "name a PNG, JPEG or WebP file") from None
    except UnidentifiedImageError:
        raise UnnoiseError(f"{path} is no PNG, JPEG or WebP picture", "convert it first") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnnoiseError(f"{path} cannot be read: {error}", "copy it again, or convert it") from None


def to_bytes(x: Tensor) -> Tensor:
    """uint8 pictures from floats in about [-1, 1], clipped and rounded; any shape."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_bytes(pictures: Tensor) -> Tensor:
    """Floats in [-1, 1] from uint8 pictures; any shape."""
    return pictures.float() / 127.5 - 1


def to_images(pictures: Tensor) -> list[Image.Image]:
    """RGB images from (N, 3, H, W) uint8."""
    return [Image.fromarray(p.permute(1, 2, 0).contiguous().cpu().numpy()) for p in pictures]


def from_image(image: Image.Image) -> Tensor:
    """(3, H, W) uint8 from an RGB image."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def sheet(pictures: Tensor | Sequence[Image.Image], columns: int | None = None, gap: int = 4) -> Image.Image:
    """A contact sheet on white, filled row by row; about square unless ``columns`` is given."""
    images = to_images(pictures) if isinstance(pictures, Tensor) else list(pictures)
    columns = columns or max(1, math.ceil(math.sqrt(len(images))))
    rows = math.ceil(len(images) / columns)
    width, height = images[0].size
    out = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        out.paste(image, (gap + column * (width + gap), gap + row * (height + gap)))
    return out
