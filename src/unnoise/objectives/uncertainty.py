"""A weight of levels that is learnt."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from unnoise.core import checks
from unnoise.core.noise import generator
from unnoise.core.registry import register

FARTHEST = 20.0  # in log-SNR; beyond it there is nothing to tell apart, and pure noise lies at infinity


@register("uncertainty", "edm2-uncertainty")
class Uncertainty(nn.Module):
    """EDM2's uncertainty u(level): the loss becomes L e^-u + u, so that every level counts by what is left to learn.

    Karras et al. 2023 (arXiv 2312.02696), equations 14 to 16 and 21: for a given error the best u is ln E[L | level],
    with which every level's loss is 1, whatever weight L had. One layer over random Fourier features (equation 75) of
    c_noise = ln(sigma/alpha)/4. It begins at u = 0, the loss as it was; the authors' layer is normalised
    as every layer of their network is, this one is not. Needed in training alone; saved with it, not with the model.

    Args:
        features: 128 in EDM2.
    """

    kind: ClassVar[str] = "objectives"
    rates: Tensor
    phases: Tensor

    def __init__(self, features: int = 128) -> None:
        super().__init__()
        features = checks.whole("uncertainty features", features, 1, 1_000_000)
        g = generator("uncertainty", features)
        self.register_buffer("rates", 2 * math.pi * torch.randn(features, generator=g))
        self.register_buffer("phases", 2 * math.pi * torch.rand(features, generator=g))
        self.weight = nn.Parameter(torch.zeros(features))  # a vector: neither decayed nor taken for a hidden matrix
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, log_snr: Tensor) -> Tensor:  # (B,) log(alpha/sigma)
        """(B,) float32 u."""
        c_noise = -log_snr.float().clamp(-FARTHEST, FARTHEST) / 4
        waves = math.sqrt(2) * torch.cos(c_noise[:, None] * self.rates + self.phases)  # (B, F)
        return (waves * self.weight).sum(1) / math.sqrt(len(self.weight)) + self.bias  # (B,)
