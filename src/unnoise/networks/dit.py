from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.condition import Condition
from unnoise.core.edit import Edit
from unnoise.core.registry import register
from unnoise.networks.layers import MLP, Attention, Inside, Network, level_layers, sinusoid, zero


@dataclass(frozen=True)
class DiTConfig:
    """The shape of a diffusion transformer.

    Attributes:
        channels_in: of the state.
        size: of the states it is trained on, along one axis, in cells; a multiple of ``patch``.
        patch: cells along one axis that make one token.
        width, depth, heads: of the transformer; the width is a multiple of 4 and of the heads.
        text_width: of the prompt's token vectors and of its pooled vector; 0 for a network that takes no prompt.
        embedding: width of the vector by which blocks know the noise level.
    """

    channels_in: int = 4
    size: int = 16
    patch: int = 2
    width: int = 320
    depth: int = 8
    heads: int = 5
    text_width: int = 256
    embedding: int = 256

    @classmethod
    def tiny(cls) -> DiTConfig:
        """The shape that tests use: as few numbers as have all parts."""
        return cls(size=8, width=32, depth=2, heads=2, text_width=32, embedding=32)


def grid_positions(rows: int, columns: int, width: int, device: torch.device | None = None) -> Tensor:
    """(rows columns, width) fixed sines and cosines of a cell's place, first half of its row, second of its column.

    The two-dimensional form of the ViT's positions that Peebles and Xie take (arXiv 2212.09748, section 3.2). A cell's
    place is counted from the corner whatever the size, so that larger grids extend smaller ones.
    """
    line = sinusoid(torch.arange(max(rows, columns), device=device), width // 2)  # (longest side, width / 2)
    down = line[:rows].repeat_interleave(columns, 0)  # (N, width / 2)
    return torch.cat([down, line[:columns].repeat(rows, 1)], dim=1)  # (N, width)


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x (B, N, D) scaled and shifted by (B, D) vectors."""
    return x * (1 + scale[:, None]) + shift[:, None]


class DiTBlock(nn.Module):
    """Self-attention and an MLP, steered by the level through adaLN-Zero; between them cross-attention to the prompt.

    Peebles and Xie 2023, section 3.2: scales, shifts and gates of both branches come from the embedding by a layer that
    begins at zero, so that the block begins as the identity. The branches themselves must then begin alive: were their
    last layers zero as well, gate and branch would each be the other's gradient, and neither would ever move.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.self_attention = Attention(width, config.heads)
        if config.text_width:
            self.norm2 = nn.LayerNorm(width)
            self.cross_attention = Attention(width, config.heads, context=config.text_width)
        self.norm3 = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = MLP(width)
        self.modulation = nn.Linear(config.embedding, 6 * width)
        zero(self.modulation)
        for last in (self.self_attention.out, self.mlp.down):
            nn.init.xavier_uniform_(last.weight)

    def sites(self, site: str) -> tuple[str, ...]:
        """The sites that it passes, in order."""
        cross = Attention.sites(f"{site}.cross") if hasattr(self, "cross_attention") else ()
        return *Attention.sites(f"{site}.self"), *cross, site

    def forward(self, x: Tensor, e: Tensor, cond: Condition | None, inside: Inside, site: str) -> Tensor:
        scale1, shift1, gate1, scale3, shift3, gate3 = self.modulation(e).chunk(6, dim=1)  # (B, D) each
        h = modulate(self.norm1(x), scale1, shift1)  # (B, N, D)
        x = x + gate1[:, None] * self.self_attention(h, inside, f"{site}.self")
        if cond is not None and cond.tokens is not None:
            x = x + self.cross_attention(self.norm2(x), inside, f"{site}.cross", cond.tokens, cond.token_mask)
        h = modulate(self.norm3(x), scale3, shift3)
        return inside(site, x + gate3[:, None] * self.mlp(h))  # (B, N, D)


@register("dit")
class DiT(Network):
    """A diffusion transformer: the state cut into patches, each a token, and the same block all the way down.

    Peebles and Xie 2023 (arXiv 2212.09748): no convolution, no skip, no change of scale. The level and the prompt's
    pooled vector steer each block by adaLN-Zero; the prompt's tokens are attended to in each block, as in PixArt-alpha
    (Chen et al. 2023, arXiv 2310.00426, section 2.3). Queries and keys are normed. The output begins at zero.

    Takes states of any size that its patches divide; positions beyond those it was trained on are the same sines.

    Sites: ``blocks.0`` (and ``.self``, ``.cross`` for attention maps, ``.query`` and ``.out`` behind either), and on.
    """

    Config = DiTConfig
    edges = ("enter.", "leave.", "time.", "pooled.")
    position: Tensor

    def __init__(self, config: DiTConfig | None = None) -> None:
        super().__init__()
        config = config or DiTConfig()
        self.config = c = config
        if c.size % c.patch or c.width % 4:
            raise ValueError(f"{c.size} cells in patches of {c.patch}, or a width of {c.width}, do not divide")
        self.multiple = c.patch
        self.time = level_layers(c.embedding)
        self.enter = nn.Conv2d(c.channels_in, c.width, c.patch, stride=c.patch)
        self.blocks = nn.ModuleList(DiTBlock(c) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, elementwise_affine=False)
        self.modulation = nn.Linear(c.embedding, 2 * c.width)
        self.leave = nn.Linear(c.width, c.channels_in * c.patch**2)
        # kept with the weights although it is fixed: models are built on the meta device
        self.register_buffer("position", grid_positions(c.size // c.patch, c.size // c.patch, c.width))
        if c.text_width:
            self.pooled = nn.Linear(c.text_width, c.embedding)
        zero(self.modulation, self.leave)

    def sites(self) -> tuple[str, ...]:
        names: list[str] = []
        for number, block in enumerate(self.blocks):
            names += block.sites(f"blocks.{number}")  # type: ignore[operator]
        return tuple(names)

    def positions(self, rows: int, columns: int) -> Tensor:
        """(N, D) positions of a grid of tokens; at the trained size those that are kept with the weights."""
        if rows == columns == self.config.size // self.config.patch:
            return self.position
        return grid_positions(rows, columns, self.config.width, self.position.device)

    def forward(
        self,
        x: Tensor,
        noise_label: Tensor,
        cond: Condition | None = None,
        edits: Sequence[Edit] = (),
        read: Sequence[str] = (),
    ) -> tuple[Tensor, dict[str, Tensor]]:  # x (B, C, h, w), noise_label (B,)
        e, cond, inside = self.begin(x, noise_label, cond, edits, read)
        low = self.enter(x)  # (B, D, h / p, w / p)
        tokens = low.flatten(2).mT + self.positions(*low.shape[2:]).to(x.dtype)  # (B, N, D)
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, e, cond, inside, f"blocks.{number}")
        scale, shift = self.modulation(e).chunk(2, dim=1)  # (B, D) each
        patches = self.leave(modulate(self.norm(tokens), scale, shift))  # (B, N, C p p)
        output = F.pixel_shuffle(patches.mT.unflatten(2, low.shape[2:]), self.config.patch)  # (B, C, h, w)
        return output, inside.features
