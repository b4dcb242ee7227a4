"""Masks: which pixels of a picture are drawn anew, and how what is drawn meets what stays."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from unnoise.core import checks
from unnoise.data.square import on_white, rgb, upright
from unnoise.errors import UnnoiseError
from unnoise.pictures import from_image, pixels_sha256

FEATHER = 3  # pixels inside of the mask over which what is drawn fades in
PAINTED = 32  # of 255: alphas that differ by less say nothing
DARK, LIGHT = 64, 192  # of 255: a mask with both of them, and without colours, is one in black and white
HOW = "paint what is to be drawn anew in white on black, or in any colour on a clear layer"


def whole(name: str, image: Image.Image) -> Image.Image:
    """A picture that was handed over in Python: upright, and decoded.

    Raises:
        UnnoiseError: it is none, or its file is damaged.
    """
    checks.instance(name, image, Image.Image, "open it with PIL.Image.open()")
    try:
        return upright(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise UnnoiseError(f"the {name} cannot be read: {error}", "save it again") from None


def selection(mask: Image.Image) -> np.ndarray:
    """(H, W) bool: the pixels that a mask of any mode selects to be drawn anew.

    Where its alpha varies, what is painted is drawn anew, in any colour; but if it is painted in black and white
    without colours, light decides. Where its alpha is the same everywhere, light decides: a pixel is drawn anew if the
    strongest of its channels is above the middle. The value of white is 1, 255 or 65535, the first that none exceeds.
    """
    values, alpha = _channels(upright(mask))
    strongest = values.max(-1)
    light: np.ndarray = strongest > _top(strongest) / 2
    alpha = alpha * (255 // _top(alpha)) if _top(alpha) == 1 else alpha
    low, high = int(alpha.min()), int(alpha.max())
    if high - low < PAINTED:
        return light
    painted: np.ndarray = alpha > (low + high) / 2
    colours = values[painted]
    grey = int((colours.max(-1) - colours.min(-1)).max()) < PAINTED
    if grey and int(colours.min()) < DARK and int(colours.max()) >= LIGHT:
        painted &= light
    return painted


def _channels(mask: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 1 or 3) values of light, at least 0, and (H, W) alpha, 0 to 255."""
    if mask.mode == "F" or mask.mode.startswith("I"):
        values = np.nan_to_num(np.asarray(mask)).clip(0)
        clear = mask.info.get("transparency", -1)
        return values[..., None], np.where(values == clear, np.uint8(0), np.uint8(255))
    whole = np.asarray(rgb(mask).convert("RGBA"))
    return whole[..., :3], whole[..., 3]


def _top(values: np.ndarray) -> int:
    """The value that stands for white."""
    return next((top for top in (1, 255, 65535) if values.max() <= top), int(values.max()))


def drawn_anew(mask: Image.Image, size: tuple[int, int]) -> Tensor:
    """(1, 1, height, width) bool: the selection, cut in the middle to the shape of ``size``, (width, height).

    A pixel is set if any that it stands for is.

    Raises:
        UnnoiseError: nothing is.
    """
    whole = selection(mask)
    if not whole.any():
        raise UnnoiseError("the mask selects nothing, so that nothing would be drawn", HOW)
    width, height = mask.size
    sides = (
        (height, height * size[0] / size[1])
        if width * size[1] >= height * size[0]
        else (width * size[1] / size[0], width)
    )
    for axis, (side, cells) in enumerate(zip(sides, reversed(size), strict=True)):
        length = whole.shape[axis]
        edges = (length - side) / 2 + side * np.arange(cells + 1) / cells
        ends = zip(np.floor(edges[:-1] + 1e-6), np.ceil(edges[1:] - 1e-6), strict=True)
        whole = np.stack([whole.take(range(int(low), int(high)), axis).any(axis) for low, high in ends], axis)
    if not whole.any():
        raise UnnoiseError("what the mask selects is cut off: only the middle of the picture is drawn", "paint in it")
    return torch.from_numpy(whole)[None, None]


def feathered(selection: Tensor) -> Tensor:
    """(B, 1, H, W): the share of what is drawn in each pixel, from a selection of that shape.

    0 outside of the selection. Inside it rises with the distance from what stays, in ``FEATHER`` steps, to 1; the
    middle of what is narrower than that is 1 too.
    """
    inside = selection.float()
    depth, inner = inside.clone(), inside
    for _ in range(FEATHER):
        inner = -F.max_pool2d(-inner, 3, 1, 1)  # beyond the border of the picture nothing stays
        depth += inner
    deepest = depth.clone()
    for _ in range(FEATHER):
        deepest = F.max_pool2d(deepest, 3, 1, 1) * inside
    return depth / deepest.clamp_min(1)


def old_light(mask: Image.Image, size: tuple[int, int]) -> Tensor:
    """(1, 1, height, width) in [0, 1]: a mask as the first rules of drawing read it, by its scaled light alone."""
    return from_image(ImageOps.fit(on_white(mask).convert("L"), size))[None, :1] / 255


def identity(mask: Image.Image, rules: int) -> str:
    """What a record keeps of a mask: a hash of what it selects; by the first rules one of its colours on white."""
    return pixels_sha256(on_white(mask) if rules < 2 else Image.fromarray(selection(mask)))
