"""Contrastive flow matching: its best network is biased, by just as much as the docs say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from laws.world import draw, path, red
from unnoise.core.denoiser import Denoiser
from unnoise.core.objective import Draws
from unnoise.core.registry import find
from unnoise.data.feeds import LatentFeed
from unnoise.errors import UnnoiseError
from unnoise.objectives.contrast import Contrast
from unnoise.objectives.denoising import DenoisingObjective
from unnoise.objectives.times import TimeSampler
from unnoise.objectives.uncertainty import Uncertainty
from unnoise.predictions.flow import FlowVelocity
from unnoise.recipes.terms import WithOthers

MEAN, VARIANCE, TIME, ROWS, CELLS = 0.7, 0.4, 0.6, 512, 64


class Line(nn.Module):
    """v = slope x + offset: all that Gaussian data need."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x: Tensor, label: Tensor, cond: Any = None, edits: Any = (), read: Any = ()) -> Any:
        return self.line[0] * x + self.line[1], {}


class At(TimeSampler):
    """One time."""

    def times(self, u: Tensor, path: Any) -> Tensor:
        return torch.full_like(u, TIME)


def data(seed: int) -> Tensor:
    return MEAN + math.sqrt(VARIANCE) * draw(ROWS, 1, CELLS, seed=seed)


def best_line(contrast: Contrast | None, other: Tensor) -> tuple[float, float]:
    """The line of least loss, which is quadratic in it: one Newton step finds it."""
    network = Line()
    objective = DenoisingObjective(Denoiser(network, path("flow"), FlowVelocity()), At(), contrast=contrast)

    def loss(line: Tensor) -> Tensor:
        network.line.data.copy_(line)
        found = objective.loss({"x0": data(1), "other": other}, Draws(0, 0, ROWS, slice(None)))
        (gradient,) = torch.autograd.grad(found.total, network.line)
        return gradient

    zero = torch.zeros(2, dtype=torch.float64)
    start = loss(zero)
    curvature = torch.stack([loss(zero + step) - start for step in torch.eye(2, dtype=torch.float64)])
    slope, offset = torch.linalg.solve(curvature, -start).tolist()
    return slope, offset


def truth(weight: float) -> tuple[float, float]:
    """Slope and offset of (E[u | x] - weight E[u~]) / (1 - weight) for u = eps - x0 and x = (1 - t) x0 + t eps."""
    alpha, sigma = 1 - TIME, TIME
    slope = (sigma - alpha * VARIANCE) / (alpha**2 * VARIANCE + sigma**2)  # Cov(u, x) / Var(x)
    offset = -MEAN - slope * alpha * MEAN
    return slope / (1 - weight), (offset + weight * MEAN) / (1 - weight)  # E[u~] = -MEAN


def minimiser_is_as_told(contrast: Contrast, other: Tensor) -> None:
    for found, wanted in zip(best_line(contrast, other), truth(contrast.weight), strict=True):
        assert abs(found - wanted) < 0.03, (found, wanted)


@pytest.mark.parametrize("weight", [0.05, 0.3])
def test_its_best_network_is_biased_by_so_much(weight: float) -> None:
    minimiser_is_as_told(Contrast(weight), data(2))


class Attracting(Contrast):
    """The other sample pulls."""

    def penalty(self, *args: Any) -> Tensor:
        return -super().penalty(*args)


class SameNoise(Contrast):
    """The other sample's velocity from the row's own noise."""

    def penalty(self, prediction: Any, output: Tensor, other: Tensor, level: Any, draws: Draws) -> Tensor:
        eps = draws.normal("eps", *other.shape[1:])
        error = (output - prediction.encode(other, eps, level)) ** 2
        return self.weight * error.mean(dim=(1, 2))


def test_a_wrong_contrast_is_noticed() -> None:
    red(minimiser_is_as_told, Attracting(0.3), data(2))
    red(minimiser_is_as_told, SameNoise(0.3), data(2))
    red(minimiser_is_as_told, Contrast(0.3), data(1))  # the sample itself for the other


def test_it_is_not_the_flow_s_and_can_be_undone() -> None:
    """The bias is real, and (1 - weight) v + weight E[u~] takes it back."""
    plain, biased = best_line(None, data(2)), best_line(Contrast(0.3), data(2))
    assert abs(plain[0] - truth(0.0)[0]) < 0.02
    assert abs(biased[1] - plain[1]) > 0.1
    undone = 0.7 * biased[0], 0.7 * biased[1] - 0.3 * MEAN
    assert all(abs(a - b) < 0.03 for a, b in zip(undone, plain, strict=True))


# the other samples


class Plain(LatentFeed):
    """A feed of latents that are their own numbers."""

    def __init__(self, weights: Tensor) -> None:
        self.mean = torch.arange(len(weights)).float().reshape(-1, 1, 1, 1)
        self.std, self.weights, self.identity = torch.zeros_like(self.mean), weights, "plain"

    def batch(self, items: Tensor, draws: Draws) -> dict[str, Any]:
        return {"x0": self.mean[items]}


def test_others_are_drawn_as_samples_are() -> None:
    """By their weights, never the row's own, and the same however the batch is split."""
    feed = WithOthers(Plain(torch.tensor([1.0, 1.0, 2.0, 4.0])))
    items = torch.zeros(64, dtype=torch.long)
    found = torch.cat([feed.batch(items, Draws(0, s, 64, slice(None)))["other"].flatten() for s in range(200)])
    shares = torch.bincount(found.long(), minlength=4) / len(found)
    assert torch.allclose(shares, torch.tensor([0.0, 2.0, 2.0, 4.0]) / 8, atol=0.02), "its own turn is the next one's"
    halves = [feed.batch(items[:32], Draws(0, 3, 64, slice(s, s + 32)))["other"] for s in (0, 32)]
    assert torch.equal(torch.cat(halves), feed.batch(items, Draws(0, 3, 64, slice(None)))["other"])
    assert feed.identity == "plain"


# what makes no sense


def test_what_makes_no_sense_is_refused() -> None:
    for weight in (0.0, 1.0, 1.5, -0.1, math.nan):
        with pytest.raises(UnnoiseError, match="contrast weight"):
            Contrast(weight)
    for told in ("noise", "data", "v", "edm"):
        with pytest.raises(UnnoiseError, match=f"the network predicts {told}"):
            DenoisingObjective(Denoiser(Line(), path("cosine"), find("predictions", told)()), contrast=Contrast())
    flow = Denoiser(Line(), path("flow"), FlowVelocity())
    with pytest.raises(UnnoiseError, match="choose one of uncertainty and contrast"):
        DenoisingObjective(flow, contrast=Contrast(), uncertainty=Uncertainty(8))
