"""Solvers against formulas worked out by hand, on one Gaussian, and against one another where they are one method."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from laws.world import FAMILIES, Gaussian, draw, finish, ladder, mixture, path, variances
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import Past
from unnoise.core.noise import NoiseSource
from unnoise.core.solver import Solver
from unnoise.solvers.ddim import DDIM
from unnoise.solvers.ddpm import DDPM
from unnoise.solvers.dpmpp_2m import DPMpp2M
from unnoise.solvers.euler import Euler
from unnoise.solvers.heun import Heun
from unnoise.solvers.ipndm import IPNDM
from unnoise.spacings.karras import Karras

VARIANCE = 0.4


def noise(rows: int) -> NoiseSource:
    return NoiseSource(range(rows), (2,), torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
def test_euler_and_heun_multiply_the_deviation(family: str) -> None:
    """Euler by (s^2 + sigma sigma') / (s^2 + sigma^2); Heun by 1 + (sigma' - sigma)(k + k' euler) / 2."""
    here, there = ladder(path(family), 4)[1:3]
    a, b, s = float(here.sigma_hat), float(there.sigma_hat), VARIANCE
    x = draw(6, 2)
    euler = (s + a * b) / (s + a * a)
    heun = 1 + (b - a) * (a / (s + a * a) + b / (s + b * b) * euler) / 2
    for solver, factor in ((Euler(), euler), (Heun(), heun)):
        move = solver.step(Gaussian(variance=s).estimate, here.alpha * x, here, there, None, noise(6))
        assert torch.allclose(move.x / there.alpha, factor * x, rtol=0, atol=1e-12)


def test_two_m_is_the_published_line() -> None:
    """Lu et al. 2022, algorithm 2: sigma'/sigma x - alpha'(e^-h - 1) ((1 + 1/2r) D - D_before/2r). Uneven grid."""
    levels = [NoiseLevel(0.3, 0.95), NoiseLevel(0.5, 0.8), NoiseLevel(0.9, 0.4)]
    denoise = mixture().estimate
    x0 = draw(6, 2)
    first = DPMpp2M().step(denoise, x0, levels[0], levels[1], None, noise(6))
    second = DPMpp2M().step(denoise, first.x, levels[1], levels[2], first.state, noise(6))
    lam = [math.log(level.alpha / level.sigma) for level in levels]
    h_before, h = lam[1] - lam[0], lam[2] - lam[1]
    r = h_before / h
    d_before, d = denoise(x0, levels[0]).x0, denoise(first.x, levels[1]).x0
    mixed = (1 + 1 / (2 * r)) * d - d_before / (2 * r)
    wanted = levels[2].sigma / levels[1].sigma * first.x - levels[2].alpha * (math.exp(-h) - 1) * mixed
    assert torch.allclose(second.x, wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("num_steps", [10, 50, 200])
def test_ancestral_variance_follows_its_recursion(num_steps: int) -> None:
    """v' = k^2 v + sigma'^2 (1 - c), with c = (sigma'/sigma)^2 and k = c + (1 - c) s^2 / (s^2 + sigma^2).

    The truth is 0.4: ancestral steps narrow the data, for they draw as if it were one point. What is missing in a step
    is (1 - c)^2 s^2 sigma^2 / (s^2 + sigma^2), Bao et al. 2022's optimal covariance: with it any number is exact.
    """
    levels = Karras().levels(path("ve"), num_steps)
    v = VARIANCE + float(levels[0].sigma) ** 2
    found = variances(Gaussian(variance=VARIANCE).estimate, DDPM(), levels, v)
    exact = v
    for i in range(num_steps):
        a, b = float(levels[i].sigma), float(levels[i + 1].sigma)
        c = (b / a) ** 2
        k = c + (1 - c) * VARIANCE / (VARIANCE + a * a)
        v = k * k * v + b * b * (1 - c)
        exact = k * k * exact + b * b * (1 - c) + (1 - c) ** 2 * VARIANCE * a * a / (VARIANCE + a * a)
        assert math.isclose(found[i], v, rel_tol=1e-12)
    assert v < VARIANCE - 4 / (10 * num_steps)
    assert math.isclose(exact, VARIANCE, rel_tol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_method_under_two_names(family: str) -> None:
    """DDIM(0) is Euler; DDIM(1) is DDPM with the small variance; the first step of 2M is Euler's."""
    levels = [*ladder(path(family), 8), path(family).at(0.0)]
    x = levels[0].mix(mixture().sample(16), draw(16, 2))

    def end(solver: Solver, upto: int = 9) -> torch.Tensor:
        return finish(mixture().estimate, solver, levels[: upto + 1], x, noise(16))

    assert torch.allclose(end(DDIM(0.0)), end(Euler()), rtol=0, atol=1e-13)
    assert torch.allclose(end(DDIM(1.0)), end(DDPM("small")), rtol=0, atol=1e-13)
    assert torch.allclose(end(DPMpp2M(), 1), end(Euler(), 1), rtol=0, atol=1e-13)
    assert not torch.allclose(end(DDIM(1.0)), end(DDPM("large")), rtol=0, atol=1e-3)
    assert not torch.allclose(end(DDIM(0.5)), end(DDIM(1.0)), rtol=0, atol=1e-3)


@pytest.mark.parametrize("solver", [Euler(), Heun(), DPMpp2M(), DDIM(0.5), DDPM(), DDPM("large")])
def test_the_path_does_not_matter(solver: Solver) -> None:
    """The same levels of log-SNR on three paths give the same picture, with the same noise: to the printed digits."""
    ends = []
    if getattr(solver, "variance", "") == "large":  # sqrt(beta) is a variance of the path's own step
        return
    for family in FAMILIES:
        levels = [*ladder(path(family), 12), path(family).at(0.0)]
        x = levels[0].alpha * 10 * draw(16, 2)
        ends.append(finish(mixture().estimate, solver, levels, x, noise(16)))
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-11)
    assert torch.allclose(ends[0], ends[2], rtol=0, atol=1e-11)


def test_large_variance_is_beta() -> None:
    """DDPM's other choice: the variance of the forward step, 1 - abar_t / abar_s, whatever the levels skipped."""
    ddpm = path("ddpm-linear")
    here, there = ddpm.at(0.5), ddpm.at(0.4)
    zero = torch.zeros(1, 2, dtype=torch.float64)
    source = noise(1).at(0)
    move = DDPM("large").step(Gaussian(variance=VARIANCE).estimate, zero, here, there, None, source)
    z = noise(1).at(0).between(here, there)
    assert torch.allclose(move.x, math.sqrt(1 - (here.alpha / there.alpha) ** 2) * z, rtol=1e-12)


def ipndm_local_order(sigmas: Callable[[int, float], float]) -> float:
    """How fast the error of one iPNDM step with four exact values shrinks as the steps are halved."""
    start, errors = mixture().sample(32, seed=3) + 3.0 * draw(32, 2), []
    for h in (0.1, 0.05):
        levels = [NoiseLevel(1.0, sigmas(k, h)) for k in range(5)]
        exact = [mixture().endpoint(start, levels[0], level) if k else start for k, level in enumerate(levels)]
        told = [(level, mixture().estimate(x, level).eps) for level, x in zip(levels, exact, strict=True)]
        past = Past((told[2], told[1], told[0]))
        move = IPNDM().step(mixture().estimate, exact[3], levels[3], levels[4], past, noise(32))
        errors.append(float((move.x - exact[4]).abs().max()))
    return math.log2(errors[0] / errors[1])


def test_ipndm_is_of_fourth_order_on_even_steps_and_of_second_on_karras() -> None:
    """Its weights are those of even steps in sigma/alpha: the slope drops where steps are uneven. A step's own order is
    one more than a run's."""
    root = 3.0 ** (1 / 7)
    assert abs(ipndm_local_order(lambda k, h: 3.0 - k * h) - 5) < 0.4
    assert abs(ipndm_local_order(lambda k, h: (root - k * h / (7 * root**6)) ** 7) - 3) < 0.4
