"""Weighting and TimeSampler: what is trained, and how often, does not depend on what the network is asked to say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from laws.world import path
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import find, index
from unnoise.errors import UnnoiseError

SPREAD = 0.02  # largest distance between the sampled and the analytic distribution function


def levels(on: Path) -> NoiseLevel:
    return on.at(torch.linspace(0.02, 0.98, 49, dtype=torch.float64))


def counts_x0_alike(weighting: Any) -> None:
    """weight x (output error / x0 error) is one function of the level, whatever is predicted."""
    for name in index("paths"):
        level = levels(path(name))
        found = {}
        for meaning in index("predictions"):
            prediction = find("predictions", meaning)()
            a, b = prediction.target(level)
            per_x0 = (torch.as_tensor(a) - torch.as_tensor(b) * level.alpha / level.sigma) ** 2  # d eps = -a/s d x0
            found[meaning] = weighting.weight(level, prediction) * per_x0
        for meaning, each in found.items():
            assert torch.allclose(each / found["noise"], torch.ones_like(each), rtol=1e-10), (name, meaning)


def is_finite_at_the_ends(weighting: Any) -> None:
    """At SNR 0 and near the data no weight is infinite, negative or not a number."""
    for meaning in index("predictions"):
        if meaning == "noise":
            continue  # says nothing at alpha = 0, and is refused there
        level = NoiseLevel(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), torch.tensor([1.0, 80.0, 1e-3]).double())
        weight = weighting.weight(level, find("predictions", meaning)())
        assert torch.isfinite(weight).all(), meaning
        assert (weight >= 0).all(), meaning


def is_the_velocity_s_error(kind: Callable[..., Any]) -> None:
    """weight x |output - target|^2 is |velocity - (eps - x0)|^2, whatever is said; capped where it would explode."""
    x0, eps, wrong = torch.randn(3, 200, generator=torch.Generator().manual_seed(0)).double()
    level = NoiseLevel(1 - torch.linspace(0.1, 0.9, 200).double(), torch.linspace(0.1, 0.9, 200).double())
    for meaning in index("predictions"):
        prediction = find("predictions", meaning)()
        output = prediction.encode(x0, eps, level) + wrong
        x0_hat, eps_hat = prediction.decode(output, level.mix(x0, eps), level)
        error = kind(0.05).weight(level, prediction) * wrong**2
        assert torch.allclose(error, (eps_hat - x0_hat - (eps - x0)) ** 2, rtol=1e-9), meaning
    ends = NoiseLevel(torch.tensor([0.0, 1.0]).double(), torch.tensor([1.0, 0.0]).double())
    assert torch.allclose(kind(0.05).weight(ends, find("predictions", "noise")()), torch.tensor([400.0, 1.0]).double())
    assert torch.allclose(kind(0.05).weight(ends, find("predictions", "data")()), torch.tensor([1.0, 400.0]).double())
    assert torch.equal(kind(0.05).weight(ends, find("predictions", "flow")()), torch.ones(2).double())


def min_snr_is_as_published(kind: Callable[..., Any]) -> None:
    """Hang et al. 2023: x0 min(S, g); noise min(S, g)/S; v min(S, g)/(S + 1); finite at S = 0, where noise counts 1."""
    level, gamma = levels(path("ddpm-linear")), 5.0
    snr = (level.alpha / level.sigma) ** 2
    capped = torch.clamp(snr, max=gamma)
    for meaning, wanted in (("data", capped), ("noise", capped / snr), ("v", capped / (snr + 1))):
        found = kind(gamma).weight(level, find("predictions", meaning)())
        assert torch.allclose(found, wanted, rtol=1e-10), meaning
    dark = NoiseLevel(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    for meaning, limit in (("data", 0.0), ("noise", 1.0), ("v", 0.0)):
        assert float(kind(gamma).weight(dark, find("predictions", meaning)())) == limit, meaning
    for bad in (0.0, -1.0):
        with pytest.raises(UnnoiseError):
            kind(bad)


def p2_is_as_published(kind: Callable[..., Any]) -> None:
    """Choi et al. 2022: noise 1/(k + S)^g; finite at S = 0, where it is 1/k^g; g = 0 weighs nothing."""
    level = levels(path("ddpm-linear"))
    snr = (level.alpha / level.sigma) ** 2
    dark = NoiseLevel(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    noise = find("predictions", "noise")()
    for gamma, k in ((1.0, 1.0), (0.5, 1.0), (1.0, 2.0), (0.0, 1.0)):
        assert torch.allclose(kind(gamma, k).weight(level, noise), (k + snr) ** -gamma, rtol=1e-10)
        assert math.isclose(float(kind(gamma, k).weight(dark, noise)), k**-gamma)
        assert float(kind(gamma, k).weight(dark, find("predictions", "v")())) == 0
    for bad in ({"gamma": -1.0}, {"k": 0.0}):
        with pytest.raises(UnnoiseError):
            kind(**bad)


def distance(times: Tensor, cdf: Callable[[float], float]) -> float:
    """Largest gap between the share of times below t and what the analytic distribution says of t."""
    ordered, places = times.flatten().sort().values, torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    shares = torch.searchsorted(ordered, places) / len(ordered)
    return max(abs(share - cdf(t)) for share, t in zip(shares.tolist(), places.tolist(), strict=True))


def uniform() -> Tensor:
    return torch.rand(40000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def logit_normal_is_as_published(kind: Callable[..., Any]) -> None:
    """SD3, equation 19: the logit of t is N(mean, std), and a shift adds its logarithm."""
    for mean, std, shift in ((0.0, 1.0, 1.0), (-0.5, 0.7, 1.0), (0.2, 1.3, 3.0)):
        times = kind(mean=mean, std=std, shift=shift).times(uniform(), path("flow"))
        centre = mean + math.log(shift)
        assert distance(times, lambda t, m=centre, s=std: normal_cdf((math.log(t / (1 - t)) - m) / s)) < SPREAD
    with pytest.raises(UnnoiseError):
        kind(std=0.0)


def log_normal_sigma_is_as_published(kind: Callable[..., Any]) -> None:
    """EDM, table 1: ln sigma is N(-1.2, 1.2), in sigma/alpha, on every path."""
    for name in ("ve", "flow", "ddpm-linear"):
        on = path(name)
        times = kind(mean=-1.2, std=1.2).times(uniform(), on)
        sigmas = torch.as_tensor(on.at(times).sigma_hat).log()
        for z in (-1.5, -0.5, 0.0, 0.5, 1.5):
            assert abs(float((sigmas < -1.2 + 1.2 * z).double().mean()) - normal_cdf(z)) < SPREAD, name
    with pytest.raises(UnnoiseError):
        kind(std=-1.0)


def uniform_times_are_uniform(kind: Callable[..., Any]) -> None:
    flow, table = path("flow"), path("ddpm-linear")
    assert distance(kind().times(uniform(), flow), lambda t: t) < SPREAD
    times = kind().times(uniform(), table)
    places = times * 1000
    assert torch.equal(places, places.round()), "the levels of a table, and nothing between them"
    assert (int(places.min()), int(places.max())) == (1, 1000)


def times_are_in_range(sampler: Any) -> None:
    """Every quantile, the extreme ones too, gives a time that the path has and noise that is there."""
    u = torch.cat([uniform(), torch.tensor([0.0, 1e-17, 1 - 1e-16], dtype=torch.float64)]).reshape(-1, 1)
    for name in index("paths"):
        times = sampler.times(u, path(name))
        assert times.shape == u.shape
        assert times.dtype == torch.float64
        assert ((times > 0) & (times <= 1)).all(), name
        assert (torch.as_tensor(path(name).at(times).sigma) > 0).all()
