"""Path: log-SNR falls in t; ``time_of`` inverts; the ends are exact; tensors and floats agree."""

from __future__ import annotations

import itertools
import math

import torch

from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path

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


LAWS = [log_snr_falls, time_of_inverts, onto_keeps_log_snr, ends_are_exact, tensors_agree_with_floats]
