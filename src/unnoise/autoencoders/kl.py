from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.autoencoder import Autoencoder, Posterior
from unnoise.core.registry import register
from unnoise.core.space import Space


@dataclass(frozen=True)
class KLConfig:
    """The shape of a KL autoencoder, 8x smaller along each axis.

    Attributes:
        latent_channels: channels of the latent.
        encoder: (channels, blocks) at 1/4 and 1/8 of the picture's size.
        decoder: (channels, blocks) at 1/8, 1/4 and 1/2.
    """

    latent_channels: int = 4
    encoder: tuple[tuple[int, int], ...] = ((96, 2), (192, 2))
    decoder: tuple[tuple[int, int], ...] = ((192, 3), (128, 3), (64, 2))

    @classmethod
    def tiny(cls) -> KLConfig:
        """The shape that tests use: as few numbers as have all parts."""
        return cls(4, ((8, 1), (8, 1)), ((8, 1), (8, 1), (8, 1)))


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity.

    Each cell's channels are divided by their root mean square on the way in: without it the branches of a long
    training grow until they blow up, and a norm over whole pictures would wash out colours. The second convolution
    starts at zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w)
        h: Tensor = x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-4)  # (B, C, h, w)
        h = self.conv2(F.silu(self.conv1(h)))  # (B, C, h, w)
        return x + h


@register("kl", "autoencoder-kl")
class KLAutoencoder(Autoencoder):
    """A KL-regularised convolutional autoencoder, 8x down: 128 x 128 x 3 becomes 16 x 16 x 4, 48 times smaller.

    The role of Stable Diffusion's first stage (Rombach et al. 2022, arXiv 2112.10752, section 3.1), shaped for small
    processors: pixels are folded into channels first, so that no convolution runs at full size.

    The latent's mean and scale, measured on the training pictures, are buffers: latents leave ``encode`` with about
    zero mean and unit variance in each channel.
    """

    Config = KLConfig
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: KLConfig | None = None) -> None:
        super().__init__()
        config = config or KLConfig()
        self.config = config
        self.space = Space(config.latent_channels, dims=2, stride=8)
        (e4, n4), (e8, n8) = config.encoder
        (d8, m8), (d4, m4), (d2, m2) = config.decoder
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, e4, 3, padding=1),
            *[Residual(e4) for _ in range(n4)],
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * e4, e8, 1),
            *[Residual(e8) for _ in range(n8)],
            nn.SiLU(),
            nn.Conv2d(e8, 2 * config.latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.latent_channels, d8, 3, padding=1),
            *[Residual(d8) for _ in range(m8)],
            nn.Conv2d(d8, 4 * d4, 1),
            nn.PixelShuffle(2),
            *[Residual(d4) for _ in range(m4)],
            nn.Conv2d(d4, 4 * d2, 1),
            nn.PixelShuffle(2),
            *[Residual(d2) for _ in range(m2)],
            nn.SiLU(),
            nn.Conv2d(d2, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        # input and output layers, which Muon is not for
        self.edges = (
            "encoder.1.",
            f"encoder.{len(self.encoder) - 1}.",
            "decoder.0.",
            f"decoder.{len(self.decoder) - 2}.",
        )
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    def encode_raw(self, x: Tensor) -> Posterior:  # (B, 3, H, W)
        """The posterior before the latent's mean and scale are taken out: what training regularises."""
        self.check_size(x)
        mean, log_var = self.encoder(x).chunk(2, dim=1)  # (B, C, H/8, W/8) each
        return Posterior(mean, torch.exp(0.5 * log_var.clamp(-20, 4)))

    def decode_raw(self, z: Tensor) -> Tensor:  # (B, C, h, w)
        """Pictures from latents in the scale of ``encode_raw``."""
        x: Tensor = self.decoder(z)  # (B, 3, 8h, 8w)
        return x

    def encode(self, x: Tensor) -> Posterior:  # (B, 3, H, W)
        mean, std = self.encode_raw(x)  # (B, C, H/8, W/8)
        shift, scale = (v.reshape(1, -1, 1, 1) for v in (self.latent_mean, self.latent_std))
        return Posterior((mean - shift) / scale, std / scale)

    def decode(self, z: Tensor) -> Tensor:  # (B, C, h, w)
        shift, scale = (v.reshape(1, -1, 1, 1) for v in (self.latent_mean, self.latent_std))
        return self.decode_raw(z * scale + shift)  # (B, 3, 8h, 8w)
