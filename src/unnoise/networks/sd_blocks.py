"""What Stable Diffusion's U-Nets are made of."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.condition import Condition
from unnoise.networks.layers import Attention, Inside, zero


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity, or a 1 x 1 one where channels change; the level is added between."""

    def __init__(self, before: int, after: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.level = nn.Linear(embedding, after)
        self.norm2 = nn.GroupNorm(groups, after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        zero(self.conv2)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:  # x (B, C, h, w), e (B, E)
        h = self.conv1(F.silu(self.norm1(x))) + self.level(e)[:, :, None, None]  # (B, C', h, w)
        h = self.conv2(F.silu(self.norm2(h)))  # (B, C', h, w)
        out: Tensor = self.skip(x) + h  # (B, C', h, w)
        return out


class GatedMLP(nn.Module):
    """Two layers, four times as wide inside, where one half gates the other: GEGLU, Shazeer 2020 (arXiv 2002.05202)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 8 * width)
        self.down = nn.Linear(4 * width, width)
        zero(self.down)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D)
        value, gate = self.up(x).chunk(2, dim=2)  # (B, N, 4 D) each
        out: Tensor = self.down(value * F.gelu(gate))  # (B, N, D)
        return out


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the prompt and a gated MLP, each beside the identity."""

    def __init__(self, width: int, heads: int, text_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads, normed=False)
        if text_width:
            self.norm2 = nn.LayerNorm(width)
            self.cross_attention = Attention(width, heads, context=text_width, normed=False)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = GatedMLP(width)

    def sites(self, site: str) -> tuple[str, ...]:
        """The sites that it passes, in order."""
        cross = Attention.sites(f"{site}.cross") if hasattr(self, "cross_attention") else ()
        return *Attention.sites(f"{site}.self"), *cross, site

    def forward(self, x: Tensor, cond: Condition | None, inside: Inside, site: str) -> Tensor:  # (B, N, D)
        x = x + self.self_attention(self.norm1(x), inside, f"{site}.self")
        if cond is not None and cond.tokens is not None:
            h = self.norm2(x)
            x = x + self.cross_attention(h, inside, f"{site}.cross", cond.tokens, cond.token_mask)
        return inside(site, x + self.mlp(self.norm3(x)))  # (B, N, D)


class Transformer(nn.Module):
    """A transformer over the cells of a map, beside the identity."""

    def __init__(self, width: int, heads: int, depth: int, text_width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.enter = nn.Linear(width, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, text_width) for _ in range(depth))
        self.leave = nn.Linear(width, width)
        zero(self.leave)

    def sites(self, site: str) -> tuple[str, ...]:
        """The sites that it passes, in order."""
        names: list[str] = []
        for number, block in enumerate(self.blocks):
            names += block.sites(f"{site}.blocks.{number}")  # type: ignore[operator]
        return tuple(names)

    def forward(self, x: Tensor, cond: Condition | None, inside: Inside, site: str) -> Tensor:  # (B, C, h, w)
        h = self.enter(self.norm(x).flatten(2).mT)  # (B, h w, C)
        for number, block in enumerate(self.blocks):
            h = block(h, cond, inside, f"{site}.blocks.{number}")
        out: Tensor = x + self.leave(h).mT.reshape(x.shape)  # (B, C, h, w)
        return out


class Stage(nn.Module):
    """One level on the way down or up: residual blocks, and behind each its transformer where the level has them.

    What changes the size, on to the next level, stands beside them in ``shrink`` or ``grow``.
    """

    def __init__(self, residual: Iterable[Residual], attention: Iterable[Transformer]) -> None:
        super().__init__()
        self.residual = nn.ModuleList(residual)
        self.attention = nn.ModuleList(attention)

    def sites(self, number: int, site: str) -> tuple[str, ...]:
        """The sites that the residual block of this number and its transformer pass, in order."""
        names = (f"{site}.residual.{number}",)
        if self.attention:
            names += self.attention[number].sites(f"{site}.attention.{number}")  # type: ignore[operator]
        return names

    def forward(
        self, number: int, x: Tensor, e: Tensor, cond: Condition | None, inside: Inside, site: str
    ) -> Tensor:  # (B, C, h, w)
        h = inside(f"{site}.residual.{number}", self.residual[number](x, e))  # (B, C', h, w)
        if self.attention:
            h = self.attention[number](h, cond, inside, f"{site}.attention.{number}")
        return h


class Middle(nn.Module):
    """Between the ways: a residual block, a transformer where the network has one here, a residual block."""

    def __init__(self, residual: Iterable[Residual], attention: Transformer | None) -> None:
        super().__init__()
        self.residual = nn.ModuleList(residual)
        self.attention = attention

    def sites(self) -> tuple[str, ...]:
        """The sites that it passes, in order."""
        between = self.attention.sites("mid.attention") if self.attention else ()
        return "mid.residual.0", *between, "mid.residual.1"

    def forward(self, x: Tensor, e: Tensor, cond: Condition | None, inside: Inside) -> Tensor:  # (B, C, h, w)
        h = inside("mid.residual.0", self.residual[0](x, e))
        if self.attention:
            h = self.attention(h, cond, inside, "mid.attention")
        return inside("mid.residual.1", self.residual[1](h, e))  # (B, C, h, w)
