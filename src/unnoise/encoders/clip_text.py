from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.condition import Condition
from unnoise.core.registry import register
from unnoise.encoders.clip_text_config import CLIPTextConfig
from unnoise.errors import UnnoiseError
from unnoise.kernels.attention import attend


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x): CLIP's cheap stand-in for GELU."""
    return x * torch.sigmoid(1.702 * x)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


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
        self.activation = FUNCTIONS[config.activation]

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
