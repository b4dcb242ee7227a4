"""Known bugs of known tools, put back in: each must turn its law red, or the law proves nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import denoisers, guidances, noise, objectives, predictions, solvers, spacings
from laws.world import path
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel, Scalar, over
from unnoise.core.noise import NoiseSource
from unnoise.core.path import Path
from unnoise.core.prediction import Prediction
from unnoise.core.solver import Denoise, Move
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG
from unnoise.objectives.weightings import MinSNR
from unnoise.predictions.noise import Noise
from unnoise.predictions.v import V
from unnoise.solvers.ddim import DDIM
from unnoise.solvers.ddpm import DDPM
from unnoise.solvers.dpmpp_2m import DPMpp2M
from unnoise.solvers.euler import Euler
from unnoise.solvers.heun import Heun
from unnoise.spacings.leading import Leading
from unnoise.spacings.shifted import Shifted
from unnoise.spacings.trailing import Trailing

RED = (AssertionError, UnnoiseError, ArithmeticError)  # a law also fails where the run itself stops


def red(law: Callable[..., None], *things: Any) -> None:
    with pytest.raises(RED):
        law(*things)


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


class DoubleShift(Shifted):
    """The shift applied to levels that carry it already (diffusers #13243)."""

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        return Shifted(self.shift, Shifted(self.shift, self.inner)).levels(path, num_steps, shape)


class ClampedShift(Shifted):
    """A shift that pushes levels past the end of the path, where they become one and the same."""

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        inner = self.inner.levels(path, num_steps, shape)
        return [path.onto(NoiseLevel(level.alpha, level.sigma * self.shift)) for level in inner]


def test_double_shift() -> None:
    red(spacings.shift_is_applied_once, lambda n: DoubleShift())
    red(spacings.falls_to_exact_data, lambda n: ClampedShift())


class LeadingOffByOne(Leading):
    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        return [path.at(max(0.0, path.time_of(level) - 1e-3)) for level in super().levels(path, num_steps, shape)]


class TrailingFromBelow(Trailing):
    """Trailing that forgets the top level, as linspace without its end does."""

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        return super().levels(path, num_steps + 1, shape)[1:]


def test_spacing_off_by_one() -> None:
    spacings.leading_is_as_published(Leading)
    red(spacings.leading_is_as_published, LeadingOffByOne)
    red(spacings.starts_at_the_top, lambda n: TrailingFromBelow())


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


class CFGFromCond(CFG):
    """The paper's own w, one less than today's: c + w (c - u)."""

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        c, u = parts["cond"], parts["uncond"]
        return Estimate(c.x0 + self.scale * (c.x0 - u.x0), c.eps + self.scale * (c.eps - u.eps)), memory

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return CFG(2.0).asks(conds, here)


class SharedMemory(CFG):
    """Momentum that is kept on the guidance: two runs of a server push one another (diffusers' APG buffer)."""

    def __init__(self, scale: float = 3.0) -> None:
        super().__init__(scale)
        self.push: Tensor | float = 0.0

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        c, u = parts["cond"], parts["uncond"]
        self.push = c.x0 - u.x0 + 0.5 * self.push
        return Estimate.of(x, u.x0 + self.scale * self.push, here), memory


class GuidesX0Alone(CFG):
    """Guides the picture and leaves the noise: no longer two halves of one state."""

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        c, u = parts["cond"], parts["uncond"]
        return Estimate(u.x0 + self.scale * (c.x0 - u.x0), 1.1 * c.eps), memory


def test_guidance() -> None:
    red(guidances.scale_one_changes_nothing, CFGFromCond())
    red(guidances.two_runs_do_not_meet, SharedMemory())
    red(guidances.memory_moves_once_a_step, SharedMemory())
    red(guidances.equal_conditions_change_nothing, GuidesX0Alone())


class AlwaysGuided(Guidance):
    """An interval that is not looked at."""

    def __init__(self, inner: Guidance | None = None, low: float = 0.0, high: float = math.inf) -> None:
        self.inner = inner or CFG()

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return self.inner.asks(conds, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        return self.inner.combine(parts, x, here, memory)


def test_interval_that_saves_nothing() -> None:
    red(guidances.interval_saves_calls, AlwaysGuided())


class NotRescaled(Denoiser):
    """A network that is shown another path's states as they are."""

    def forward(self, x: Tensor, here: NoiseLevel, *rest: Any, **more: Any) -> Estimate:
        own = self.path.onto(here)
        return super().forward(x * over(here.alpha, x) / over(own.alpha, x), here)


def test_denoiser_that_forgets_to_rescale() -> None:
    red(denoisers.answers_at_any_level, path("ddpm-linear"), V(), NotRescaled)


class WrongSign(V):
    """Decodes another v than it encodes."""

    def decode(self, output: Tensor, x: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        return super().decode(-output, x, level)


class Unchecked(Noise):
    """Noise prediction that divides by zero at alpha = 0 rather than refuse."""

    def check(self, level: NoiseLevel) -> None:
        return None


def test_predictions() -> None:
    red(predictions.decode_inverts_encode, WrongSign())
    with pytest.raises(pytest.fail.Exception):
        predictions.refuses_what_cannot_be_inverted(Unchecked())


class SplitMinSNR(MinSNR):
    """min(S, gamma)/S as written: 0/0 at S = 0 (diffusers #5238)."""

    def weight(self, level: NoiseLevel, prediction: Prediction) -> Tensor:
        snr = (torch.as_tensor(level.alpha) / torch.as_tensor(level.sigma)) ** 2
        by: Scalar = snr if isinstance(prediction, Noise) else snr + 1 if isinstance(prediction, V) else 1.0
        return torch.clamp(snr, max=self.gamma) / by


def test_min_snr_at_zero_snr() -> None:
    objectives.min_snr_is_as_published(MinSNR)
    red(objectives.min_snr_is_as_published, SplitMinSNR)
