"""Spacing: n steps are n + 1 levels of the path that fall, from its noisiest to exactly the data."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from laws.world import every_path, only
from laws.world import path as find_path
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import find
from unnoise.core.spacing import Spacing
from unnoise.errors import UnnoiseError
from unnoise.spacings.quantiles import beta_cdf

Make = Callable[[int], Spacing]  # a spacing that will be asked for so many steps

SETTINGS: dict[str, list[Callable[[int], dict[str, Any]]]] = {  # for those that have no defaults, or more than one face
    "custom": [
        lambda n: {"times": [1 - i / n for i in range(n)]},
        lambda n: {"sigmas": [9.0 * 0.7**i for i in range(n)]},
    ],
    "shifted": [lambda n: {}, lambda n: {"shift": 0.5}],
    "leading": [lambda n: {}, lambda n: {"offset": 0}, lambda n: {"end": "first"}, lambda n: {"cleanest": False}],
    "trailing": [lambda n: {}, lambda n: {"end": "first"}],
    "linspace": [lambda n: {}, lambda n: {"cleanest": False}],
    "lcm": [lambda n: {"original": max(n, 50)}, lambda n: {"original": 100 * math.ceil(n / 100)}],
    "poly-exponential": [lambda n: {}, lambda n: {"rho": 2.5}],
    "align-your-steps": [lambda n: {}, lambda n: {"knots": "sdxl"}, lambda n: {"knots": "mixture"}],
    "resolution-shifted": [lambda n: {}, lambda n: {"rule": "sd3"}],
    "curve": [lambda n: {}, lambda n: {"times": [1, 0.9, 0.3, 0.2]}],
    "kl-optimal": [lambda n: {}, lambda n: {"std": 0.5}],
}
STARTS_LOWER = {"leading": "by design", "custom": "as its list has it"}
COUNTS = (1, 2, 7, 13, 50)
SHAPE = (3, 16, 16)


def makers(name: str) -> list[Make]:
    cls = find("spacings", name)
    return [lambda n, s=s: cls(**s(n)) for s in SETTINGS.get(name, [lambda n: {}])]


def runs(make: Make) -> list[tuple[Path, int, list[NoiseLevel]]]:
    return [(path, n, make(n).levels(path, n, SHAPE)) for path in every_path() for n in COUNTS]


def has_one_level_more_than_steps(make: Make) -> None:
    for path, n, levels in runs(make):
        assert len(levels) == n + 1, (path, n)
        assert all(type(part) is float for level in levels for part in level), "a plan is made of Python floats"


def falls(path: Path, n: int, levels: list[NoiseLevel]) -> None:
    sigmas = [float(level.sigma_hat) for level in levels]
    assert all(a > b for a, b in itertools.pairwise(sigmas)), (path, n, sigmas)


def stops_short(make: Make) -> bool:
    """Whether the setting ends a run at a level that networks were trained at, and not at data."""
    return getattr(make(8), "end", "data") == "first"


@only(lambda make: not stops_short(make))
def falls_to_exact_data(make: Make) -> None:
    for path, n, levels in runs(make):
        falls(path, n, levels)
        assert tuple(levels[-1]) == tuple(path.at(0.0))
        assert levels[-1].sigma == 0


@only(stops_short)
def falls_to_the_first_level(make: Make) -> None:
    """The cleanest of a table; where a path has none, the cleanest of as many as tables have."""
    for path, n, levels in runs(make):
        falls(path, n, levels)
        assert tuple(levels[-1]) == tuple(path.at(1 / (path.num_levels or 1000)))
        assert levels[-1].sigma > 0


def starts_at_the_top(make: Make) -> None:
    for path, n, levels in runs(make):
        end = path.at(1.0)
        if make(n).name in STARTS_LOWER:
            assert levels[0].sigma_hat <= end.sigma_hat
            continue
        assert math.isclose(levels[0].alpha, end.alpha, rel_tol=1e-9), (path, n)
        assert math.isclose(levels[0].sigma, end.sigma, rel_tol=1e-9), (path, n)


def keeps_to_the_path(make: Make) -> None:
    for path, _, levels in runs(make):
        for level in levels:
            own = path.onto(level)
            assert math.isclose(own.alpha, level.alpha, rel_tol=1e-9, abs_tol=1e-12)
            assert math.isclose(own.sigma, level.sigma, rel_tol=1e-9, abs_tol=1e-12)


def refuses_a_run_of_no_steps(make: Make) -> None:
    for n in (0, -3):
        with pytest.raises(UnnoiseError):
            make(1).levels(find_path("flow"), n, SHAPE)


def keeps_its_word_for_many_steps(make: Make) -> None:
    """More steps than a table has levels are as many steps, or are refused; they are never fewer."""
    table = find_path("ddpm-linear")
    for n in (999, 1000, 1001):
        try:
            levels = make(n).levels(table, n, SHAPE)
        except UnnoiseError:
            spare = stops_short(make) or not getattr(make(n), "cleanest", True)
            assert n > (999 if spare else 1000) or make(n).name == "custom"
            continue
        assert len(levels) == n + 1
        assert all(a.sigma_hat > b.sigma_hat for a, b in itertools.pairwise(levels))


def has_a_shift(make: Make) -> bool:
    return "shift" in inspect.signature(type(make(8))).parameters


@only(has_a_shift)
def shift_is_applied_once(make: Make) -> None:
    """On the flow path t' = s t / (1 + (s - 1) t), and shift(a) of shift(b) is shift(ab)."""
    cls = type(make(8))
    flow = find_path("flow")
    plain, moved = (cls(shift=s).levels(flow, 8) for s in (1.0, 3.0))
    for before, after in zip(plain, moved, strict=True):
        t = before.sigma
        assert math.isclose(after.sigma, 3 * t / (1 + 2 * t), rel_tol=1e-12)
    for each in every_path():
        plain, moved = (cls(shift=s).levels(each, 200) for s in (1.0, 3.0))
        if float(plain[-2].sigma_hat) < 1e-3 * float(plain[0].sigma_hat):  # far below the end: the plain factor
            ratio = float(moved[-2].sigma_hat) / float(plain[-2].sigma_hat)
            assert math.isclose(ratio, 3, rel_tol=3e-3)
        both, twice = cls(shift=6.0).levels(each, 8), cls(shift=2.0, inner=cls(shift=3.0)).levels(each, 8)
        for a, b in zip(both, twice, strict=True):
            assert math.isclose(a.sigma, b.sigma, rel_tol=1e-9)


def leading_is_as_published(kind: Callable[..., Spacing]) -> None:
    """DDIM's list with Stable Diffusion's offset: every (1000/n)-th index, counted up from 1."""
    for name in ("ddpm-linear", "scaled-linear"):
        on = find_path(name)
        for n, wanted in ((10, range(901, 0, -100)), (50, range(981, 0, -20)), (13, range(913, 0, -76))):
            levels = kind(offset=1).levels(on, n)
            assert [round(on.time_of(level) * 1000) - 1 for level in levels[:-1]] == list(wanted)


def beta_is_of_the_timestep(kind: Callable[..., Spacing]) -> None:
    """Lee et al. 2024: times are evenly likely under a Beta(0.6, 0.6) law, which is its own mirror image."""
    for on in every_path():
        levels = kind().levels(on, 12)
        places = [(float(on.time_of(level)) - on.t_min) / (1 - on.t_min) for level in levels[:-1]]
        for i in range(1, 12):
            assert math.isclose(places[i] + places[12 - i], 1, rel_tol=1e-9)
            assert math.isclose(beta_cdf(places[i], 0.6, 0.6), 1 - i / 12, rel_tol=1e-6)


LAWS = [
    has_one_level_more_than_steps,
    falls_to_exact_data,
    falls_to_the_first_level,
    starts_at_the_top,
    keeps_to_the_path,
    refuses_a_run_of_no_steps,
    keeps_its_word_for_many_steps,
    shift_is_applied_once,
]
