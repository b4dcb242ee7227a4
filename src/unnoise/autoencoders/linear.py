from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.autoencoder import Autoencoder, Posterior
from unnoise.core.registry import register
from unnoise.core.space import Space
from unnoise.errors import UnnoiseError

CELLS = 8  # of a latent that is fitted to, along each axis
FITTED, HELD_OUT = 12, 4  # pictures, at least
SCARCE = 4  # cells for each number of a map's column, at least
EDGES = 5  # blots of a picture of flat shapes, along each axis


@dataclass(frozen=True)
class LinearConfig:
    """The shape of a linear map.

    Attributes:
        latent_channels: of the latent.
        stride: pixels along one axis that a cell becomes.
        reach: neighbours of a cell on each side that are read: 1 for 3 x 3 cells.
    """

    latent_channels: int = 4
    stride: int = 8
    reach: int = 1

    @classmethod
    def tiny(cls) -> LinearConfig:
        """The shape that tests use: there is nothing to make smaller."""
        return cls()


@register("linear")
class LinearAutoencoder(Autoencoder):
    """A linear map from a cell and its neighbours to the cell's pixels, fitted to another autoencoder's decoder.

    What previews are made with where no tiny autoencoder is at hand. Others map a cell to one colour, by tables that
    were fitted once for each family; here all pixels of a cell are fitted, and for each decoder, by ``fit``.

    Beyond a picture's borders its outermost cells are repeated. ``encode`` finds, for each cell alone, the latents
    that come nearest to its pixels if all its neighbours are like it: exact for what does not change from cell to cell.
    """

    Config = LinearConfig
    spread: ClassVar[bool] = False

    def __init__(self, config: LinearConfig | None = None) -> None:
        super().__init__()
        c = self.config = config or LinearConfig()
        self.space = Space(c.latent_channels, dims=2, stride=c.stride)
        self.map = nn.Conv2d(c.latent_channels, 3 * c.stride**2, 2 * c.reach + 1)
        self.edges = ("map.",)  # which Muon is not for

    def encode(self, x: Tensor) -> Posterior:  # (B, 3, H, W)
        self.check_size(x)
        pixels = F.pixel_unshuffle(x, self.config.stride).float()  # (B, 3 s s, h, w)
        flat = self.map.weight.float().sum((2, 3))  # (3 s s, C): what a change of all cells does
        off = pixels - self.map.bias.float()[:, None, None]  # type: ignore[union-attr]  # (B, 3 s s, h, w)
        z = torch.einsum("cp, bphw -> bchw", torch.linalg.pinv(flat), off).to(x)  # (B, C, h, w)
        return Posterior(z, torch.zeros_like(z))

    def decode(self, z: Tensor) -> Tensor:  # (B, C, h, w)
        z = F.pad(z, [self.config.reach] * 4, mode="replicate")  # (B, C, h + 2 r, w + 2 r)
        return F.pixel_shuffle(self.map(z), self.config.stride)  # (B, 3, s h, s w)


class Fit(NamedTuple):
    """A linear map and how near it comes to the decoder that it was fitted to, on latents that were held out.

    Attributes:
        decoder: the map, in float32 on the processor.
        psnr: of its pictures from the decoder's, in decibels.
        explained: the share of the variance of the decoder's pixels, about the mean of each in a cell.
    """

    decoder: LinearAutoencoder
    psnr: float
    explained: float


@torch.no_grad()
def fit(autoencoder: Autoencoder, reach: int = 1) -> Fit:
    """The linear map that is nearest, by least squares, to an autoencoder's decoder on latents of random pictures.

    Args:
        autoencoder: the one to come near to; its space has two axes and one stride for both.
        reach: as of ``LinearConfig``.

    Raises:
        UnnoiseError: the autoencoder's latents or pictures are not finite.
    """
    space = autoencoder.space
    stride = space.strides[0]
    config = LinearConfig(space.channels, stride, reach)
    numbers = space.channels * (2 * reach + 1) ** 2 + 1
    count = max(FITTED, math.ceil(SCARCE * numbers / CELLS**2))
    pictures = torch.split(random_pictures(count + HELD_OUT, CELLS * stride), 4)
    pairs = [_decoded(autoencoder, rows) for rows in pictures]
    z, y = (torch.cat(each) for each in zip(*pairs, strict=True))
    decoder = LinearAutoencoder(config).eval().requires_grad_(False)
    solved = torch.linalg.lstsq(columns(z[:count], reach), cells(y[:count], stride), driver="gelsd").solution
    decoder.map.weight.copy_(solved[:-1].mT.reshape(decoder.map.weight.shape))
    decoder.map.bias.copy_(solved[-1])  # type: ignore[union-attr]
    return Fit(decoder, *nearness(decoder, z[count:], y[count:]))


def _decoded(autoencoder: Autoencoder, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """(latents, what the decoder makes of them) of pictures, in float32 on the processor.

    Raises:
        UnnoiseError: they are not finite.
    """
    weights = next(autoencoder.parameters(), pictures)
    z = autoencoder.encode(pictures.to(device=weights.device, dtype=weights.dtype)).mean
    pair = z.float().cpu(), autoencoder.decode(z).float().cpu().clamp(-1, 1)
    if not all(torch.isfinite(each).all() for each in pair):
        raise UnnoiseError("the autoencoder makes numbers that are not finite", "use --dtype float32")
    return pair


def nearness(decoder: Autoencoder, z: Tensor, y: Tensor) -> tuple[float, float]:
    """(PSNR, explained variance) of a decoder's pictures from (B, 3, H, W) in [-1, 1]; see ``Fit``."""
    stride = decoder.space.strides[0]
    targets = cells(y, stride)
    error = (cells(decoder.decode(z).clamp(-1, 1), stride) - targets).square().mean().clamp_min(1e-12)
    spread = (targets - targets.mean(0)).square().mean().clamp_min(1e-12)
    return float(10 * torch.log10(4 / error)), float(1 - error / spread)


def columns(z: Tensor, reach: int) -> Tensor:
    """(cells, C (2 r + 1)^2 + 1) float64: what each cell of (B, C, h, w) latents and its neighbours hold, and 1."""
    near = F.unfold(F.pad(z, [reach] * 4, mode="replicate"), 2 * reach + 1)  # (B, C k k, h w)
    near = torch.cat([near, torch.ones_like(near[:, :1])], dim=1)  # (B, C k k + 1, h w)
    return near.mT.flatten(0, 1).double()


def cells(y: Tensor, stride: int) -> Tensor:
    """(cells, 3 s s) float64: the pixels of each cell of (B, 3, s h, s w) pictures."""
    return F.pixel_unshuffle(y, stride).flatten(2).mT.flatten(0, 1).double()


def random_pictures(count: int, size: int, seed: int = 0) -> Tensor:
    """(count, 3, size, size) pictures in [-1, 1] that share with photographs what a decoder must know of them.

    Smooth noise of all scales, the larger the stronger, as in photographs; colours mostly alike in their brightness;
    all contrasts; every third has hard edges between it and one colour.
    """
    noise = torch.Generator().manual_seed(seed)

    def draw(*shape: int, uniform: bool = False) -> Tensor:
        return (torch.rand if uniform else torch.randn)(*shape, generator=noise)

    def grown(small: Tensor) -> Tensor:
        return F.interpolate(small, (size, size), mode="bicubic")

    pictures = []
    for number in range(count):
        slope = float(0.3 + draw(1, uniform=True))
        x = torch.zeros(1, 3, size, size)
        for octave in range(1, size.bit_length()):
            grey, colours = draw(1, 1, 2**octave, 2**octave), draw(1, 3, 2**octave, 2**octave)
            x += grown(0.6 * (grey + colours)) * 2 ** (-octave * slope)
        x = (x - x.mean()) / x.std() * (0.2 + 0.7 * draw(1, uniform=True)) + 0.4 * draw(1, 3, 1, 1)
        if number % 3 == 2:
            x = torch.where(grown(draw(1, 1, EDGES, EDGES)) > 0, x, 2 * draw(1, 3, 1, 1, uniform=True) - 1)
        pictures.append(x.clamp(-1, 1))
    return torch.cat(pictures)
