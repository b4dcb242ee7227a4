from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.registry import register


@dataclass(frozen=True)
class PairConfig:
    """Widths of a text tower's and an image tower's vectors, and of the space that both are projected to."""

    text: int = 256
    image: int = 256
    width: int = 256

    @classmethod
    def tiny(cls) -> PairConfig:
        """The shape that tests use: as few numbers as have all parts."""
        return cls(32, 32, 32)


@register("pair")
class Pair(nn.Module):
    """The projections that make a text tower and an image tower comparable, and their temperature (CLIP)."""

    Config = PairConfig
    edges = ("text.", "image.")

    def __init__(self, config: PairConfig | None = None) -> None:
        super().__init__()
        config = config or PairConfig()
        self.config = config
        self.text = nn.Linear(config.text, config.width, bias=False)
        self.image = nn.Linear(config.image, config.width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, text: Tensor, image: Tensor) -> Tensor:  # (M, text), (N, image)
        """(M, N) cosine similarities."""
        return F.normalize(self.text(text), dim=-1) @ F.normalize(self.image(image), dim=-1).T  # (M, N)
