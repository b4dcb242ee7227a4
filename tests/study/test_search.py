"""Searched levels: the search is exact, its prices are what they say, and its levels beat those that are given."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from laws.world import draw, finish, mixture, path
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import find
from unnoise.errors import UnnoiseError
from unnoise.solvers.ddpm import DDPM
from unnoise.solvers.euler import Euler
from unnoise.study.search import Costs, best_levels, cheapest, costs


def fine(on: str) -> list[NoiseLevel]:
    levels: list[NoiseLevel] = find("spacings", "kl-optimal")().levels(path(on), 64)
    return levels


def random_prices(n: int, seed: int) -> Tensor:
    price = torch.rand(n, n + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(torch.arange(n + 1) > torch.arange(n)[:, None], price, math.inf)


def total(price: Tensor, way: list[int], coefficient: float) -> float:
    return sum(coefficient**k * float(price[i, j]) for k, (i, j) in enumerate(itertools.pairwise(way)))


def is_the_cheapest(search: Callable[[Tensor, int, float], list[int]]) -> None:
    """Against every subset of a small grid."""
    for seed, steps, coefficient in ((0, 1, 1.0), (1, 3, 1.0), (2, 4, 1.15), (3, 5, 0.3), (5, 4, 3.0), (4, 8, 1.0)):
        price = random_prices(8, seed)
        ways = [[0, *middle, 8] for middle in itertools.combinations(range(1, 8), steps - 1)]
        wanted = min(ways, key=lambda way: total(price, way, coefficient))
        assert search(price, steps, coefficient) == wanted


def test_the_search_is_exact() -> None:
    is_the_cheapest(cheapest)


def greedy(price: Tensor, steps: int, coefficient: float) -> list[int]:
    way, n = [0], len(price)
    for left in range(steps - 1, 0, -1):
        ahead = price[way[-1]].clone()
        ahead[n + 1 - left :] = math.inf
        way.append(int(ahead.argmin()))
    return [*way, n]


def coefficient_once(price: Tensor, steps: int, coefficient: float) -> list[int]:
    return cheapest(price, steps, 1.0)


@pytest.mark.parametrize("fault", [greedy, coefficient_once])
def test_faulty_searches_are_seen(fault: Callable[[Tensor, int, float], list[int]]) -> None:
    with pytest.raises(AssertionError):
        is_the_cheapest(fault)


@cache
def found(on: str = "flow", seed: int = 0, rows: int = 16) -> Costs:
    grid = fine(on)
    return costs(mixture().estimate, grid, draw(rows, 2, seed=seed) * grid[0].sigma)


def test_prices_are_what_is_left_of_an_error_at_the_end() -> None:
    """The price of a step, against exact flows: Euler's landing, followed exactly to the end, is about so far off."""
    world, grid, priced = mixture(), fine("flow"), found(rows=64)
    x = draw(64, 2)
    ends = world.endpoint(x, grid[0], grid[-1], 1e-7)
    assert (priced.end - ends).abs().max() < 0.01, "the trajectories are the flow's own"
    for i, j in ((0, 12), (0, 40), (10, 30), (30, 50), (40, 64)):
        here = world.endpoint(x, grid[0], grid[i], 1e-7) if i else x
        e = world.estimate(here, grid[i])
        landed = grid[j].mix(e.x0, e.eps)
        end = world.endpoint(landed, grid[j], grid[-1], 1e-7) if j < 64 else landed
        truth = float((end - ends).pow(2).mean().sqrt())
        assert 0.9 < float(priced.step[i, j]) / truth < 1.5, (i, j)
    ahead = torch.arange(65) > torch.arange(64)[:, None]
    assert torch.equal(torch.isfinite(priced.step), ahead), "every step down has a price, from pure noise too"


@cache
def truth(on: str) -> tuple[Tensor, Tensor]:
    """(starts, ends) of 256 exact trajectories that no search has seen."""
    grid = fine(on)
    x = draw(256, 2, seed=7) * grid[0].sigma
    return x, mixture().endpoint(x, grid[0], grid[-1], 1e-8)


def off(on: str, levels: list[NoiseLevel]) -> float:
    """How far Euler over these levels ends from the exact flow."""
    x, ends = truth(on)
    return float((finish(mixture().estimate, Euler(), levels, x) - ends).pow(2).mean().sqrt())


def given(on: str, name: str, steps: int) -> float:
    return off(on, find("spacings", name)().levels(path(on), steps))


@pytest.mark.parametrize("steps", range(5, 11))
@pytest.mark.parametrize(("on", "share"), [("flow", 0.97), ("ddpm-linear", 0.7)])
def test_searched_levels_beat_those_that_are_given(on: str, share: float, steps: int) -> None:
    limit = share * min(given(on, "trailing", steps), given(on, "karras", steps))
    for seed in (0, 3):  # from one batch of 16 and from another
        levels = best_levels(found(on, seed), steps)
        assert len(levels) == steps + 1
        assert off(on, levels) < limit


def test_the_dearest_levels_are_worse() -> None:
    """The control: the same search for what costs most finds levels that are worse than any spacing's."""
    priced = found()
    dear = torch.where(torch.isinf(priced.step), math.inf, priced.step.nan_to_num(posinf=0).max() - priced.step)
    worst = best_levels(priced._replace(step=dear), 8)
    assert off("flow", worst) > 2 * max(given("flow", name, 8) for name in ("trailing", "karras"))


def test_levels_can_be_typed() -> None:
    """As a custom spacing, written with five digits, they are the same levels."""
    from unnoise.cli.search import custom_text
    from unnoise.core.notation import make

    levels = best_levels(found(), 6)
    made = make("spacings", custom_text(path("flow"), levels)).levels(path("flow"), 6)
    for a, b in zip(levels, made, strict=True):
        assert a.sigma == pytest.approx(b.sigma, abs=1e-5)
    assert made[-1].sigma == 0


def test_what_cannot_be_searched_is_refused() -> None:
    for call in (
        lambda: cheapest(random_prices(8, 0), 9),
        lambda: cheapest(random_prices(8, 0), 0),
        lambda: cheapest(random_prices(8, 0), 3, 0.0),
        lambda: costs(mixture().estimate, fine("flow")[:-1], draw(2, 2)),
        lambda: costs(mixture().estimate, fine("flow"), draw(2, 2), DDPM()),
    ):
        with pytest.raises(UnnoiseError):
            call()
