from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.autoencoders.ldm_config import LDMConfig
from unnoise.core.autoencoder import Autoencoder, Posterior
from unnoise.core.registry import register
from unnoise.core.space import Space
from unnoise.kernels.attention import attend


def norm(channels: int, c: LDMConfig) -> nn.GroupNorm:
    """The norm that all of it has."""
    return nn.GroupNorm(c.groups, channels, eps=1e-6)


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity, or a 1 x 1 one where channels change. The second begins at zero."""

    def __init__(self, before: int, after: int, c: LDMConfig) -> None:
        super().__init__()
        self.norm1 = norm(before, c)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = norm(after, c)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w)
        h = self.conv1(F.silu(self.norm1(x)))  # (B, C', h, w)
        h = self.conv2(F.silu(self.norm2(h)))  # (B, C', h, w)
        out: Tensor = self.skip(x) + h  # (B, C', h, w)
        return out


class Attention(nn.Module):
    """Self-attention of one head over all cells, beside the identity; its projection begins at zero."""

    def __init__(self, width: int, c: LDMConfig) -> None:
        super().__init__()
        self.norm = norm(width, c)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w)
        h = self.norm(x).flatten(2).mT[:, None]  # (B, 1, h w, C)
        h = self.out(attend(self.query(h), self.key(h), self.value(h)))  # (B, 1, h w, C)
        out: Tensor = x + h[:, 0].mT.reshape(x.shape)  # (B, C, h, w)
        return out


class Middle(nn.Module):
    """At the smallest size: a residual block, attention, a residual block."""

    def __init__(self, width: int, c: LDMConfig) -> None:
        super().__init__()
        self.residual = nn.ModuleList(Residual(width, width, c) for _ in range(2))
        self.attention = Attention(width, c)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w)
        out: Tensor = self.residual[1](self.attention(self.residual[0](x)))  # (B, C, h, w)
        return out


class Stage(nn.Module):
    """The residual blocks of one level; what changes its size behind them stands beside, in ``shrink`` or ``grow``."""

    def __init__(self, before: int, after: int, blocks: int, c: LDMConfig) -> None:
        super().__init__()
        self.residual = nn.ModuleList(Residual(after if number else before, after, c) for number in range(blocks))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w)
        for block in self.residual:
            x = block(x)
        return x  # (B, C', h, w)


class Encoder(nn.Module):
    """Pictures to mean and log-variance, side by side; each level but the last halves the size."""

    def __init__(self, c: LDMConfig) -> None:
        super().__init__()
        width, last = c.channels[0], c.channels[-1]
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList()
        for level, after in enumerate(c.channels):
            stage, width = Stage(width, after, c.blocks, c), after
            if level < len(c.channels) - 1:
                stage.shrink = nn.Conv2d(after, after, 3, stride=2)
            self.down.append(stage)
        self.mid = Middle(last, c)
        self.norm = norm(last, c)
        self.leave = nn.Conv2d(last, 2 * c.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W)
        h = self.enter(x)  # (B, C, H, W)
        for stage in self.down:
            h = stage(h)
            if hasattr(stage, "shrink"):
                h = F.pad(h, (0, 1, 0, 1))  # (B, C, h + 1, w + 1): to the right and below alone
                h = stage.shrink(h)  # type: ignore[operator]  # (B, C, h / 2, w / 2)
        out: Tensor = self.leave(F.silu(self.norm(self.mid(h))))  # (B, 2 Z, h, w)
        return out


class Decoder(nn.Module):
    """Latents to pictures; each level but the first doubles the size, and the last is visited first."""

    def __init__(self, c: LDMConfig) -> None:
        super().__init__()
        first, width = c.channels[0], c.channels[-1]
        self.enter = nn.Conv2d(c.latent_channels, width, 3, padding=1)
        self.mid = Middle(width, c)
        self.up = nn.ModuleList()
        for level, after in reversed(list(enumerate(c.channels))):
            stage, width = Stage(width, after, c.blocks + 1, c), after
            if level:
                stage.grow = nn.Conv2d(after, after, 3, padding=1)
            self.up.insert(0, stage)
        self.norm = norm(first, c)
        self.leave = nn.Conv2d(first, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:  # (B, Z, h, w)
        h = self.mid(self.enter(z))  # (B, C, h, w)
        for stage in reversed(self.up):
            h = stage(h)
            if hasattr(stage, "grow"):
                h = stage.grow(F.interpolate(h, scale_factor=2.0))  # type: ignore[operator]  # (B, C, 2 h, 2 w)
        out: Tensor = self.leave(F.silu(self.norm(h)))  # (B, 3, H, W)
        return out


@register("ldm")
class LDMAutoencoder(Autoencoder):
    """The autoencoder of latent diffusion, that of Stable Diffusion: 512 x 512 x 3 becomes 64 x 64 x 4.

    Rombach et al. 2022 (arXiv 2112.10752), section 3.1 and appendix G.1. Published weights fit under the key tables of
    ``weights.names.ldm``. The mean and the scale of its latents are numbers of its config, as published, and
    are not measured.
    """

    Config = LDMConfig
    edges = ("encoder.enter.", "encoder.leave.", "decoder.enter.", "decoder.leave.", "moments.", "latent.")

    def __init__(self, config: LDMConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or LDMConfig()
        self.space = Space(c.latent_channels, dims=2, stride=2 ** (len(c.channels) - 1))
        self.encoder = Encoder(c)
        self.decoder = Decoder(c)
        if c.moments:
            self.moments = nn.Conv2d(2 * c.latent_channels, 2 * c.latent_channels, 1)
            self.latent = nn.Conv2d(c.latent_channels, c.latent_channels, 1)

    def encode_raw(self, x: Tensor) -> Posterior:  # (B, 3, H, W)
        """The posterior before the latent's shift and scale: what training regularises."""
        self.check_size(x)
        h = self.encoder(x)  # (B, 2 Z, h, w)
        mean, log_var = (self.moments(h) if self.config.moments else h).chunk(2, dim=1)  # (B, Z, h, w) each
        return Posterior(mean, torch.exp(0.5 * log_var.clamp(-30, 20)))

    def decode_raw(self, z: Tensor) -> Tensor:  # (B, Z, h, w)
        """Pictures from latents in the scale of ``encode_raw``."""
        x: Tensor = self.decoder(self.latent(z) if self.config.moments else z)  # (B, 3, H, W)
        return x

    def encode(self, x: Tensor) -> Posterior:  # (B, 3, H, W)
        mean, std = self.encode_raw(x)  # (B, Z, h, w)
        return Posterior((mean - self.config.shift) * self.config.scale, std * self.config.scale)

    def decode(self, z: Tensor) -> Tensor:  # (B, Z, h, w)
        return self.decode_raw(z / self.config.scale + self.config.shift)  # (B, 3, H, W)
