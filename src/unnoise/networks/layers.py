"""Parts that networks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.condition import Condition
from unnoise.core.edit import Around, Edit, Look, apply_edits, check_sites
from unnoise.core.space import nearest
from unnoise.errors import UnnoiseError
from unnoise.kernels.attention import RMSNorm, attend, attention_map, columns_used


def sinusoid(label: Tensor, width: int, period: float = 10_000.0) -> Tensor:
    """(B, width) sines and cosines of a label of about 0 to 1000. DDPM's level embedding, from Vaswani et al. 2017
    (arXiv 1706.03762), section 3.5."""
    half = width // 2
    rates = torch.exp(-math.log(period) * torch.arange(half, dtype=torch.float32, device=label.device) / half)
    angles = label.float()[:, None] * rates  # (B, half)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)  # (B, width)


def without_padding(cond: Condition | None) -> Condition | None:
    """The condition without the columns that are padding in every row: in training most are, and none is seen.

    With all of them while a network is compiled: code is made for shapes, and these differ from batch to batch.
    """
    if cond is None or cond.tokens is None or cond.token_mask is None or torch.compiler.is_compiling():
        return cond
    used = columns_used(cond.token_mask)
    return replace(cond, tokens=cond.tokens[:, :used], token_mask=cond.token_mask[:, :used])


def required(cond: Condition | None, name: str) -> Tensor:
    """A field of a condition that a network cannot do without.

    Raises:
        UnnoiseError: the condition lacks it.
    """
    value: Tensor | None = getattr(cond, name, None)
    if value is None:
        raise UnnoiseError(
            f"the network reads {name!r} of its condition, which has none", f"give Condition({name}=...)"
        )
    return value


def zero(*layers: nn.Module) -> None:
    """Sets weights and biases of layers to 0, so that what they add to a sum begins as nothing."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


class Inside:
    """What a call does and reads at the named sites of a network.

    Args:
        edits, read: as the network is called with.
        cond: the condition of the call.
        cells: of the state along each axis; None for a square.
    """

    def __init__(
        self,
        edits: Sequence[Edit] = (),
        read: Sequence[str] = (),
        cond: Condition | None = None,
        cells: tuple[int, ...] | None = None,
    ) -> None:
        self.edits, self.read = tuple(edits), frozenset(read)
        self.around = Around(cond, cells)
        self.features: dict[str, Tensor] = {}

    def wants(self, site: str) -> bool:
        """Whether anything is to be done or read there."""
        return site in self.read or any(edit.at(site) for edit in self.edits)

    def __call__(self, site: str, value: Tensor, look: Look | None = None) -> Tensor:
        """The value after edits, which may ``look`` at another prompt where it is given; kept where it is read."""
        if self.edits:
            value = apply_edits(self.edits, site, value, self.around._replace(look=look))
        if site in self.read:
            self.features[site] = value
        return value


class Network(nn.Module):
    """What networks that denoise have in common: a head that reads level and prompt, sites by name, sizes that go.

    A network sets ``config``, with a ``text_width``, and makes the layers of the head where its own order of weights
    has them. Its weights are named after the attributes.

    Attributes:
        multiple: cells along each axis of a state come in multiples of this.
        time: the level's sinusoid of 256 numbers to a vector of ``embedding`` numbers (``level_layers``).
        pooled: the prompt's pooled vector to as many; only with a ``text_width``. A network that knows its pictures by
            more, or by other sinusoids, has an ``embed`` of its own.
    """

    multiple: int = 1
    config: Any
    time: nn.Module
    pooled: nn.Module

    def sites(self) -> tuple[str, ...]:
        """The names that a call with a prompt can edit and read, in the order in which it passes them."""
        raise NotImplementedError

    def check_sites(self, edits: Sequence[Edit] = (), read: Sequence[str] = ()) -> None:
        """Ensures that it has the sites that edits and reads name.

        Raises:
            UnnoiseError: it has not.
        """
        if edits or read:
            check_sites(self.sites(), edits, read)

    def check_size(self, *cells: int) -> None:
        """Ensures that it takes states of so many cells along each axis: rows, then columns.

        Raises:
            UnnoiseError: it does not; the nearest sizes that it takes are named.
        """
        for count in cells:
            if count < 1 or count % self.multiple:
                what = f"a state of {' x '.join(map(str, cells))} cells: {count} is no multiple of {self.multiple}"
                raise UnnoiseError(what, f"give {nearest(count, self.multiple)}")

    def begin(
        self,
        x: Tensor,
        noise_label: Tensor,
        cond: Condition | None,
        edits: Sequence[Edit],
        read: Sequence[str],
    ) -> tuple[Tensor, Condition | None, Inside]:
        """The top of every forward.

        Args:
            x: (B, C, ...) state.
            noise_label, cond, edits, read: as the network is called with.

        Returns:
            (e, cond, inside): (B, E) what ``embed`` says, after its activation; the condition whose tokens are attended
            to, None without a prompt; what to do at each site.

        Raises:
            UnnoiseError: it has no such site, or does not take states of that size.
        """
        cells = tuple(x.shape[2:])
        self.check_size(*cells)
        self.check_sites(edits, read)
        if self.training and torch.is_grad_enabled():
            cond = without_padding(cond)
        inside = Inside(edits, read, cond, cells)
        prompt = cond if cond is not None and cond.tokens is not None and self.config.text_width > 0 else None
        return F.silu(self.embed(noise_label, prompt, x.dtype)), prompt, inside

    def embed(self, noise_label: Tensor, cond: Condition | None, dtype: torch.dtype) -> Tensor:
        """(B, E) what all blocks know of a picture as a whole: its level and its prompt's pooled vector, in one."""
        e: Tensor = self.time(sinusoid(noise_label, 256).to(dtype))  # (B, E)
        if cond is not None and cond.pooled is not None:
            e = e + self.pooled(cond.pooled)
        return e


def level_layers(embedding: int, width: int = 256) -> nn.Sequential:
    """The layers that make a sinusoid of ``width`` numbers, such as a level's, the vector that blocks read."""
    return nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))


class Attention(nn.Module):
    """Multi-head attention over itself or over a context, with normed queries and keys where the network wants them.

    Dehghani et al. 2023 (arXiv 2302.05442), section 2, for the norms: they keep logits bounded at high learning rates.
    Passes its map (B, heads, N, L) at ``site``, the queries (B, heads, N, d) that meet the keys at ``site.query``, and
    what they found (B, N, D), heads joined and not yet projected, at ``site.out``.

    Args:
        width: of x.
        heads: number of heads.
        context: width of the context; None attends to x itself.
        normed: whether queries and keys are.
    """

    def __init__(self, width: int, heads: int, context: int | None = None, normed: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} does not divide among {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(context or width, width, bias=False)
        self.value = nn.Linear(context or width, width, bias=False)
        self.out = nn.Linear(width, width)
        zero(self.out)
        self.query_norm = RMSNorm(width // heads) if normed else None
        self.key_norm = RMSNorm(width // heads) if normed else None

    @staticmethod
    def sites(site: str) -> tuple[str, ...]:
        """The sites that it passes, in order."""
        return f"{site}.query", site, f"{site}.out"

    def _split(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:  # (B, N, D) -> (B, heads, N, d)
        x = torch.unflatten(x, 2, (self.heads, -1))  # (B, N, heads, d): normed here, where the rows lie side by side
        return (x if norm is None else norm(x)).transpose(1, 2)

    def forward(
        self, x: Tensor, inside: Inside, site: str, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:  # x (B, N, D), context (B, L, C), mask (B, L) bool
        source = x if context is None else context
        q = inside(f"{site}.query", self._split(self.query(x), self.query_norm))  # (B, heads, N, d)

        def keys(source: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
            k = self._split(self.key(source), self.key_norm)  # (B, heads, L, d)
            v = self._split(self.value(source))  # (B, heads, L, d)
            return k, v, None if mask is None else mask[:, None, None, :]  # (B, 1, 1, L)

        def look(source: Tensor, mask: Tensor | None) -> Tensor:
            return attend(q, *keys(source, mask)).transpose(1, 2).flatten(2)  # (B, N, D)

        if inside.wants(site):  # the map itself, so it is computed in the open
            k, v, seen = keys(source, mask)
            weights = inside(site, attention_map(q, k, seen))  # (B, heads, N, L)
            h = (weights @ v).transpose(1, 2).flatten(2)  # (B, N, D)
        else:
            h = look(source, mask)
        h = inside(f"{site}.out", h, None if context is None else look)
        out: Tensor = self.out(h)  # (B, N, D)
        return out


class MLP(nn.Module):
    """Two layers with GELU between, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        zero(self.down)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D)
        out: Tensor = self.down(F.gelu(self.up(x)))  # (B, N, D)
        return out
