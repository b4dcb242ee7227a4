"""Runs that start from a picture: picture to picture, and drawing a part of it anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from unnoise.core import checks
from unnoise.core.autoencoder import Autoencoder
from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.spacing import Spacing
from unnoise.data.square import on_white
from unnoise.engine import masks
from unnoise.engine.request import RULES, USUAL, WEAKEST, Request
from unnoise.errors import UnnoiseError
from unnoise.kernels.forked import check_threads
from unnoise.pictures import from_bytes, from_image


class Start(NamedTuple):
    """What a run starts from in place of pure noise.

    Attributes:
        x0: (1 or B, C, h, w) latents of the picture.
        strength: how much of the way to noise it is taken, above 0 (nothing changes) to 1 (from the noisiest level).
        mask: (1 or B, 1, h, w) in [0, 1]: 1 where a cell is drawn anew, 0 where it stays; None draws all anew.
        state: (1 or B, C, h, w) where the run begins, found by inversion; None noises x0.
        pixels: (1 or B, 3, H, W) uint8, the picture itself; None where nothing of it is put back.
        share: (1 or B, 1, H, W) in [0, 1], of what is drawn in each pixel; where it is 0 the picture's own pixel stays.
        hidden: (1 or B, C, h, w) latents of the picture with what is drawn anew in grey, for networks that read it.
    """

    x0: Tensor
    strength: float = USUAL
    mask: Tensor | None = None
    state: Tensor | None = None
    pixels: Tensor | None = None
    share: Tensor | None = None
    hidden: Tensor | None = None

    def put_back(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) decoded pictures in [-1, 1] with the pixels that stay in them.

        These are the start's own to the last bit once they are bytes, whatever was decoded there.
        """
        if self.pixels is None or self.share is None:
            return pictures
        share = self.share[: len(pictures)].to(pictures.device)
        own = from_bytes(self.pixels[: len(pictures)].to(pictures.device))
        mixed = share * pictures.float().clamp(-1, 1) + (1 - share) * own
        return torch.where(share > 0, mixed, own)


def begin(
    autoencoder: Autoencoder,
    picture: Image.Image,
    size: tuple[int, int],
    strength: float,
    mask: Image.Image | None = None,
    rules: int = RULES,
    hide: bool = False,
) -> Start:
    """What a run starts from: a picture of any size and mode, turned upright, cut to shape and scaled.

    Args:
        autoencoder: of the model.
        picture: what is clear in it becomes white.
        size: (width, height) of what is drawn.
        strength: how much of the way to noise it is taken.
        mask: as large as the picture; what it selects is drawn anew, see ``masks.selection``, the rest stays.
        rules: the version of the drawing rules; by the first the autoencoder draws what stays, too.
        hide: also encode the picture without what the mask selects, as networks for inpainting read it.

    Raises:
        UnnoiseError: no picture, a strength out of range, or a mask that is of another size or selects nothing.
    """
    strength = checks.number("strength", strength, WEAKEST, 1)
    picture = on_white(masks.whole("picture", picture))
    mask = None if mask is None else of_size(masks.whole("mask", mask), picture)
    weights = next(autoencoder.parameters(), torch.zeros(()))
    check_threads(weights.device)
    pixels = from_image(ImageOps.fit(picture, size))[None].to(weights.device)
    x0 = autoencoder.encode(from_bytes(pixels).to(weights.dtype)).mean.float()
    if mask is None:
        return Start(x0, strength)
    if rules < 2:
        return Start(x0, strength, cells(masks.old_light(mask, size).to(x0.device), x0.shape[-2:]))
    area = masks.drawn_anew(mask, size).to(x0.device)
    anew = cells(area.float(), x0.shape[-2:])
    hidden = autoencoder.encode(from_bytes(pixels).to(weights.dtype) * ~area).mean.float() if hide else None
    return Start(x0, strength, anew, pixels=pixels, share=masks.feathered(area), hidden=hidden)


def of_size(mask: Image.Image, picture: Image.Image) -> Image.Image:
    """The mask, if it is as large as the picture.

    Raises:
        UnnoiseError: it is not.
    """
    if mask.size != picture.size:
        raise UnnoiseError(f"the mask is {mask.size}, the picture {picture.size}", "make the mask as large as it")
    return mask


def check_sources(request: Request, sources: Mapping[str, Image.Image]) -> bool:
    """Whether a mask keeps nothing of the picture that a request starts from.

    Raises:
        UnnoiseError: a picture that the request starts from was not handed over, or its mask cannot be used.
    """
    for name in ("start", "mask"):
        if (key := getattr(request, name)) is not None and key not in sources:
            raise UnnoiseError(f"the request's {name} picture is not here", "hand it over among the sources")
    if request.mask is None or request.start is None or request.size is None:
        return False
    mask = of_size(sources[request.mask], sources[request.start])
    if request.rules < 2:
        return False
    return bool(masks.drawn_anew(mask, request.size).all())


def levels_from(spacing: Spacing, path: Path, steps: int, strength: float, shape: Sequence[int]) -> list[NoiseLevel]:
    """The last ``steps`` + 1 levels of a run of steps/strength steps: asked for n steps, n steps are taken.

    SDEdit (Meng et al. 2021, arXiv 2108.01073) starts at a level in between; the levels below it are the spacing's.

    Raises:
        UnnoiseError: the strength is out of range.
    """
    strength = checks.number("strength", strength, WEAKEST, 1)
    return spacing.levels(path, max(steps, round(steps / strength)), shape)[-(steps + 1) :]


class Known(Guidance):
    """Keeps a part of the picture: wherever the mask is 0, x0 is known, and the rest is drawn to go with it.

    Replacement (Song et al. 2021, arXiv 2011.13456, appendix I.2; Lugmayr et al. 2022, arXiv 2201.09865, equation 8)
    as an estimate: the state keeps its noise and its halves stay consistent, so that every solver can use it. It
    is an approximation: what is known is seen through noise, so that the rest is drawn to fit a blurred idea of it.
    The solver ``repaint`` mends that by going back and forth.

    Args:
        inner: the guidance of the run.
        x0: what is known.
        mask: 1 where it is not; see ``Start``.
    """

    def __init__(self, inner: Guidance, x0: Tensor, mask: Tensor) -> None:
        self.inner, self.x0, self.mask = inner, x0, mask

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return self.inner.asks(conds, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        e, memory = self.inner.combine(parts, x, here, memory)
        keep = 1 - self.mask.to(x)
        x0 = e.x0 + keep * (self.x0.to(x) - e.x0)
        if here.sigma == 0:
            return Estimate(x0, e.eps), memory
        eps = (x - float(here.alpha) * self.x0.to(x)) / float(here.sigma)
        return Estimate(x0, e.eps + keep * (eps - e.eps)), memory


def cells(mask: Tensor, size: Sequence[int]) -> Tensor:
    """(B, 1, h, w): 1 for each latent cell under which any pixel of the (B, 1, H, W) mask is set."""
    return F.adaptive_max_pool2d((mask > 0.5).float(), tuple(size))
