from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.condition import Condition
from unnoise.core.registry import register
from unnoise.errors import UnnoiseError
from unnoise.kernels.attention import attend

LATER = {"added": True}  # settings that trainings of old do not know, which their hashes leave out


@dataclass(frozen=True)
class CLIPTextConfig:
    """The shape of a CLIP text tower.

    Attributes:
        vocabulary: number of token ids.
        length: ids in a row.
        width, depth, heads, hidden: of the transformer; hidden is the width inside its MLPs.
        activation: "quick_gelu", as OpenAI's CLIP has it, or "gelu".
        end: the id that ends a prompt; the prompt's vector is read at the first one.
        layer: whose output the tokens' vectors are, counted from the end of the whole tower: 1 is the last block.
        final_norm: whether these vectors pass the last norm; the prompt's vector always does.
        projection: width of a linear map of the prompt's vector, without a bias; 0 for none.
        masked: whether the condition says which tokens are real. Published Stable Diffusion networks attend to all.
        pad: the id that fills up rows; None for the vocabulary's own.
        chunks: the rows that a long prompt may be cut into, each read by itself.
        cut: blocks at the end that the weights leave out, beside the ``depth`` that are there; ``layer`` counts them.
            A tower without its end has no vector for a prompt.
    """

    vocabulary: int = 2048
    length: int = 32
    width: int = 256
    depth: int = 4
    heads: int = 4
    hidden: int = 1024
    activation: str = "quick_gelu"
    end: int = 1
    layer: int = field(default=1, metadata=LATER)
    final_norm: bool = field(default=True, metadata=LATER)
    projection: int = field(default=0, metadata=LATER)
    masked: bool = field(default=True, metadata=LATER)
    pad: int | None = field(default=None, metadata=LATER)
    chunks: int = field(default=1, metadata=LATER)
    cut: int = field(default=0, metadata=LATER)

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

    Radford et al. 2021 (arXiv 2103.00020), section 2.4; with ``layer``, ``final_norm`` and ``projection`` also the
    towers of OpenCLIP as Stable Diffusion 2 and XL read them. Equal to ``CLIPTextModel`` and
    ``CLIPTextModelWithProjection`` of the transformers library.
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
        self.projection = nn.Linear(config.width, config.projection, bias=False) if config.projection else None
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position, std=0.01)
        self.blocks_before(config.layer)

    def blocks_before(self, layer: int | None) -> int:
        """How many blocks are run for the tokens' vectors of a layer, which is counted as the config's.

        Raises:
            UnnoiseError: the tower has no such layer.
        """
        depth, cut = self.config.depth, self.config.cut
        layer = self.config.layer if layer is None else layer
        if not cut < layer <= depth + cut:
            which = f"the {depth + cut} from the end" if not cut else f"those from {cut + 1} to {depth + cut}"
            raise UnnoiseError(f"the text tower has no layer {layer}, counted from its end", f"choose one of {which}")
        return depth + cut - layer + 1

    def forward(self, ids: Tensor, layer: int | None = None) -> Condition:  # (B, L) int64
        """The condition of a row of ids: ``tokens`` (B, L, D), ``token_mask`` (B, L), ``pooled`` (B, D or projection).

        Args:
            ids: start, prompt, end and padding; at most ``length`` of them.
            layer: whose output the tokens' vectors are, counted from the end; None for the config's.

        Raises:
            UnnoiseError: the tower has no such layer.
        """
        config, count = self.config, self.blocks_before(layer)
        last = (ids == config.end).int().argmax(dim=1)  # (B,) the first end
        x = self.token(ids) + self.position[: ids.shape[1]]  # (B, L, D)
        for block in self.blocks[:count]:
            x = block(x)
        tokens = self.norm(x) if config.final_norm else x  # (B, L, D)
        pooled = None
        if not config.cut:
            for block in self.blocks[count:]:
                x = block(x)
            rows = torch.arange(len(x), device=x.device)
            whole = tokens if config.final_norm and count == config.depth else self.norm(x)  # (B, L, D)
            pooled = whole[rows, last]  # (B, D)
            pooled = pooled if self.projection is None else self.projection(pooled)  # (B, projection)
        mask = torch.arange(ids.shape[1], device=ids.device) <= last[:, None] if config.masked else None  # (B, L)
        return Condition(tokens=tokens, token_mask=mask, pooled=pooled)
