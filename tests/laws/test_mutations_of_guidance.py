"""Known bugs of guidance, spacings and paths, put back in: each must turn its law red, or the law proves nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import guidances, objectives, paths, spacings, test_guidance_truth
from laws.world import red
from networks.test_edits import blurs_as_a_gaussian_does
from unnoise.core.edit import Around
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Parts
from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.path import Path
from unnoise.core.prediction import Prediction
from unnoise.guidances import nag
from unnoise.guidances.apg import APG
from unnoise.guidances.cfg_plus_plus import CFGPlusPlus
from unnoise.guidances.cfg_zero import CFGZero
from unnoise.guidances.mimic import Mimic
from unnoise.guidances.nag import Away
from unnoise.guidances.seg import BlurredQueries
from unnoise.guidances.threshold import Threshold
from unnoise.objectives.weightings import P2
from unnoise.paths.sub_vp import SubVP
from unnoise.paths.vp import VP
from unnoise.paths.zero_snr import ZeroSNR
from unnoise.spacings.beta import Beta


class APGFromUncond(APG):
    """Counted from D_u, as diffusers does by default: the push is no longer across D_c."""

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        e, memory = APG(self.scale + 1, self.eta, self.momentum, self.cap).combine(parts, x, here, memory)
        return Estimate.of(x, e.x0 - parts["cond"].x0 + parts["uncond"].x0, here), memory


class APGBuffer(APG):
    """The momentum on the object, as diffusers keeps it: two runs push one another."""

    buffer: Any = None

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        e, self.buffer = super().combine(parts, x, here, self.buffer)
        return e, self.buffer


def test_apg() -> None:
    test_guidance_truth.apg_pushes_across_the_conditional_picture(APG)
    red(test_guidance_truth.apg_pushes_across_the_conditional_picture, APGFromUncond)
    red(guidances.two_runs_do_not_meet, APGBuffer())
    red(guidances.memory_moves_once_a_step, APGBuffer())


class CountingOnItself(CFGZero):
    """Zero-init by a counter on the object: the second run, and each further call of a step, is not at its start."""

    count = 0

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        e, self.count = super().combine(parts, x, here, self.count)
        return e, None


class ScaleOfTheBatch(CFGZero):
    """One scale for the batch, the flattening forgotten."""

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        flat = {k: Estimate(e.x0.flatten()[None], e.eps.flatten()[None]) for k, e in parts.items()}
        e, memory = super().combine(flat, x.flatten()[None], here, memory)
        return Estimate(e.x0.reshape(x.shape), e.eps.reshape(x.shape)), memory


def test_cfg_zero() -> None:
    red(guidances.two_runs_do_not_meet, CountingOnItself())
    red(guidances.memory_moves_once_a_step, CountingOnItself())
    red(guidances.keeps_to_its_rows, ScaleOfTheBatch(zero_steps=0))


class RenoisedWithGuided(CFGPlusPlus):
    """CFG++ that is CFG at a small scale: the noise is the guided one."""

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        e, memory = super().combine(parts, x, here, memory)
        return Estimate.of(x, e.x0, here), memory


def test_cfg_plus_plus() -> None:
    red(test_guidance_truth.cfg_plus_plus_is_cfg_at_another_scale, RenoisedWithGuided)


class ThresholdOfTheBatch(Threshold):
    """A quantile over all pictures: the loudest one dims the others."""

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        guided, memory = self.inner.combine(parts, x, here, memory)
        s = max(self.bound, float(guided.x0.abs().quantile(self.quantile)))
        return Estimate.of(x, guided.x0.clamp(-s, s) / s, here), memory


class MimicOfTheBatch(Mimic):
    """One extent for the batch and its channels, as sd-dynamic-thresholding has it without separate channels."""

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        c, u = (parts[name].x0 for name in ("cond", "uncond"))
        low, high = u + self.mimic * (c - u), u + self.scale * (c - u)
        off = high - high.mean()
        return Estimate.of(x, off * (low - low.mean()).abs().max() / off.abs().max() + high.mean(), here), memory


def test_batchwide_extents() -> None:
    red(guidances.keeps_to_its_rows, ThresholdOfTheBatch())
    red(guidances.keeps_to_its_rows, MimicOfTheBatch())


class TurnedRound(BlurredQueries):
    """diffusers' condition: the mean where a Gaussian is asked for, and the other way round."""

    def within(self, site: str, value: Tensor, around: Around) -> Tensor:
        return BlurredQueries(self.sites, math.inf if self.blur < math.inf else 1e5).within(site, value, around)


def test_seg() -> None:
    red(blurs_as_a_gaussian_does, TurnedRound)


class AwayByIdentity(Away):
    """Edits that are equal to themselves alone, as those that hold tensors are."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class AwayWhateverTheSetting(Away):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Away)

    __hash__ = Away.__hash__


@pytest.mark.parametrize("fault", [AwayByIdentity, AwayWhateverTheSetting])
def test_edits_that_cannot_be_shared(fault: type[Away], monkeypatch: pytest.MonkeyPatch) -> None:
    guidances.edits_of_two_runs_are_equal(nag.NAG())
    monkeypatch.setattr(nag, "Away", fault)
    red(guidances.edits_of_two_runs_are_equal, nag.NAG())


class RoundedBeta(Beta):
    """Quantiles rounded to the table and not told apart: levels meet, as ComfyUI's do before it drops them."""

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        levels = super().levels(path, num_steps, shape)
        return [path.at(round(float(path.time_of(level)) * 1000) / 1000) for level in levels]


def test_rounded_beta() -> None:
    red(spacings.keeps_its_word_for_many_steps, lambda n: RoundedBeta())


class LeftAtTheEnd(ZeroSNR):
    """Scaled before it is shifted: the end is dark, the first level is not what it was."""

    def at(self, t: Scalar) -> NoiseLevel:
        level = self.inner.at(t)
        alpha = max(0.0, float(level.alpha) - self._last)
        return NoiseLevel(alpha, math.sqrt(1 - alpha * alpha))


class VarianceForDeviation(SubVP):
    """sub-VP with vp's variance where its deviation belongs."""

    def at(self, t: Scalar) -> NoiseLevel:
        alpha, sigma = super().at(t)
        return NoiseLevel(alpha, sigma**2)


def test_paths() -> None:
    red(paths.zero_snr_is_as_published, LeftAtTheEnd)
    paths.vp_is_its_equation(VP, SubVP)
    red(paths.vp_is_its_equation, VP, VarianceForDeviation)
    red(paths.vp_is_its_equation, SubVP, SubVP)


class P2AsWritten(P2):
    """The weight of eps on any output: v and x0 are then trained to another law."""

    def weight(self, level: NoiseLevel, prediction: Prediction) -> Tensor:
        return (self.k + (torch.as_tensor(level.alpha) / torch.as_tensor(level.sigma)) ** 2) ** -self.gamma


def test_p2() -> None:
    red(objectives.counts_x0_alike, P2AsWritten())
