"""What stochastic solvers are made of: their weights, what their settings refuse, and steps within a step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from laws.world import FAMILIES, Gaussian, draw, finish, ladder, path
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import find
from unnoise.core.sample import sample
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.errors import UnnoiseError
from unnoise.solvers.reverse import adams, kept_and_fresh, moments

VARIANCE = 0.4
NOISY = ["dpm-2-a", "dpmpp-2m-sde", "dpmpp-2s-a", "dpmpp-3m-sde", "dpmpp-sde", "edm"]
NOISY += ["er-sde", "euler-a", "sa-solver", "seeds-2", "seeds-3"]


# coefficients


@pytest.mark.parametrize("length", [1e-6, 0.01, 0.5, 1.0, 1.999, 2.001, 20.0])
def test_moments_are_the_integrals(length: float) -> None:
    """H times the integral of e^(-H (1 - v)) v^n, by a rule of high order, for short steps and long."""
    places, weights = np.polynomial.legendre.leggauss(60)
    v = places / 2 + 0.5
    for n, found in enumerate(moments(length, 5)):
        wanted = float((weights / 2 * length * np.exp(-length * (1 - v)) * v**n).sum())
        assert math.isclose(found, wanted, rel_tol=1e-12)


@pytest.mark.parametrize("length", [0.05, 2.5])
def test_adams_is_exact_for_polynomials(length: float) -> None:
    for nodes in ([0.0], [0.0, -0.7], [1.0, 0.0], [0.0, -0.7, -2.0], [1.0, 0.0, -0.7, -2.0]):
        weights, wanted = adams(nodes, length), moments(length, len(nodes))
        for n, m in enumerate(wanted):
            assert math.isclose(sum(w * v**n for w, v in zip(weights, nodes, strict=True)), m, abs_tol=1e-12)


def test_kept_at_eta_one_is_the_posterior_s() -> None:
    for family in FAMILIES:
        for here, there in zip(ladder(path(family), 5), ladder(path(family), 5)[1:], strict=False):
            for a, b in zip(kept_and_fresh(here, there, 1.0), there.split(here, 1.0), strict=True):
                assert math.isclose(a, b, rel_tol=1e-12)


# settings and the loop


REFUSED = [
    ("euler-a", {"eta": 1.5}),
    ("euler-a", {"rule": "other"}),
    ("dpm-2-a", {"s_noise": -1.0}),
    ("dpmpp-2s-a", {"eta": float("nan")}),
    ("dpmpp-2m-sde", {"eta": -0.1}),
    ("dpmpp-2m-sde", {"form": "trapezium"}),
    ("dpmpp-3m-sde", {"eta": float("inf")}),
    ("dpmpp-sde", {"r": 1.0}),
    ("edm", {"low": 2.0, "high": 1.0}),
    ("edm", {"churn": -1.0}),
    ("er-sde", {"stages": 4}),
    ("er-sde", {"scale": "linear"}),
    ("sa-solver", {"predictor": 5}),
    ("sa-solver", {"corrector": 1}),
    ("seeds-2", {"r": 0.0}),
    ("seeds-3", {"r_1": 0.7}),
    ("tcd", {"eta": 1.1}),
    ("tcd", {"path": "nowhere"}),
]


@pytest.mark.parametrize(("name", "settings"), REFUSED)
def test_bad_settings_are_refused_by_name(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(UnnoiseError) as refusal:
        find("solvers", name)(**settings)
    key, value = next(iter(settings.items()))
    assert key in str(refusal.value) or str(value) in str(refusal.value)


@pytest.mark.parametrize("name", NOISY)
def test_s_noise_scales_what_is_drawn(name: str) -> None:
    """The weight of each draw in the next state is s_noise times what it was; at 0 nothing is drawn."""
    levels = ladder(path("flow"), 6)
    ends = []
    for s_noise in (0.0, 1.0, 2.0):
        source = NoiseSource([1], (5,), torch.float64)
        solver = find("solvers", name)(s_noise=s_noise)
        ends.append(finish(Gaussian(variance=VARIANCE).estimate, solver, levels, levels[0].sigma * draw(1, 5), source))
    assert torch.allclose(ends[2] - ends[1], ends[1] - ends[0], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(ends[1], ends[0])


class HalfSteps(Solver):
    """Goes half of the way to the next level, twice, and then the rest; each with fresh noise."""

    stochastic = True

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        made = state or 0
        reached = there if made == 2 or here.alpha == 0 or there.sigma == 0 else here.between(there, 0.5)
        z = noise.between(here, reached) if reached.sigma else torch.zeros_like(x)
        e = denoise(x, here, there)
        return Move(reached.alpha * e.x0 + reached.sigma * z, e, 0 if reached == there else made + 1, reached)


class Listening(NoiseSource):
    """Keeps the numbers of the steps that noise was asked for."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.steps: list[float] = []

    def at(self, index: float) -> NoiseSource:
        self.steps.append(index)
        return super().at(index)


def test_steps_within_a_step_draw_their_own_noise() -> None:
    """An adaptive solver that stops short of a level draws anew from there, and a restart there draws the same."""
    levels = [path("flow").at(1 - i / 4) for i in range(5)]
    source = Listening([1, 2], (3,), torch.float64)
    steps = list(sample(mixture_of_three, HalfSteps(), levels, draw(2, 3), source))
    assert len(source.steps) == len(set(source.steps)) == len(steps)
    assert source.steps == sorted(source.steps)
    assert {n for n in source.steps if n == int(n)} == {0, 1, 2, 3}, "at levels of the run the number is the level's"
    assert len(steps) == 8
    for step in steps[:-1]:
        again = list(sample(mixture_of_three, HalfSteps(), levels, draw(2, 3), Listening([1, 2], (3,)), step.run))
        assert torch.allclose(again[-1].run.x, steps[-1].run.x, rtol=0, atol=1e-6)


def mixture_of_three(x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Any:
    return Gaussian(mean=0.3).estimate(x, here)


def test_ordinary_runs_number_their_steps() -> None:
    """What they draw has not changed: step i draws for i."""
    levels = [path("flow").at(1 - i / 5) for i in range(6)]
    source = Listening([1], (3,), torch.float64)
    finish(mixture_of_three, find("solvers", "euler-a")(), levels, draw(1, 3), source)
    assert source.steps == [0, 1, 2, 3, 4]
    assert all(isinstance(n, int) for n in source.steps)
