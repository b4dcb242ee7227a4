"""Path: log-SNR falls in t; ``time_of`` inverts; the ends are exact; tensors and floats agree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from laws.world import path
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.errors import UnnoiseError

TIMES = [i / 257 for i in range(1, 258)]


def log_snr_falls(path: Path) -> None:
    levels = [path.at(t) for t in (0.0, *TIMES)]
    log_snrs = [float(level.log_snr) for level in levels]
    assert all(a > b for a, b in itertools.pairwise(log_snrs))
    assert all(level.alpha >= 0 and level.sigma >= 0 for level in levels)


def time_of_inverts(path: Path) -> None:
    for t in TIMES:
        level = path.at(t)
        assert abs(path.time_of(level) - t) < 1e-9
        elsewhere = NoiseLevel(level.alpha * 3, level.sigma * 3)  # the same log-SNR on another path
        assert abs(path.time_of(elsewhere) - t) < 1e-9
    assert path.time_of(path.at(0.0)) == 0
    assert path.time_of(NoiseLevel(0.0, 1.0)) == 1, "pure noise is the end of every path"
    assert path.time_of(path.at(1.0)) == 1


def onto_keeps_log_snr(path: Path) -> None:
    low, high = (float(path.at(t).sigma_hat) for t in (1e-4, 1.0))
    for sigma in (low, 0.5, 1.0, min(high, 50.0)):
        level = path.onto(NoiseLevel(1.0, sigma))
        assert math.isclose(float(level.sigma_hat), sigma, rel_tol=1e-9)


def ends_are_exact(path: Path) -> None:
    assert tuple(path.at(0.0)) == (1.0, 0.0), "t = 0 is the data, and nothing else"
    zero = path.at(torch.zeros(1))
    assert (float(zero.alpha), float(zero.sigma)) == (1.0, 0.0)
    end = path.at(1.0)
    assert end.alpha >= 0
    assert end.sigma > 0
    assert end.sigma_hat > 10, "t = 1 is noise"
    assert 0 < path.t_min < 0.1
    assert path.num_levels is None or math.isclose(path.t_min, 1 / path.num_levels)


def tensors_agree_with_floats(path: Path) -> None:
    times = torch.tensor([0.0, 1e-5, *TIMES], dtype=torch.float64)
    level = path.at(times)
    assert isinstance(level.alpha, torch.Tensor)
    assert isinstance(level.sigma, torch.Tensor)
    assert level.alpha.dtype == level.sigma.dtype == torch.float64
    assert level.alpha.shape == level.sigma.shape == times.shape
    back = torch.as_tensor(path.time_of(level))
    for i, t in enumerate(times.tolist()):
        alone = path.at(t)
        assert abs(float(level.alpha[i]) - alone.alpha) < 1e-12
        assert abs(float(level.sigma[i]) - alone.sigma) < 1e-12 * max(1.0, float(alone.sigma))
        assert abs(float(back[i]) - path.time_of(alone)) < 1e-12
    coarse = path.at(times.float().reshape(-1, 1, 1))
    assert isinstance(coarse.sigma, torch.Tensor)
    assert coarse.sigma.dtype == torch.float64, "levels are computed in float64 whatever the times are"
    assert coarse.sigma.shape == (len(times), 1, 1)


def zero_snr_is_as_published(kind: Callable[..., Path]) -> None:
    """Lin et al. 2023, algorithm 1, at every level of the three tables: alpha shifted, then scaled; the end is 0."""
    for name in ("ddpm-linear", "scaled-linear", "cosine"):
        inner = path(name)
        alphas = [float(inner.at((i + 1) / 1000).alpha) for i in range(1000)]
        for i, alpha in enumerate(alphas):
            wanted = (alpha - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])
            level = kind(inner).at((i + 1) / 1000)
            assert abs(float(level.alpha) - wanted) < 1e-14
            assert abs(float(level.sigma) ** 2 + wanted**2 - 1) < 1e-12
        assert tuple(kind(inner).at(1.0)) == (0.0, 1.0)
        assert kind(inner).at(5e-4) == inner.at(5e-4), "below the first level nothing moves"
        for law in LAWS:
            law(kind(inner))
    for bad in (path("flow"), path("vp"), kind()):
        with pytest.raises(UnnoiseError):
            kind(bad)


def vp_is_its_equation(vp: Callable[..., Path], sub_vp: Callable[..., Path]) -> None:
    """Song et al. 2021: d ln(alpha)/dt = -beta/2, and each variance is what its equation integrates to."""
    h = 1e-5
    for low, high in ((0.1, 20.0), (0.5, 12.0)):
        for t in (0.1, 0.5, 0.9):
            beta = low + (high - low) * t
            fade = 2 * (low * t + (high - low) * t * t / 2)
            for kind, rate in ((vp, 1.0), (sub_vp, 1 - math.exp(-fade))):  # noise comes in at beta times this
                before, here, after = (kind(low, high).at(t + d) for d in (-h, 0.0, h))
                slope = (math.log(after.alpha) - math.log(before.alpha)) / (2 * h)
                assert math.isclose(slope, -beta / 2, rel_tol=1e-6)
                grows = (float(after.sigma) ** 2 - float(before.sigma) ** 2) / (2 * h)
                assert math.isclose(grows, beta * rate - beta * float(here.sigma) ** 2, rel_tol=1e-5, abs_tol=1e-6)
        for kind in (vp, sub_vp):
            with pytest.raises(UnnoiseError):
                kind(high, low)


LAWS = [log_snr_falls, time_of_inverts, onto_keeps_log_snr, ends_are_exact, tensors_agree_with_floats]
