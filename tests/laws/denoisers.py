"""Denoiser: it answers at any level, exactly, whatever path its network was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from laws.world import FAMILIES, draw, mixture, path
from unnoise.core.denoiser import Denoiser
from unnoise.core.level import NoiseLevel, Scalar, over
from unnoise.core.path import Path
from unnoise.core.prediction import Prediction


class Watched(Path):
    """A path that remembers the last level that it returned."""

    def __init__(self, inner: Path) -> None:
        self.inner, self.last = inner, NoiseLevel(1.0, 0.0)

    def at(self, t: Scalar) -> NoiseLevel:
        self.last = self.inner.at(t)
        return self.last

    def time_of(self, level: NoiseLevel) -> Scalar:
        return self.inner.time_of(level)


class Perfect(nn.Module):
    """The network that a perfect training on the mixture would give; it reads the level from the path, since labels
    are float32."""

    def __init__(self, watched: Watched, prediction: Prediction) -> None:
        super().__init__()
        self.watched, self.prediction = watched, prediction

    def forward(
        self, x: Tensor, label: Tensor, cond: Any, edits: Sequence[Any] = (), read: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        own = self.watched.last
        e = mixture().estimate(x / over(self.prediction.scale_in(own), x), own)
        return self.prediction.encode(e.x0, e.eps, own), {}


def perfect(on: Path, prediction: Prediction, kind: type[Denoiser] = Denoiser) -> Denoiser:
    watched = Watched(on)
    return kind(Perfect(watched, prediction), watched, prediction)


def answers_at_any_level(on: Path, prediction: Prediction, kind: type[Denoiser] = Denoiser) -> None:
    """States of the variance-preserving, the flow and the exploding path are all answered as the truth is."""
    denoiser = perfect(on, prediction, kind)
    for family in FAMILIES:
        for sigma in (0.05, 0.3, 1.0, 3.0, 9.0):
            here = path(family).onto(NoiseLevel(1.0, sigma))
            x = here.mix(mixture().sample(16), draw(16, 2))
            found, wanted = denoiser(x, here), mixture().estimate(x, here)
            assert torch.allclose(found.x0, wanted.x0, rtol=0, atol=1e-11), (family, sigma)
            assert torch.allclose(found.eps, wanted.eps, rtol=0, atol=1e-11), (family, sigma)


def answers_rows_of_unlike_levels(on: Path, prediction: Prediction, kind: type[Denoiser] = Denoiser) -> None:
    denoiser = perfect(on, prediction, kind)
    sigma = torch.tensor([0.05, 0.4, 1.0, 4.0], dtype=torch.float64)
    level = NoiseLevel(1 / (1 + sigma), sigma / (1 + sigma))
    x = level.mix(mixture().sample(4), draw(4, 2))
    found, wanted = denoiser(x, level), mixture().estimate(x, level)
    assert torch.allclose(found.x0, wanted.x0, rtol=0, atol=1e-11)
    assert torch.allclose(found.eps, wanted.eps, rtol=0, atol=1e-11)


LAWS = [answers_at_any_level, answers_rows_of_unlike_levels]
