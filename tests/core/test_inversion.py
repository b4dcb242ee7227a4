"""Inversion: a run from what it finds gives the data back, as well as the method claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from laws.world import FAMILIES, Gaussian, finish, mixture, path, red, slope
from unnoise.core.inversion import invert
from unnoise.core.level import NoiseLevel
from unnoise.core.solver import Denoise
from unnoise.errors import UnnoiseError
from unnoise.solvers.euler import Euler


def levels(family: str, num_steps: int) -> list[NoiseLevel]:
    """From far out to clean data; on flow from pure noise."""
    on = path(family)
    sigmas = [20 * (0.02 / 20) ** (i / (num_steps - 1)) for i in range(num_steps)]
    first = [NoiseLevel(0.0, 1.0)] if family == "flow" else []
    return [*first, *(on.onto(NoiseLevel(1.0, sigma)) for sigma in sigmas), on.at(0.0)]


Inverts = Callable[..., Iterator[Tensor]]


def there_and_back(family: str, num_steps: int, rounds: int, by: Inverts = invert) -> tuple[Tensor, Tensor]:
    """(data, what a run from its inversion gives)."""
    grid, data = levels(family, num_steps), mixture().sample(32, seed=4)
    states = list(by(mixture().estimate, grid, data, rounds))
    assert len(states) == len(grid) - 1
    return data, finish(mixture().estimate, Euler(), grid, states[-1])


def leads_back(family: str, by: Inverts) -> None:
    data, again = there_and_back(family, 80, 30, by)
    assert torch.allclose(again, data, rtol=0, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_solved_steps_lead_back_exactly(family: str) -> None:
    leads_back(family, invert)


def told_the_next(denoise: Denoise, grid: Sequence[NoiseLevel], x: Tensor, rounds: int) -> Iterator[Tensor]:
    """The network is told the level that comes next on the way up (diffusers' inverse DDIM, #5145 and #10695)."""
    above = dict(zip(grid[1:], grid, strict=False))
    yield from invert(lambda x, here, there: denoise(x, above.get(here, here), there), grid, x, rounds)


def test_an_inversion_that_is_off_by_one_is_seen() -> None:
    red(leads_back, "ve", told_the_next)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_form_misses_by_the_first_order(family: str) -> None:
    errors = []
    for num_steps in (160, 320):
        data, again = there_and_back(family, num_steps, rounds=0)
        errors.append(float((again - data).norm(dim=1).mean()))
    assert errors[0] > 1e-3, "and is told apart from the solved one"
    assert abs(slope(errors) - 1) < 0.25


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_found_is_the_truth_s_noise(family: str) -> None:
    """With many steps the state at the top is the exact flow's, followed upward."""
    data = mixture().sample(32, seed=4)
    errors = []
    for num_steps in (50, 100):
        grid = levels(family, num_steps)
        top = list(invert(mixture().estimate, grid, data, rounds=10))[-1]
        truth = mixture().endpoint(data, grid[-1], grid[0], 1e-10)
        errors.append(float((top - truth).norm(dim=1).mean()) / float(grid[0].sigma))
    assert errors[1] < 0.1
    assert errors[1] < 0.6 * errors[0]


def test_a_gaussian_s_noise_is_known_in_closed_form() -> None:
    """Data m + s z is led to noise of the same z: x/alpha - m grows with sqrt(s^2 + sigma^2)."""
    gaussian, grid = Gaussian(0.3, 0.4), levels("ve", 3000)
    data = torch.tensor([[0.9, -0.2]], dtype=torch.float64)
    top = list(invert(gaussian.estimate, grid, data, rounds=10))[-1]
    grown = math.sqrt((0.4 + grid[0].sigma ** 2) / 0.4)
    assert torch.allclose(top, 0.3 + (data - 0.3) * grown, rtol=5e-3)


def test_levels_that_do_not_fall_are_refused() -> None:
    with pytest.raises(UnnoiseError, match="must fall"):
        list(invert(mixture().estimate, levels("ve", 4)[::-1], mixture().sample(1)))


def test_a_run_that_runs_away_says_so() -> None:
    class Wild(Gaussian):
        def estimate(self, x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None):  # type: ignore[no-untyped-def]
            e = super().estimate(x, here)
            return e._replace(x0=e.x0 * math.inf)

    with pytest.raises(UnnoiseError, match="ran away"):
        list(invert(Wild().estimate, levels("ve", 4), mixture().sample(1)))
