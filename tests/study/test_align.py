"""Aligned levels: the bound is the paper's, bounds what it should, is least where it is said to be, and is of use."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from laws.world import Gaussian, draw, finish, mixture, variances
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import find
from unnoise.core.solver import Denoise
from unnoise.errors import UnnoiseError
from unnoise.solvers.euler_a import EulerA
from unnoise.spacings.align_your_steps import KNOTS
from unnoise.study.align import aligned, bounds, losses

TOP, LOW = KNOTS["mixture"][0], KNOTS["mixture"][-1]
CLEAN = NoiseLevel(1.0, 0.0)


def grid(num: int, low: float = LOW) -> list[NoiseLevel]:
    """Levels even in the logarithm of sigma, on the path whose alpha is 1."""
    return [NoiseLevel(1.0, TOP * (low / TOP) ** (i / num)) for i in range(num + 1)]


def ramp(name: str, n: int, low: float = LOW) -> list[float]:
    """n + 1 values of sigma between the two ends."""
    even = [i / n for i in range(n + 1)]
    if name == "karras":
        return [(TOP ** (1 / 7) + u * (low ** (1 / 7) - TOP ** (1 / 7))) ** 7 for u in even]
    if name == "log-snr":
        return [TOP * (low / TOP) ** u for u in even]
    return [math.tan(math.atan(TOP) + u * (math.atan(low) - math.atan(TOP))) for u in even]  # kl-optimal


@cache
def world(num: int = 600) -> tuple[list[NoiseLevel], Tensor]:
    """(levels, loss of the perfect denoiser) of the mixture: what is open about the picture, a mean of 500 draws."""
    levels, x0, eps = grid(num), mixture().sample(500, seed=1), draw(500, 2, seed=2)
    floors = [mixture().dim * mixture().loss_floor(level.mix(x0, eps), level).mean() for level in levels]
    return levels, torch.stack(floors)


def bound(price: Tensor, levels: list[NoiseLevel], sigmas: list[float]) -> float:
    """Of a run over the grid's levels that are nearest to these."""
    logs = [math.log(float(level.sigma)) for level in levels]
    way = [min(range(len(logs)), key=lambda i: abs(logs[i] - math.log(sigma))) for sigma in sigmas]
    return float(sum(price[i, j] for i, j in pairwise(way)))


def as_defined(denoise: Denoise, start: float, stop: float) -> float:
    """The paper's integral over one step by its definition, a mean of 10,000 trajectories of the forward process."""
    x0, first, more = mixture().sample(10_000, seed=5), draw(10_000, 2, seed=6), draw(10_000, 2, seed=7)
    times = torch.linspace(start**-2, stop**-2, 21, dtype=torch.float64).tolist()
    values = []
    for time in times:
        here = NoiseLevel(1.0, time**-0.5)
        x = here.mix(x0, first)
        noisier = x + math.sqrt(max(0.0, start**2 - here.sigma**2)) * more
        kept = denoise(noisier, NoiseLevel(1.0, start), here).x0
        values.append((denoise(x, here, here).x0 - kept).pow(2).sum(1).mean())
    return float(torch.trapezoid(torch.stack(values), torch.tensor(times, dtype=torch.float64))) / 2


def halfway(x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
    """A denoiser with a fault: its picture is no mean of any."""
    e = mixture().estimate(x, here)
    return e._replace(x0=0.6 * e.x0)


@pytest.mark.slow
def test_the_bound_is_as_defined() -> None:
    """A difference of losses in place of a difference of pictures; for a denoiser that is no mean the two differ."""
    for start, stop in ((3.0, 1.2), (0.8, 0.5)):
        levels = [NoiseLevel(1.0, start * (stop / start) ** (i / 40)) for i in range(41)]
        x0, eps = mixture().sample(10_000, seed=8), draw(10_000, 2, seed=9)
        for denoise, same in ((mixture().estimate, True), (halfway, False)):
            price = float(bounds(levels, losses(denoise, levels, x0, eps))[0, -1])
            assert math.isclose(price, as_defined(denoise, start, stop), rel_tol=0.05) == same, (start, same)


def test_the_losses_are_the_mixture_s_own() -> None:
    levels, exact = world()
    some = range(0, 601, 60)
    x0, eps = mixture().sample(20_000, seed=3), draw(20_000, 2, seed=4)
    measured = losses(mixture().estimate, [levels[i] for i in some], x0, eps)
    assert torch.allclose(measured, exact[list(some)], rtol=0.06)


def gaussian(levels: list[NoiseLevel], v: float = 0.4) -> Tensor:
    return torch.tensor([v / (1 + v / float(level.sigma) ** 2) for level in levels], dtype=torch.float64)


def test_one_gaussian_has_a_closed_form() -> None:
    """Its loss is v/(1 + v T), the area ln(1 + v T)/2; the best levels leave the bound's derivative at 0."""
    levels, v = grid(2000), 0.4
    price, t = bounds(levels, gaussian(levels)), [float(level.sigma) ** -2 for level in levels]
    for i, j in ((0, 2000), (0, 700), (500, 1400), (1999, 2000)):
        exact = (v / (1 + v * t[i]) * (t[j] - t[i]) - math.log((1 + v * t[j]) / (1 + v * t[i]))) / 2
        assert math.isclose(float(price[i, j]), exact, rel_tol=2e-3)
    best = [float(level.sigma) ** -2 for level in aligned(levels, gaussian(levels), 8)[:-1]] + [t[-1]]
    for before, here, after in zip(best, best[1:], best[2:], strict=False):
        falls = v / (1 + v * before) - v / (1 + v * here)
        assert math.isclose(after - here, falls / (v / (1 + v * here)) ** 2, rel_tol=0.02)


def divergence(sigmas: list[float], v: float = 0.4) -> float:
    """KL of the end of `euler-a` on N(0, v), which starts exactly, from the law at the last level; nothing is drawn."""
    levels = [NoiseLevel(1.0, sigma) for sigma in sigmas]
    end = variances(Gaussian(0.0, v).estimate, EulerA(), levels, v + sigmas[0] ** 2)[-1]
    ratio = end / (v + sigmas[-1] ** 2)
    return (ratio - 1 - math.log(ratio)) / 2


@pytest.mark.parametrize("n", [5, 10])
def test_the_bound_bounds(n: int) -> None:
    """The exact divergence of the ends is below the bound for every choice, and least of all for the aligned levels."""
    levels = grid(600)
    price = bounds(levels, gaussian(levels))
    own = [float(level.sigma) for level in aligned(levels, gaussian(levels), n)[:-1]] + [LOW]
    least = bound(price, levels, own)
    assert 0 < divergence(own) < least
    for name in ("karras", "log-snr", "kl-optimal"):
        other = ramp(name, n)
        assert divergence(other) < bound(price, levels, other)
        assert least < bound(price, levels, other)
        assert divergence(own) < divergence(other)


def test_the_knots_are_the_mixture_s() -> None:
    """The table is what the search finds; the table with one knot moved, and ramps between the same ends, are worse."""
    levels, loss = world()
    price, knots = bounds(levels, loss), list(KNOTS["mixture"])
    found = [float(level.sigma) for level in aligned(levels, loss, 10)[:-1]] + [LOW]
    assert found == pytest.approx(knots, rel=0.02)
    least = bound(price, levels, found)
    assert bound(price, levels, knots) < 1.002 * least
    for number in range(1, 10):
        moved = [sigma * (1.12 if i == number else 1) for i, sigma in enumerate(knots)]
        assert bound(price, levels, moved) > 1.005 * least, number
    for name in ("karras", "log-snr", "kl-optimal"):
        assert bound(price, levels, ramp(name, 10)) > 1.5 * least


class OneDraw(NoiseSource):
    """Noise of a whole batch at once, for thousands of rows."""

    def at(self, index: float) -> NoiseSource:
        return OneDraw(self.seeds, self.shape, self.dtype, self.device, index)

    def between(self, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        return draw(6000, 2, seed=1000 + int(self.index))


def test_aligned_levels_are_of_use_to_the_solver_that_they_are_for() -> None:
    """Ten steps of `euler-a` end nearer to the data's law than over the published knots: Wasserstein, 16 directions."""
    angles = torch.arange(16, dtype=torch.float64) / 16 * math.pi
    across = torch.stack([angles.cos(), angles.sin()])
    data = (mixture().sample(6000, 11) @ across).sort(0).values
    off = {}
    for name in ("mixture", "sd", "sdxl"):
        levels = [*(NoiseLevel(1.0, sigma) for sigma in KNOTS[name][:-1]), CLEAN]
        x = levels[0].mix(mixture().sample(6000, 13), draw(6000, 2, seed=14))
        end = finish(mixture().estimate, EulerA(), levels, x, OneDraw([0], (2,), torch.float64))
        off[name] = float(((end @ across).sort(0).values - data).pow(2).mean().sqrt())
    assert off["mixture"] < 0.92 * min(off["sd"], off["sdxl"]), off


def test_a_loss_that_rises_is_taken_for_level() -> None:
    levels = grid(3)
    rising = torch.tensor([1.0, 0.5, 0.6, 0.1])
    assert torch.equal(bounds(levels, rising), bounds(levels, torch.tensor([1.0, 0.5, 0.5, 0.1])))
    assert (bounds(levels, rising) >= 0).all()


def test_pure_noise_may_be_the_first_level() -> None:
    flow = find("paths", "flow")()
    levels = [flow.at(1 - i / 10) for i in range(10)]
    found = aligned(levels, gaussian([NoiseLevel(1.0, 1e9), *levels[1:]]), 4)
    assert (found[0], found[-1], len(found)) == (levels[0], CLEAN, 5)


def test_what_has_no_bound_is_refused() -> None:
    levels = grid(4)
    for call in (
        lambda: bounds([*levels, CLEAN], torch.ones(6)),
        lambda: bounds(levels[::-1], torch.ones(5)),
        lambda: aligned(levels, torch.ones(5), 0),
        lambda: aligned(levels, torch.ones(5), 5),
    ):
        with pytest.raises(UnnoiseError):
            call()
