from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.edit import Edit
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import register
from unnoise.guidances.cfg import CFG
from unnoise.guidances.edited import combined, edited
from unnoise.guidances.perturbed import names


def louder(h: Tensor, factor: float) -> Tensor:
    """Backbone features (B, C, h, w), the first half of their channels times 1 + (factor - 1) m.

    m is the mean over channels, scaled for each picture to run from 0 to 1 over its cells: what the backbone sees much
    of is raised most. Si et al. 2023 (arXiv 2309.11497), structure-related scaling.
    """
    mean = h.mean(1, keepdim=True)  # (B, 1, h, w)
    low, high = mean.amin((1, 2, 3), keepdim=True), mean.amax((1, 2, 3), keepdim=True)
    m = (mean - low) / (high - low).clamp_min(torch.finfo(h.dtype).tiny)  # a flat mean is 0 throughout
    half = h.shape[1] // 2
    return torch.cat([h[:, :half] * (1 + (factor - 1) * m), h[:, half:]], 1)


def quieter(h: Tensor, factor: float, radius: float) -> Tensor:
    """Skip features (B, C, h, w), waves of fewer than ``radius`` periods over the picture times the factor.

    Si et al. 2023 (arXiv 2309.11497), the Fourier mask: r counts whole periods, in any direction.
    """
    waves = torch.fft.rfft2(h.float())  # half precision has no transform of every size
    across = torch.fft.rfftfreq(h.shape[3], 1 / h.shape[3], device=h.device)
    down = torch.fft.fftfreq(h.shape[2], 1 / h.shape[2], device=h.device)
    low = torch.hypot(down[:, None], across[None]) < radius
    back: Tensor = torch.fft.irfft2(torch.where(low, factor * waves, waves), s=h.shape[2:])
    return back.to(h)


@dataclass(frozen=True)
class Rebalanced(Edit):
    """Where a U-Net joins its way up with its skips: the one louder, the low frequencies of the other quieter.

    Attributes:
        backbone, skip, radius: see ``louder`` and ``quieter``.
    """

    backbone: float = 1.0
    skip: float = 1.0
    radius: float = 1.5

    def at(self, site: str) -> bool:
        return site.endswith((".backbone", ".skip")) and super().at(site)

    def __call__(self, site: str, value: Tensor) -> Tensor:
        if site.endswith(".backbone"):
            return value if self.backbone == 1 else louder(value, self.backbone)
        return value if self.skip == 1 else quieter(value, self.skip, self.radius)


@register("freeu")
class FreeU(Guidance):
    """FreeU: a U-Net's deep features louder and the coarse part of its skips quieter, in every call of the network.

    Si et al. 2023 (arXiv 2309.11497). No training and no further call. What it does to a picture depends on
    the network; the factors are found by looking.

    Args:
        inner: the guidance whose calls are changed.
        backbone: b, the largest factor of the first half of the backbone's channels; 1 leaves them.
        skip: s, the factor of the skips' low frequencies; 1 leaves them.
        radius: which frequencies are low: those with fewer periods over the picture, in any direction.
        sites: names of the places where a skip is joined, ``*`` at the end for all that begin so.
    """

    def __init__(
        self,
        inner: Guidance | None = None,
        backbone: float = 1.2,
        skip: float = 0.9,
        radius: float = 1.5,
        sites: Sequence[str] = ("up.*",),
    ) -> None:
        self.inner = checks.instance("inner", CFG() if inner is None else inner, Guidance, "give one, such as CFG(3.0)")
        backbone, skip = checks.number("backbone", backbone, 0), checks.number("skip", skip, 0)
        self.edit = Rebalanced(names(sites), backbone, skip, checks.number("radius", radius, 0, math.inf))

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        if self.edit.backbone == self.edit.skip == 1:
            return self.inner.asks(conds, here)
        return edited(self.inner, "freeu", self.edit, conds, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        return combined(self.inner, "freeu", parts, x, here, memory)
