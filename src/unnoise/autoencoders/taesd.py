from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unnoise.core.autoencoder import Autoencoder, Posterior
from unnoise.core.registry import register
from unnoise.core.space import Space
from unnoise.errors import UnnoiseError


@dataclass(frozen=True)
class TAESDConfig:
    """The shape of a tiny autoencoder; what stands here is that of TAESD.

    Attributes:
        latent_channels: of the latent.
        width: channels of all layers within.
        encoder: blocks of each level, that of full size first; each is half as large as the one before. () for none.
        decoder: blocks of each level, the smallest first; () for none.
        pooled: whether the blocks of the smallest level have a normed branch, as TAEF2's.
    """

    latent_channels: int = 4
    width: int = 64
    encoder: tuple[int, ...] = (1, 3, 3, 3)
    decoder: tuple[int, ...] = (3, 3, 3, 1)
    pooled: bool = False

    @classmethod
    def tiny(cls) -> TAESDConfig:
        """The shape that tests use: as few numbers as have all parts."""
        return cls(width=4, encoder=(1, 1, 1, 1), decoder=(1, 1, 1, 1), pooled=True)


class Clamp(nn.Module):
    """Bends what is larger than about 3 back to it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    """Three 3 x 3 convolutions beside the identity; where it is pooled, a normed branch of 1 x 1 ones before them."""

    def __init__(self, width: int, pooled: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        wide = 4 * width
        self.pool = (
            nn.Sequential(
                nn.Conv2d(width, wide, 1, bias=False),
                nn.GroupNorm(4, wide),
                nn.ReLU(),
                nn.Conv2d(wide, width, 1, bias=False),
            )
            if pooled
            else None
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w)
        if self.pool is not None:
            x = x + self.pool(x)  # (B, C, h, w)
        return torch.relu(self.conv(x) + x)


def encoder_layers(config: TAESDConfig) -> Iterator[str]:
    """The kinds of the encoder's layers in order, as TAESD's files count them: "enter", "shrink", "block", "pooled",
    "leave"."""
    last = len(config.encoder) - 1
    for level, blocks in enumerate(config.encoder):
        yield "shrink" if level else "enter"
        yield from ["pooled" if config.pooled and level == last else "block"] * blocks
    yield "leave"


def decoder_layers(config: TAESDConfig) -> Iterator[str]:
    """The kinds of the decoder's layers in order: "clamp", "enter", "relu", "block", "pooled", "double", "grow",
    "leave"."""
    yield from ("clamp", "enter", "relu")
    for level, blocks in enumerate(config.decoder):
        if level:
            yield from ("double", "grow")
        yield from ["pooled" if config.pooled and level == 0 else "block"] * blocks
    yield "leave"


def layer(kind: str, width: int, before: int, after: int) -> nn.Module:
    """A layer of a half that takes ``before`` channels and gives ``after``."""
    if kind in ("clamp", "relu"):
        return Clamp() if kind == "clamp" else nn.ReLU()
    if kind in ("block", "pooled"):
        return Block(width, kind == "pooled")
    if kind == "double":
        return nn.Upsample(scale_factor=2)
    if kind in ("shrink", "grow"):
        return nn.Conv2d(width, width, 3, padding=1, stride=2 if kind == "shrink" else 1, bias=False)
    return nn.Conv2d(before, width, 3, padding=1) if kind == "enter" else nn.Conv2d(width, after, 3, padding=1)


@register("taesd", "tiny-autoencoder")
class TinyAutoencoder(Autoencoder):
    """TAESD: a tiny autoencoder that reads and writes another's latents, in a fraction of its time; 8x down.

    Bohan's TAESD and its kin (TAESDXL, TAESD3, TAEF1, TAEF2), which he distilled from the autoencoders of published
    models. Latents are those that the model's denoiser sees: scale and shift are in the weights. They are points: a
    posterior has no spread. Either half may be missing.
    """

    Config = TAESDConfig
    spread: ClassVar[bool] = False

    def __init__(self, config: TAESDConfig | None = None) -> None:
        super().__init__()
        c = self.config = config or TAESDConfig()
        levels = {len(half) for half in (c.encoder, c.decoder) if half}
        if len(levels) != 1:
            raise UnnoiseError("the halves of a tiny autoencoder have different levels, or there is none", "give one")
        self.space = Space(c.latent_channels, dims=2, stride=2 ** (levels.pop() - 1))
        encoder = [layer(kind, c.width, 3, c.latent_channels) for kind in encoder_layers(c)] if c.encoder else []
        decoder = [layer(kind, c.width, c.latent_channels, 3) for kind in decoder_layers(c)] if c.decoder else []
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*decoder)
        # input and output layers, which Muon is not for
        self.edges = ("encoder.0.", f"encoder.{len(encoder) - 1}.", "decoder.1.", f"decoder.{len(decoder) - 1}.")

    def encode(self, x: Tensor) -> Posterior:  # (B, 3, H, W)
        if not self.config.encoder:
            raise UnnoiseError("this tiny autoencoder has a decoder alone", "name one with an encoder")
        self.check_size(x)
        mean = self.encoder((x + 1) / 2)  # (B, C, H/8, W/8)
        return Posterior(mean, torch.zeros_like(mean))

    def decode(self, z: Tensor) -> Tensor:  # (B, C, h, w)
        if not self.config.decoder:
            raise UnnoiseError("this tiny autoencoder has an encoder alone", "name one with a decoder")
        x: Tensor = self.decoder(z) * 2 - 1  # (B, 3, 8h, 8w)
        return x
