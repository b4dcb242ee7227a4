from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.condition import Condition
from unnoise.core.registry import register
from unnoise.kernels.attention import attend


@dataclass(frozen=True)
class CLIPTextConfig:
    """The shape of a CLIP text tower.

    Attributes:
        vocabulary: number of token ids.
        length: ids in a row.
        width, depth, heads, hidden: of the transformer; hidden is the width inside its MLPs.
        activation: "quick_gelu", as OpenAI's CLIP has it, or "gelu".
        end: the id that ends a prompt; the prompt's vector is read at the first one.
    """

    vocabulary: int = 2048
    length: int = 32
    width: int = 256
    depth: int = 4
    heads: int = 4
    hidden: int = 1024
    activation: str = "quick_gelu"
    end: int = 1

    @classmethod
    def tiny(cls) -> CLIPTextConfig:
        """The shape that tests use: as few numbers as have all parts."""
        return cls(300, width=32, depth=1, heads=2, hidden=64)


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x): CLIP's cheap stand-in for GELU."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class Block(nn.Module):
    """A pre-norm transformer block with causal attention."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        if config.width % config.heads:
            raise ValueError(f"a width of {config.width} does not divide among {config.heads} heads")
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.width)
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm2 = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D)
        h: Tensor = self.norm1(x)  # (B, L, D)
        q, k, v = (f(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        h = attend(q, k, v, causal=True)  # (B, heads, L, D / heads)
        x = x + self.out(h.transpose(1, 2).flatten(2))  # (B, L, D)
        h = self.down(self.activation(self.up(self.norm2(x))))  # (B, L, D)
        return x + h


@register("clip-text")
class CLIPText(nn.Module):
    """CLIP's text tower: a causal transformer over tokens, one vector a token and one a prompt.

    Radford et al. 2021 (arXiv 2103.00020), section 2.4. Equal to the tower of the transformers library under the key
    table of ``weights.families.clip``.
    """

    Config = CLIPTextConfig
    edges = ("token", "position")

    def __init__(self, config: CLIPTextConfig | None = None) -> None:
        super().__init__()
        config = config or CLIPTextConfig()
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Parameter(torch.empty(config.length, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position, std=0.01)

    def forward(self, ids: Tensor) -> Condition:  # (B, L) int64
        """The condition of a row of ids: ``tokens`` (B, L, D), ``token_mask`` (B, L), ``pooled`` (B, D)."""
        last = (ids == self.config.end).int().argmax(dim=1)  # (B,) the first end
        mask = torch.arange(ids.shape[1], device=ids.device) <= last[:, None]  # (B, L)
        x = self.token(ids) + self.position[: ids.shape[1]]  # (B, L, D)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)  # (B, L, D)
        pooled = x[torch.arange(len(x), device=x.device), last]  # (B, D)
        return Condition(tokens=x, token_mask=mask, pooled=pooled)
