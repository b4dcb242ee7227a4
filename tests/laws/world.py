"""The small world that laws are tried in: a mixture, a Gaussian, the three families of paths, and rigged noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.mixture import Mixture
from unnoise.core.noise import NoiseSource
from unnoise.core.path import Path
from unnoise.core.registry import find, index
from unnoise.core.sample import sample
from unnoise.core.solver import Denoise, Solver
from unnoise.errors import UnnoiseError

torch.set_num_threads(1)  # the states are tiny: a second thread only waits

FAMILIES = ("ddpm-linear", "flow", "ve")  # variance-preserving, straight, variance-exploding


def mixture() -> Mixture:
    """Three components in the plane, of unlike weight and shape."""
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means = torch.tensor([[1.0, 0.5], [-1.0, 0.2], [0.3, -1.2]], dtype=torch.float64)
    covariances = [[[0.4, 0.1], [0.1, 0.2]], [[0.15, 0.0], [0.0, 0.3]], [[0.3, -0.1], [-0.1, 0.2]]]
    return Mixture(weights, means, torch.tensor(covariances, dtype=torch.float64))


def path(name: str) -> Path:
    found: Path = find("paths", name)()
    return found


def every_path() -> list[Path]:
    return [path(name) for name in index("paths")]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ladder(on: Path, num_steps: int, top: float = 10.0, low: float = 0.05) -> list[NoiseLevel]:
    """Levels even in log-SNR between two values of sigma/alpha, written on a path; data is not among them."""
    sigmas = [math.exp(math.log(top) + i / num_steps * math.log(low / top)) for i in range(num_steps + 1)]
    return [on.onto(NoiseLevel(1.0, sigma)) for sigma in sigmas]


@cache
def truth(top: float = 10.0, low: float = 0.05) -> tuple[Tensor, Tensor]:
    """(starts, ends) of 64 exact trajectories of the mixture in x/alpha, between two values of sigma/alpha."""
    here, there = NoiseLevel(1.0, top), NoiseLevel(1.0, low)
    start = here.mix(mixture().sample(64), draw(64, 2))
    return start, mixture().endpoint(start, here, there)


def finish(
    denoise: Denoise, solver: Solver, levels: Sequence[NoiseLevel], x: Tensor, noise: NoiseSource | None = None
) -> Tensor:
    """The state after the last step."""
    for step in sample(denoise, solver, levels, x, noise or NoiseSource(range(len(x)), x.shape[1:], x.dtype)):
        x = step.run.x
    return x


class Gaussian:
    """Independent numbers of N(mean, variance), denoised one by one: rows and places cannot touch one another."""

    def __init__(self, mean: float = 0.0, variance: float = 0.4) -> None:
        self.mean, self.variance = mean, variance

    def estimate(self, x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
        if here.sigma == 0:
            return Estimate(x / here.alpha, torch.zeros_like(x))
        pull = (x - here.alpha * self.mean) / (here.alpha**2 * self.variance + here.sigma**2)
        return Estimate(self.mean + here.alpha * self.variance * pull, here.sigma * pull)


class Rigged(NoiseSource):
    """Noise whose n-th draw of the run is 1 at place n and 0 elsewhere (or 0 everywhere).

    A solver is linear in state and noise where the denoiser is, so that one run tells the weight of every draw in the
    result, and with them its exact variance.
    """

    def __init__(self, places: int, silent: bool = False) -> None:
        super().__init__([0], (places,), torch.float64)
        self.silent, self.count = silent, 0

    def at(self, index: int) -> Rigged:
        return self

    def between(self, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        self.count += 1
        z = torch.zeros(1, *self.shape, dtype=torch.float64)
        if not self.silent:
            z[0, self.count] = 1
        return z


def variances(denoise: Denoise, solver: Solver, levels: Sequence[NoiseLevel], start: float) -> list[float]:
    """The exact variance of the state after each step of a run that starts with the given one; no sampling error."""
    places = 4 * len(levels)
    x = torch.zeros(1, places, dtype=torch.float64)
    x[0, 0] = math.sqrt(start)
    return [float((step.run.x**2).sum()) for step in sample(denoise, solver, levels, x, Rigged(places))]


def slope(errors: Sequence[float]) -> float:
    """The order that errors at doubling numbers of steps show, from the last two."""
    return math.log2(errors[-2] / errors[-1])


def only(applies: Callable[[Any], bool]) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """A law for the things of which this is true."""

    def mark(law: Callable[[Any], None]) -> Callable[[Any], None]:
        law.applies = applies  # type: ignore[attr-defined]
        return law

    return mark


def applies(law: Callable[..., None], thing: Any) -> bool:
    """Whether the law says anything about this thing."""
    return bool(getattr(law, "applies", lambda thing: True)(thing))


RED = (AssertionError, UnnoiseError, ArithmeticError)  # a law also fails where the run itself stops


def red(law: Callable[..., None], *things: Any) -> None:
    """Asserts that the law finds fault with these things."""
    with pytest.raises(RED):
        law(*things)
