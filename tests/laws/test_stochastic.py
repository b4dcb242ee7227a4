"""Stochastic solvers as laws: one path of noise, one limit, the right marginals; and what single forms promise."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from laws import noise as noise_laws
from laws.solvers import strong_errors, weak_errors
from laws.world import Gaussian, draw, finish, ladder, mixture, path, slope
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import BrownianNoise, NoiseSource, _levy
from unnoise.core.registry import find
from unnoise.core.sample import Run, sample
from unnoise.core.solver import Solver
from unnoise.solvers.dpmpp_3m_sde import DPMpp3MSDE
from unnoise.solvers.seeds import Seeds2

VARIANCE = 0.4


@pytest.mark.parametrize("law", noise_laws.BROWNIAN_LAWS)
def test_brownian_noise(law: Callable[[type[NoiseSource]], None]) -> None:
    law(BrownianNoise)


def test_levy_s_weights_are_exactly_brownian() -> None:
    """No sampling: an increment's squared weights sum to its length, and disjoint increments are orthogonal."""
    levels = [*noise_laws.GRID, *ladder(path("flow"), 20, top=0.009, low=0.002)]
    known = [_levy(level) for level in levels]
    lengths = [b[0] - a[0] for a, b in pairwise(known)]
    changes = [{k: b.get(k, 0.0) - a.get(k, 0.0) for k in a | b} for (_, a), (_, b) in pairwise(known)]
    for i, (length, own) in enumerate(zip(lengths, changes, strict=True)):
        assert math.isclose(sum(w * w for w in own.values()), length, rel_tol=1e-9)
        for other_length, other in zip(lengths[:i], changes[:i], strict=True):
            shared = sum(w * other.get(key, 0.0) for key, w in own.items())
            assert abs(shared) < 1e-9 * math.sqrt(length * other_length)


# one path, refined


PATHWISE: dict[str, dict[str, Any]] = {
    "ddim": {"eta": 1.0},
    "ddpm": {},
    "dpm-2-a": {},
    "dpmpp-2m-sde": {},
    "dpmpp-2s-a": {},
    "dpmpp-3m-sde": {},
    "dpmpp-sde": {},
    "er-sde": {"scale": "power"},
    "euler-a": {},
    "sa-solver": {},
    "seeds-2": {},
    "seeds-3": {},
}
WIDE = 1000


def along(solver: Solver, num_steps: int) -> Tensor:
    """The end, over alpha, of runs from sigma_hat 10 to 0.1 along Brownian paths that do not depend on the grid."""
    levels = ladder(path("flow"), num_steps, low=0.1)
    x = levels[0].mix(math.sqrt(VARIANCE) * draw(1, WIDE), draw(1, WIDE, seed=1))
    source = BrownianNoise([3], (WIDE,), torch.float64)
    return finish(Gaussian(variance=VARIANCE).estimate, solver, levels, x, source) / levels[-1].alpha


@cache
def limit() -> Tensor:
    return along(Seeds2(), 512)


@pytest.mark.parametrize("name", PATHWISE)
def test_one_path_one_picture(name: str) -> None:
    """Every solver of the reverse diffusion comes to the same end on the same path: strong order 1, which is what
    additive noise allows to those who see it through its increments alone."""
    solver = find("solvers", name)(**PATHWISE[name])
    errors = [float((along(solver, n) - limit()).pow(2).mean().sqrt()) for n in (32, 64)]
    assert 0.85 < slope(errors) < 1.1, slope(errors)
    assert errors[-1] < 0.05


def test_independent_noise_is_another_picture_at_every_grid() -> None:
    """The negative control: with noise of the step's number, 64 and 128 steps end as far apart as strangers."""

    def end(num_steps: int) -> Tensor:
        levels = ladder(path("flow"), num_steps, low=0.1)
        x = levels[0].mix(math.sqrt(VARIANCE) * draw(1, WIDE), draw(1, WIDE, seed=1))
        source = NoiseSource([3], (WIDE,), torch.float64)
        return finish(Gaussian(variance=VARIANCE).estimate, Seeds2(), levels, x, source) / levels[-1].alpha

    assert float((end(64) - end(128)).pow(2).mean().sqrt()) > 0.5


def test_one_point_needs_no_grid() -> None:
    """Around one point the ancestral step is exact, and so is the path's time: 3 steps end where 48 do."""
    on, zero = path("ddpm-linear"), Gaussian(variance=0.0)
    ends = []
    for num_steps in (3, 48):
        levels = ladder(on, num_steps)
        x = levels[0].sigma * draw(1, 50)
        source = BrownianNoise([3], (50,), torch.float64)
        ends.append(finish(zero.estimate, find("solvers", "euler-a")(), levels, x, source))
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-7)


# marginals, as they come out


MANY = 300_000
STEPS = {"euler-a": 60, "edm": 12}  # so that what they are wrong by is far below what the test can see
MARGINAL: dict[str, list[dict[str, Any]]] = {
    "dpm-2-a": [{}],
    "dpmpp-2m-sde": [{}],
    "dpmpp-2s-a": [{}],
    "dpmpp-3m-sde": [{}],
    "dpmpp-sde": [{}],
    "edm": [{"churn": 0.6}],
    "er-sde": [{}],
    "sa-solver": [{}],
    "seeds-2": [{}],
    "seeds-3": [{}],
    "euler-a": [{}],
}


def kolmogorov(x: Tensor, level: NoiseLevel) -> tuple[float, float]:
    """p of a test that x is as the path says, and of the same draws with a variance 3 % too large."""
    scale = math.sqrt(VARIANCE * float(level.alpha) ** 2 + float(level.sigma) ** 2)
    z = (x / scale).flatten().numpy()
    return tuple(float(stats.kstest(z * factor, "norm").pvalue) for factor in (1.0, math.sqrt(1.03)))  # type: ignore


@pytest.mark.parametrize("name", MARGINAL)
def test_marginals_are_gaussian(name: str) -> None:
    """Of Gaussian data the state at a level is Gaussian, with the path's variance; 3 % more would be seen."""
    for settings in MARGINAL[name]:
        solver = find("solvers", name)(**settings)
        levels = ladder(path("flow"), STEPS.get(name, 6), top=1.2, low=0.8)
        x = levels[0].mix(math.sqrt(VARIANCE) * draw(1, MANY, seed=2), draw(1, MANY, seed=3))
        x = finish(Gaussian(variance=VARIANCE).estimate, solver, levels, x, NoiseSource([8], (MANY,), torch.float64))
        right, wrong = kolmogorov(x, levels[-1])
        assert right > 0.01
        assert wrong < 1e-2


# orders that are not the class's


@pytest.mark.parametrize(("form", "order"), [("corrected", 3), ("published", 2)])
def test_three_m_without_noise(form: Any, order: int) -> None:
    """From a history on the exact trajectory, so that the start costs nothing: the published weights lose an order."""
    errors = []
    for num_steps in (32, 64):
        levels = ladder(path("ve"), num_steps)
        start = levels[0].mix(mixture().sample(16), draw(16, 2))
        known = [mixture().endpoint(start, levels[0], level) for level in levels[1:3]]
        points = [(mixture().estimate(x, level).x0, level.log_snr) for x, level in zip(known, levels[1:3], strict=True)]
        points = [points[0], (mixture().estimate(start, levels[0]).x0, levels[0].log_snr)]
        solver, source = DPMpp3MSDE(eta=0.0, form=form), NoiseSource(range(16), (2,), torch.float64)
        run = Run(known[1], levels[2], 2, tuple(points))
        x = known[1]
        for step in sample(mixture().estimate, solver, levels, x, source, run):
            x = step.run.x
        errors.append(float((x - mixture().endpoint(start, levels[0], levels[-1])).norm(dim=1).mean()))
    assert abs(slope(errors) - order) < 0.15, slope(errors)


@pytest.mark.parametrize(
    ("name", "settings", "low", "high"),
    [
        ("seeds-3", {"eta": 0.0}, 2.85, 3.15),
        ("sa-solver", {"tau": 0.0}, 2.85, 4.0),
        ("er-sde", {"scale": "power", "eta": 0.0}, 2.4, 3.15),
        ("er-sde", {"scale": "power", "eta": 0.0, "form": "published"}, 1.0, 1.9),
    ],
)
def test_order_without_noise(name: str, settings: dict[str, Any], low: float, high: float) -> None:
    assert low < slope(strong_errors(find("solvers", name)(**settings), "ve")) < high


@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [
        ({}, 1.85, 3.0),
        ({"stages": 2}, 1.85, 2.15),
        ({"form": "published"}, 0.0, 1.6),
    ],
)
def test_order_of_er_sde(settings: dict[str, Any], low: float, high: float) -> None:
    """Left sums of 200 points are wrong by a share of themselves, which more steps do not lessen much."""
    for family in ("flow", "ve"):
        assert low < slope(weak_errors(find("solvers", "er-sde")(**settings), family)) < high


def test_order_of_a_corrected_euler_step() -> None:
    """A corrector of two pictures raises the first-order prediction to the second order."""
    measured = slope(weak_errors(find("solvers", "sa-solver")(predictor=1, corrector=2), "ve"))
    assert abs(measured - 2) < 0.15, measured
