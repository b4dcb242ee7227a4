from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.condition import Condition
from unnoise.core.edit import Edit
from unnoise.core.registry import register
from unnoise.networks.layers import MLP, Attention, Inside, sinusoid, without_padding, zero


@dataclass(frozen=True)
class DiTConfig:
    """The shape of a diffusion transformer.

    Attributes:
        channels_in: of the state.
        size: of the state along one axis, in cells; a multiple of ``patch``.
        patch: cells along one axis that make one token.
        width, depth, heads: of the transformer; the width is a multiple of 4 and of the heads.
        text_width: of the prompt's token vectors and of its pooled vector; 0 for a network that takes no prompt.
        embedding: width of the vector that tells blocks the noise level.
    """

    channels_in: int = 4
    size: int = 16
    patch: int = 2
    width: int = 320
    depth: int = 8
    heads: int = 5
    text_width: int = 256
    embedding: int = 256


def grid_positions(side: int, width: int) -> Tensor:
    """(side^2, width) fixed sines and cosines of a cell's place, the first half of its row, the second of its column.

    The two-dimensional form of the ViT's positions that Peebles and Xie take (arXiv 2212.09748, section 3.2).
    """
    line = sinusoid(torch.arange(side), width // 2)  # (side, width / 2)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.cat([line[rows.flatten()], line[columns.flatten()]], dim=1)  # (N, D)


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x (B, N, D) scaled and shifted by (B, D) vectors."""
    return x * (1 + scale[:, None]) + shift[:, None]


class DiTBlock(nn.Module):
    """Self-attention and an MLP, told the level by adaLN-Zero, and between them cross-attention to the prompt.

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

    def forward(self, x: Tensor, e: Tensor, cond: Condition | None, inside: Inside, site: str) -> Tensor:
        scale1, shift1, gate1, scale3, shift3, gate3 = self.modulation(e).chunk(6, dim=1)  # (B, D) each
        h = modulate(self.norm1(x), scale1, shift1)  # (B, N, D)
        x = x + gate1[:, None] * self.self_attention(h, inside, f"{site}.self")
        if cond is not None and cond.tokens is not None:
            x = x + self.cross_attention(self.norm2(x), inside, f"{site}.cross", cond.tokens, cond.token_mask)
        h = modulate(self.norm3(x), scale3, shift3)
        return inside(site, x + gate3[:, None] * self.mlp(h))  # (B, N, D)


@register("dit")
class DiT(nn.Module):
    """A diffusion transformer: the state cut into patches, each a token, and the same block all the way down.

    Peebles and Xie 2023 (arXiv 2212.09748): no convolution, no skip, no change of scale. The level and the prompt's
    pooled vector steer each block by adaLN-Zero; the prompt's tokens are attended to in each block, as in PixArt-alpha
    (Chen et al. 2023, arXiv 2310.00426, section 2.3). Queries and keys are normed. The output begins at zero.

    Sites: ``blocks.0`` (and ``.self``, ``.cross`` for attention maps, ``.query`` and ``.out`` behind either), and on.
    """

    Config = DiTConfig
    edges = ("enter.", "leave.", "time.", "pooled.")

    def __init__(self, config: DiTConfig | None = None) -> None:
        super().__init__()
        config = config or DiTConfig()
        self.config = c = config
        if c.size % c.patch or c.width % 4:
            raise ValueError(f"{c.size} cells in patches of {c.patch}, or a width of {c.width}, do not divide")
        self.time = nn.Sequential(nn.Linear(256, c.embedding), nn.SiLU(), nn.Linear(c.embedding, c.embedding))
        self.enter = nn.Conv2d(c.channels_in, c.width, c.patch, stride=c.patch)
        self.blocks = nn.ModuleList(DiTBlock(c) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, elementwise_affine=False)
        self.modulation = nn.Linear(c.embedding, 2 * c.width)
        self.leave = nn.Linear(c.width, c.channels_in * c.patch**2)
        # kept with the weights although it is fixed: models are built on the meta device
        self.register_buffer("position", grid_positions(c.size // c.patch, c.width))
        if c.text_width:
            self.pooled = nn.Linear(c.text_width, c.embedding)
        zero(self.modulation, self.leave)

    def forward(
        self,
        x: Tensor,
        noise_label: Tensor,
        cond: Condition | None = None,
        edits: Sequence[Edit] = (),
        read: Sequence[str] = (),
    ) -> tuple[Tensor, dict[str, Tensor]]:  # x (B, C, h, w), noise_label (B,)
        if self.training and torch.is_grad_enabled():
            cond = without_padding(cond)
        inside = Inside(edits, read, cond)
        prompted = cond is not None and cond.tokens is not None and self.config.text_width > 0
        e = self.time(sinusoid(noise_label, 256).to(x.dtype))  # (B, E)
        if prompted and cond is not None and cond.pooled is not None:
            e = e + self.pooled(cond.pooled)
        e = F.silu(e)
        low = self.enter(x)  # (B, D, h / p, w / p)
        tokens = low.flatten(2).mT + self.position.to(x.dtype)  # (B, N, D)
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, e, cond if prompted else None, inside, f"blocks.{number}")
        scale, shift = self.modulation(e).chunk(2, dim=1)  # (B, D) each
        patches = self.leave(modulate(self.norm(tokens), scale, shift))  # (B, N, C p p)
        output = F.pixel_shuffle(patches.mT.unflatten(2, low.shape[2:]), self.config.patch)  # (B, C, h, w)
        return output, inside.features
