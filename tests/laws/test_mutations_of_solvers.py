"""Known bugs of known tools, put back in: each must turn its law red, or the law proves nothing. Solvers and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from laws import noise, solvers
from laws.world import path, red
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.solver import Denoise, Move
from unnoise.solvers.ddim import DDIM
from unnoise.solvers.ddpm import DDPM
from unnoise.solvers.dpmpp_2m import DPMpp2M
from unnoise.solvers.euler import Euler
from unnoise.solvers.heun import Heun


class WrongPrevious(DDIM):
    """diffusers' DDIM: the previous timestep is the current one less floor(1000/n), not the list's next (#9261)."""

    def start(self, levels: Sequence[NoiseLevel]) -> Any:
        return (1000 // (len(levels) - 1)) / 1000

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        ddpm = path("ddpm-linear")
        wrong = ddpm.at(max(0.0, ddpm.time_of(here) - state))
        return super().step(denoise, x, here, wrong, state, noise)._replace(state=state)


def test_wrong_previous_timestep() -> None:
    red(solvers.one_point_is_recovered, WrongPrevious())


class NoiseOnTheLastStep(DDPM):
    """diffusers' fixed_large: sqrt(beta) of noise goes into the finished picture."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, state, noise)
        return move if there.sigma else move._replace(x=move.x + 0.3 * noise.between(here, there))


def test_noise_on_the_last_step() -> None:
    red(solvers.last_step_draws_nothing, NoiseOnTheLastStep())
    red(solvers.one_point_is_recovered, NoiseOnTheLastStep())


class BoundlessTwoM(DPMpp2M):
    """2M that extrapolates wherever it has a history: r is 0 at sigma = 0, and log-SNR is infinite at alpha = 0."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        e, now = denoise(x, here, there), float(here.log_snr)
        x0, h = e.x0, float(there.log_snr) - now
        if state is not None:
            x0 = e.x0 + (e.x0 - state[0]) / (2 * (now - state[1]) / h)
        ratio = float(there.sigma) / float(here.sigma)
        return Move(ratio * x - float(there.alpha) * math.expm1(-h) * x0, e, (e.x0, now))


class TwoMWithInventedHistory(DPMpp2M):
    """2M whose history at the start is zeros at a clipped log-SNR, rather than none."""

    def start(self, levels: Sequence[NoiseLevel]) -> Any:
        return torch.zeros(1, dtype=torch.float64), float(levels[1].log_snr) - 0.5


def test_two_m_across_infinite_log_snr() -> None:
    red(solvers.starts_from_pure_noise, BoundlessTwoM())
    red(solvers.one_point_is_recovered, BoundlessTwoM())
    red(solvers.one_point_is_recovered, TwoMWithInventedHistory())


class TwoMWithWrongSign(DPMpp2M):
    """The second-order term added where it is to be taken away: still of first order, and pictures look the same."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, None, noise)
        if state is None or there.sigma == 0:
            return move
        extra = float(there.alpha) * math.expm1(float(here.log_snr) - float(there.log_snr))
        return move._replace(x=move.x + extra * (move.estimate.x0 - state[0]) / 2)


def test_two_m_coefficient() -> None:
    red(solvers.order_is_as_claimed, TwoMWithWrongSign())


class HeunInX(Heun):
    """Heun in x against sigma, which is the sampling equation on the exploding path only."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        e = denoise(x, here, there)
        ahead = there.mix(e.x0, e.eps)
        if there.sigma == 0 or here.alpha == 0:
            return Move(ahead, e)
        mean = (e.eps + denoise(ahead, there, there).eps) / 2
        return Move(x + (float(there.sigma) - float(here.sigma)) * mean, e)


class HeunFromX(Heun):
    """Heun that goes on from x and not from the state that its first estimate makes."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, state, noise)
        shift = x - here.mix(move.estimate.x0, move.estimate.eps)
        return move._replace(x=move.x + (float(there.alpha) / float(here.alpha) if here.alpha else 0.0) * shift)


def test_heun_in_the_wrong_variable() -> None:
    red(solvers.order_is_as_claimed, HeunInX())
    red(solvers.inconsistent_estimates_are_honoured, HeunFromX())


class AncestralWithoutAlpha(Euler):
    """Euler-a on the flow path: down to a lower level, then fresh noise, and alpha stays that level's (Forge #2915)."""

    stochastic = True

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        e = denoise(x, here, there)
        kept, fresh = there.split(here, 1.0)
        x = NoiseLevel(1 - kept, kept).mix(e.x0, e.eps)
        return Move(x + fresh * noise.between(here, there) if fresh else x, e)


class TooMuchFresh(DDIM):
    """Fresh noise on top of all of the old: the state is noisier than its level says."""

    stochastic = True

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, state, noise)
        return move._replace(x=move.x + 0.1 * float(there.sigma) * noise.between(here, there)) if there.sigma else move


class SameNoise(NoiseSource):
    """Draws of one step that are one and the same."""

    def at(self, index: int) -> NoiseSource:
        return SameNoise(self.seeds, self.shape, self.dtype, self.device, index)

    def between(self, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        return self._rows("step", self.index, 1)


class DeviceNoise(NoiseSource):
    """Noise from the global generator of the device: other devices, and other calls, give another picture."""

    def _rows(self, *key: object) -> Tensor:
        return torch.randn(len(self.seeds), *self.shape, dtype=self.dtype)


class BatchNoise(NoiseSource):
    """One generator for the batch: company changes the picture."""

    def _rows(self, *key: object) -> Tensor:
        return super()._rows(*key).roll(1, 0)


def test_noise_that_depends_on_more_than_it_should() -> None:
    red(solvers.marginals_have_the_right_mean, AncestralWithoutAlpha())
    red(solvers.marginals_have_the_right_variance, TooMuchFresh())
    red(noise.draws_are_independent, SameNoise)
    red(noise.is_pure, DeviceNoise)
    red(noise.is_as_published, DeviceNoise)
    red(noise.is_of_the_item, BatchNoise)


class CountsItself(DPMpp2M):
    """A multistep solver that keeps its history on itself, where the next run finds it (diffusers' step counters)."""

    held: Any = None

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, self.held if here.alpha else None, noise)
        self.held = move.state
        return move._replace(state=None)


def test_state_on_the_solver() -> None:
    red(solvers.two_runs_do_not_meet, CountsItself())
    red(solvers.restarts_bit_equal, CountsItself())
