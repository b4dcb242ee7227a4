"""Known bugs of known tools, put back in: each must turn its law red. Paths, spacings, and solvers at a run's ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from laws import paths, solvers, spacings
from laws.world import red
from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.path import Path
from unnoise.core.registry import find
from unnoise.core.solver import Denoise, Move
from unnoise.errors import UnnoiseError
from unnoise.paths.cosine import Cosine
from unnoise.paths.table import Table
from unnoise.paths.zero_snr import ZeroSNR
from unnoise.solvers.dpm_solver import DPMSolver
from unnoise.solvers.edm import EDM
from unnoise.solvers.unipc import Memory, Promise, UniPC
from unnoise.spacings.beta import Beta
from unnoise.spacings.beta_sigma import BetaSigma
from unnoise.spacings.karras import Karras
from unnoise.spacings.leading import Leading
from unnoise.spacings.trailing import Trailing


class StopsAtSigmaMin(Karras):
    """The last level is the cleanest that was trained and not the data: what is left of the noise stays in the picture
    (SDXL in diffusers, #5689)."""

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        return [*super().levels(path, num_steps, shape)[:-1], path.at(path.t_min / 2)]


def test_noise_that_is_left_at_the_end() -> None:
    red(spacings.falls_to_exact_data, lambda n: StopsAtSigmaMin())
    red(spacings.falls_to_the_first_level, lambda n: Leading(end="data"))
    spacings.falls_to_the_first_level(lambda n: Leading(end="first"))


class StretchedToTerminal(Trailing):
    """Times stretched so that the last is at a terminal value; one step has no stretch, and 0/0 (diffusers #14411)."""

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        gone = torch.arange(num_steps, dtype=torch.float64) / num_steps
        times = (1 - gone * (1 - 0.02) / gone[-1]).tolist()
        return [*(NoiseLevel(t, t) if math.isnan(t) else path.at(t) for t in times), path.at(0.0)]


def test_one_step_that_is_stretched() -> None:
    red(spacings.falls_to_exact_data, lambda n: StretchedToTerminal())


def test_two_things_are_called_beta() -> None:
    """diffusers reads the paper's quantiles of the timestep as quantiles of sigma."""
    spacings.beta_is_of_the_timestep(Beta)
    red(spacings.beta_is_of_the_timestep, BetaSigma)


class Uncapped(Cosine):
    """The cosine without its cap: the last variance is 1 and log-SNR infinite, inside a table (diffusers #3314)."""

    def __init__(self) -> None:
        super().__init__()
        f = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(1001)]
        self.table = Table(torch.tensor([1 - b / a for a, b in zip(f, f[1:], strict=False)], dtype=torch.float64))


def test_cosine_without_its_cap() -> None:
    red(paths.ends_are_exact, Uncapped())
    with pytest.raises(UnnoiseError, match="cap 1"):
        Cosine(cap=1.0)


class AlmostZeroSNR(ZeroSNR):
    """The end at alpha^2 = 2^-24, so that one may divide by it (diffusers' Euler)."""

    def at(self, t: Scalar) -> NoiseLevel:
        level = super().at(t)
        return NoiseLevel(max(level.alpha, 2.0**-12), level.sigma) if isinstance(level.alpha, float) else level


def test_zero_snr_that_is_not_zero() -> None:
    red(paths.zero_snr_is_as_published, AlmostZeroSNR)


class ThirdOrderToData(DPMSolver):
    """The third-order single step also to clean data: a third of an infinite step is the whole (diffusers #9007)."""

    def step(self, denoise: Denoise, x: Any, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        if there.sigma or here.alpha == 0:
            return super().step(denoise, x, here, there, state, noise)
        e, h = denoise(x, here, there), float(there.log_snr) - float(here.log_snr)
        clean = denoise(there.alpha * e.x0, there, there)
        return Move(there.alpha * (e.x0 + (clean.x0 - e.x0) / (2 * (h / 3) / h)), e)


def test_third_order_to_data() -> None:
    solvers.one_point_is_recovered(DPMSolver(3))
    red(solvers.one_point_is_recovered, ThirdOrderToData(3))


class PromisesAcrossPureNoise(UniPC):
    """The corrector takes the step from alpha = 0 again, where there is no log-SNR to do it in."""

    def step(self, denoise: Denoise, x: Any, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, state, noise)
        if here.alpha:
            return move
        x0 = move.estimate.x0
        return move._replace(state=Memory(move.state.past, Promise(((here, x0),), float(there.alpha) * x0)))


def test_corrector_across_pure_noise() -> None:
    red(solvers.starts_from_pure_noise, PromisesAcrossPureNoise())


class ChurnToldTheLevelBelow(EDM):
    """Noise is added before the network is asked, but its answer is read at the level before (diffusers' v branch)."""

    def step(self, denoise: Denoise, x: Any, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        return super().step(lambda x, _, there: denoise(x, here, there), x, here, there, state, noise)


def test_churn_that_is_read_at_the_wrong_level() -> None:
    red(solvers.marginals_have_the_right_variance, ChurnToldTheLevelBelow(form="euler"))


def test_left_sums_of_er_sde() -> None:
    """With the exact integrals the reverse diffusion is of second order; with sums of 200 points it is not."""
    exact, summed = (find("solvers", "er-sde")(scale="power", form=form) for form in ("corrected", "published"))
    summed.order = exact.order
    solvers.order_is_as_claimed(exact)
    red(solvers.order_is_as_claimed, summed)
