from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.autoencoder import Autoencoder, Posterior
from unnoise.core.registry import register
from unnoise.core.space import Space
from unnoise.pictures import from_bytes


@dataclass(frozen=True)
class FoldedConfig:
    """The shape of a folding.

    Attributes:
        stride: pixels along one axis that become one cell.
    """

    stride: int = 8

    @classmethod
    def tiny(cls) -> FoldedConfig:
        """The shape that tests use: there is nothing to make smaller."""
        return cls()


@register("folded", "pixels")
class Folded(Autoencoder):
    """Pixel space: no network, 8 x 8 pixels folded into the channels of a cell; 128 x 128 x 3 becomes 16 x 16 x 192.

    What a vision transformer does with large patches of pixels, and how Li and He 2025 (arXiv 2511.13720) diffuse
    without an autoencoder. Nothing is learnt and nothing is lost: a permutation of the numbers, less a mean for each
    colour and over one scale for all of them, so that states have about zero mean and unit variance as latents have.
    Noise that is white in the cells is therefore white in the picture.

    Mean and scale are weights that no training changes; ``measure`` sets them.
    """

    Config = FoldedConfig
    spread: ClassVar[bool] = False
    exact: ClassVar[bool] = True

    def __init__(self, config: FoldedConfig | None = None) -> None:
        super().__init__()
        self.config = config or FoldedConfig()
        if self.config.stride < 1:
            raise ValueError(f"{self.config.stride} pixels cannot be folded")
        self.space = Space(3 * self.config.stride**2, dims=2, stride=self.config.stride)
        self.latent_mean = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.latent_std = nn.Parameter(torch.ones(()), requires_grad=False)

    @torch.no_grad()
    def measure(self, pixels: Tensor) -> Folded:
        """Takes mean and scale from uint8 pictures (N, 3, H, W); returns itself.

        Both are rounded to bfloat16, which model folders keep weights in: the space that is trained in is then, to the
        last bit, the one that is drawn in.
        """
        total, square, count = torch.zeros(3).double(), torch.zeros(3).double(), 0
        for rows in torch.split(pixels, 64):
            x = from_bytes(rows).double()
            total, square = total + x.sum((0, 2, 3)), square + x.square().sum((0, 2, 3))
            count += x[:, 0].numel()
        mean = total / count
        self.latent_mean.copy_(mean.bfloat16())
        self.latent_std.copy_((square / count - mean**2).mean().sqrt().bfloat16())
        return self

    def encode(self, x: Tensor) -> Posterior:  # (B, 3, H, W)
        self.check_size(x)
        z = (x - self.latent_mean[:, None, None]) / self.latent_std  # (B, 3, H, W)
        z = F.pixel_unshuffle(z, self.config.stride)  # (B, 3 s s, H/s, W/s)
        return Posterior(z, torch.zeros_like(z))

    def decode(self, z: Tensor) -> Tensor:  # (B, 3 s s, h, w)
        x = F.pixel_shuffle(z, self.config.stride)  # (B, 3, s h, s w)
        return x * self.latent_std + self.latent_mean[:, None, None]
