from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.condition import Condition
from unnoise.core.edit import Edit
from unnoise.core.registry import register
from unnoise.networks.layers import MLP, Attention, Inside, Network, level_layers, zero


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a two-scale U-Net with a transformer at its bottom.

    Attributes:
        channels_in: of the state.
        size: of the states it is trained on, along one axis, in cells; even.
        channels: of the residual blocks at full size.
        blocks: residual blocks on the way down, and as many on the way up.
        width, depth, heads: of the transformer at half size.
        text_width: of the prompt's token vectors and of its pooled vector; 0 for a network that takes no prompt.
        embedding: width of the vector by which blocks know the noise level.
        learned_variance: whether it also predicts a fraction of variance, in as many output channels again.
        self_conditioning: whether it reads its estimate of a step earlier, in as many input channels again.
    """

    channels_in: int = 4
    size: int = 16
    channels: int = 128
    blocks: int = 2
    width: int = 256
    depth: int = 6
    heads: int = 4
    text_width: int = 256
    embedding: int = 256
    learned_variance: bool = False
    self_conditioning: bool = False

    @classmethod
    def tiny(cls) -> UNetConfig:
        """The shape that tests use: as few numbers as have all parts."""
        return cls(channels=16, blocks=1, width=32, depth=1, heads=2, text_width=32, embedding=32)


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity; the level scales and shifts the second norm."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.level = nn.Linear(embedding, 2 * channels)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        zero(self.level, self.conv2)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:  # x (B, C, h, w), e (B, E)
        h: Tensor = self.conv1(F.silu(self.norm1(x)))  # (B, C, h, w)
        scale, shift = self.level(e)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)  # (B, C, h, w)
        h = self.conv2(F.silu(h))  # (B, C, h, w)
        return x + h


class CrossAttention(nn.Module):
    """A map of features looks at the prompt: attention over its tokens beside the identity."""

    def __init__(self, channels: int, text_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = Attention(channels, max(1, channels // 64), context=text_width)

    def forward(self, x: Tensor, cond: Condition, inside: Inside, site: str) -> Tensor:  # (B, C, h, w)
        h: Tensor = self.norm(x.flatten(2).mT)  # (B, h w, C)
        h = self.attention(h, inside, site, cond.tokens, cond.token_mask)  # (B, h w, C)
        return x + h.mT.reshape(x.shape)  # (B, C, h, w)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and an MLP, each beside the identity.

    The level reaches all blocks through one shared modulation, to which each adds its own constant: PixArt-alpha's
    adaLN-single (Chen et al. 2023, arXiv 2310.00426, section 2.3).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.self_attention = Attention(width, config.heads)
        if config.text_width:
            self.norm2 = nn.LayerNorm(width)
            self.cross_attention = Attention(width, config.heads, context=config.text_width)
        self.norm3 = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = MLP(width)
        self.constant = nn.Parameter(torch.zeros(4 * width))

    def sites(self, site: str) -> tuple[str, ...]:
        """The sites that it passes, in order."""
        cross = Attention.sites(f"{site}.cross") if hasattr(self, "cross_attention") else ()
        return *Attention.sites(f"{site}.self"), *cross, site

    def forward(self, x: Tensor, level: Tensor, cond: Condition | None, inside: Inside, site: str) -> Tensor:
        scale1, shift1, scale2, shift2 = (level + self.constant)[:, None].chunk(4, dim=2)  # (B, 1, D) each
        h = torch.addcmul(shift1, self.norm1(x), 1 + scale1)  # (B, N, D)
        x = x + self.self_attention(h, inside, f"{site}.self")
        if cond is not None and cond.tokens is not None:
            h = self.norm2(x)
            x = x + self.cross_attention(h, inside, f"{site}.cross", cond.tokens, cond.token_mask)
        h = torch.addcmul(shift2, self.norm3(x), 1 + scale2)
        return inside(site, x + self.mlp(h))  # (B, N, D)


@register("unet")
class UNet(Network):
    """A U-Net with a transformer at the bottom: convolutions where they are fast, attention where it is cheap.

    Residual blocks at the state's full size, a long way down and up again with skips (Ronneberger et al. 2015,
    arXiv 1505.04597; Ho et al. 2020, appendix B), and at half size a transformer over the cells, as the U-ViT of simple
    diffusion has it (Hoogeboom et al. 2023, arXiv 2301.11093, section 3.5). The prompt's tokens are attended to at both
    sizes; its pooled vector joins the level's embedding. The output begins at zero.

    Takes states of any even size; at another than the trained one its learned positions are resampled.

    Sites: ``down.0``, ``down.cross``, ``mid.0`` (and ``.self``, ``.cross`` for attention maps), ``up.0``, ``up.cross``;
    ``.query`` and ``.out`` behind a map's; ``up.0.backbone`` and ``up.0.skip``, the two that ``up.0`` joins.
    """

    Config = UNetConfig
    multiple = 2  # it halves once
    edges = ("enter.", "leave.", "time.", "pooled.", "level.", "position", "previous.")

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        config = config or UNetConfig()
        self.config = c = config
        if c.size % 2:
            raise ValueError(f"{c.size} cells cannot be halved")
        self.time = level_layers(c.embedding)
        self.enter = nn.Conv2d(c.channels_in, c.channels, 3, padding=1)
        self.down = nn.ModuleList(Residual(c.channels, c.embedding) for _ in range(c.blocks))
        self.shrink = nn.Conv2d(c.channels, c.width, 2, stride=2)
        self.position = nn.Parameter(torch.empty((c.size // 2) ** 2, c.width))
        nn.init.normal_(self.position, std=0.02)
        self.level = nn.Linear(c.embedding, 4 * c.width)
        self.mid = nn.ModuleList(TransformerBlock(c) for _ in range(c.depth))
        self.grow = nn.Conv2d(c.width, 4 * c.channels, 1)
        self.join = nn.ModuleList(nn.Conv2d(2 * c.channels, c.channels, 1) for _ in range(c.blocks))
        self.up = nn.ModuleList(Residual(c.channels, c.embedding) for _ in range(c.blocks))
        self.leave = nn.Sequential(
            nn.GroupNorm(8, c.channels),
            nn.SiLU(),
            nn.Conv2d(c.channels, c.channels_in * (2 if c.learned_variance else 1), 3, padding=1),
        )
        if c.text_width:
            self.pooled = nn.Linear(c.text_width, c.embedding)
            self.down_cross = CrossAttention(c.channels, c.text_width)
            self.up_cross = CrossAttention(c.channels, c.text_width)
        if c.self_conditioning:  # made last: all other weights begin as those of a network without it
            self.previous = nn.Conv2d(c.channels_in, c.channels, 3, padding=1, bias=False)
        zero(self.level, self.leave[2])

    def sites(self) -> tuple[str, ...]:
        prompted = self.config.text_width > 0
        names = [f"down.{number}" for number in range(len(self.down))]
        names += Attention.sites("down.cross") if prompted else ()
        for number, block in enumerate(self.mid):
            names += block.sites(f"mid.{number}")  # type: ignore[operator]
        for number in range(len(self.up)):
            names += (f"up.{number}.backbone", f"up.{number}.skip", f"up.{number}")
        names += Attention.sites("up.cross") if prompted else ()
        return tuple(names)

    def positions(self, rows: int, columns: int) -> Tensor:
        """(N, D) positions of the cells at half size: the learned ones, resampled to another size than the trained.

        By bicubic interpolation, as Touvron et al. 2020 (arXiv 2012.12877) do it for the ViT's (Dosovitskiy et al.
        2020, arXiv 2010.11929, section 3.2): what is learned for the middle and the edges stays there.
        """
        side = self.config.size // 2
        if rows == columns == side:
            return self.position
        grid = self.position.float().mT.reshape(1, -1, side, side)  # (1, D, side, side)
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)  # (1, D, rows, columns)
        return grid[0].flatten(1).mT.to(self.position.dtype)  # (N, D)

    def forward(
        self,
        x: Tensor,
        noise_label: Tensor,
        cond: Condition | None = None,
        edits: Sequence[Edit] = (),
        read: Sequence[str] = (),
    ) -> tuple[Tensor, dict[str, Tensor]]:  # x (B, C or 2 C, h, w), noise_label (B,)
        e, cond, inside = self.begin(x, noise_label, cond, edits, read)
        x, previous = x[:, : self.config.channels_in], x[:, self.config.channels_in :]
        h = self.enter(x.contiguous(memory_format=torch.channels_last))  # (B, C, h, w)
        if previous.shape[1]:  # beside the state rather than stacked on it: the same sum, and nothing to do without it
            h = h + self.previous(previous.contiguous(memory_format=torch.channels_last))
        skips = []
        for number, block in enumerate(self.down):
            h = inside(f"down.{number}", block(h, e))
            skips.append(h)
        if cond is not None:
            h = self.down_cross(h, cond, inside, "down.cross")
        low = self.shrink(h)  # (B, D, h / 2, w / 2)
        tokens = low.flatten(2).mT + self.positions(*low.shape[2:])  # (B, N, D)
        level = self.level(e)  # (B, 4 D)
        for number, mid in enumerate(self.mid):
            tokens = mid(tokens, level, cond, inside, f"mid.{number}")
        low = tokens.mT.reshape(low.shape).contiguous(memory_format=torch.channels_last)  # (B, D, h / 2, w / 2)
        h = h + F.pixel_shuffle(self.grow(low), 2)  # (B, C, h, w)
        for number, (join, block) in enumerate(zip(self.join, self.up, strict=True)):
            backbone, skip = inside(f"up.{number}.backbone", h), inside(f"up.{number}.skip", skips.pop())
            h = join(torch.cat([backbone, skip], dim=1))  # (B, C, h, w)
            h = inside(f"up.{number}", block(h, e))
        if cond is not None:
            h = self.up_cross(h, cond, inside, "up.cross")
        return self.leave(h), inside.features  # (B, C or 2 C, h, w)
