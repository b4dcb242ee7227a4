"""Known bugs of known tools, put back in: each must turn its law red, or the law proves nothing. The rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import denoisers, guidances, objectives, predictions, spacings
from laws.world import path, red
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel, Scalar, over
from unnoise.core.path import Path
from unnoise.core.prediction import Prediction
from unnoise.guidances.cfg import CFG
from unnoise.objectives.weightings import MinSNR
from unnoise.predictions.noise import Noise
from unnoise.predictions.v import V
from unnoise.spacings.leading import Leading
from unnoise.spacings.shifted import Shifted
from unnoise.spacings.trailing import Trailing


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
