"""Known bugs of known tools, put back in: each must turn its law red. Stochastic solvers and Brownian noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import noise as noise_laws
from laws import solvers
from laws.world import red
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import BrownianNoise
from unnoise.core.solver import Denoise, Move
from unnoise.solvers import seeds
from unnoise.solvers.dpm_2_a import DPM2A
from unnoise.solvers.dpmpp_2m_sde import DPMpp2MSDE
from unnoise.solvers.dpmpp_3m_sde import DPMpp3MSDE
from unnoise.solvers.dpmpp_sde import DPMppSDE
from unnoise.solvers.edm import EDM
from unnoise.solvers.lcm import LCM
from unnoise.solvers.reverse import kept_and_fresh
from unnoise.solvers.sa_solver import SASolver
from unnoise.solvers.seeds import Seeds2
from unnoise.solvers.tcd import TCD


class WrongSign(DPMpp3MSDE):
    """diffusers' sde-dpmsolver++ of order 3: -0.5 for +0.5, a weight that tends to -1 and not to 0 (#9104)."""

    def _change(self, points: tuple[tuple[Tensor, float], ...], end: float) -> Tensor:
        right = super()._change(points, end)
        if len(points) < 3:
            return right
        (now, a), (before, b), (earlier, c) = points
        h = end - a
        bend = ((now - before) * (h / (a - b)) - (before - earlier) * (h / (b - c))) * (h / (a - c))
        return right - bend


def test_sign_of_the_third_order() -> None:
    red(solvers.order_is_as_claimed, WrongSign())


class IndependentLooks(DPMppSDE):
    """The noise inside the step and the step's own drawn apart, as by a sampler of plain random numbers."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        if here.alpha == 0 or there.sigma == 0:
            return super().step(denoise, x, here, there, state, noise)
        e, middle = denoise(x, here, there), here.between(there, self.r)
        kept, fresh = middle.split(here, self.eta)
        inside = NoiseLevel(middle.alpha, kept).mix(e.x0, e.eps) + fresh * noise.between(here, middle)
        x0 = denoise(inside, middle, there).x0
        kept, fresh = there.split(here, self.eta)
        x0 = e.x0 + (x0 - e.x0) / (2 * self.r)
        ratio = kept / float(here.sigma)
        x = ratio * here.mix(e.x0, e.eps) + (float(there.alpha) - ratio * float(here.alpha)) * x0
        return Move(x + fresh * noise.between(here, there), e)


def test_two_independent_looks_cost_an_order() -> None:
    red(solvers.order_is_as_claimed, IndependentLooks())


def test_noise_inside_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """SEEDS whose second part does not go on from the first part's noise: the state is too clean."""
    right = seeds._Walk.to

    def forget(self: Any, *args: Any) -> Tensor:
        self.carried = 0.0
        return right(self, *args)

    monkeypatch.setattr(seeds._Walk, "to", forget)
    red(solvers.marginals_have_the_right_variance, Seeds2())
    red(solvers.order_is_as_claimed, Seeds2())


class NoiseLost(DPM2A):
    """k-diffusion's DPM-2 a adds no noise where the step down leads to data, be there noise to add or not."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        if here.alpha == 0:
            e = denoise(x, here, there)
            return Move(there.alpha * e.x0, e)
        return super().step(denoise, x, here, there, state, noise)


def test_noise_that_is_lost() -> None:
    red(solvers.marginals_have_the_right_variance, NoiseLost())


class ChurnAfterwards(EDM):
    """diffusers' Euler: the network is asked before the noise is added, and its answer is used after."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        if not here.alpha:
            return super().step(denoise, x, here, there, state, noise)
        up = NoiseLevel(here.alpha, float(here.sigma) * (1 + state))
        e = denoise(x, here, there)
        x = x + math.sqrt(up.sigma**2 - float(here.sigma) ** 2) * noise.between(here, up)
        return Move(there.alpha / up.alpha * x + (there.sigma - there.alpha / up.alpha * up.sigma) * e.eps, e, state)


def test_churn_after_the_network() -> None:
    red(solvers.marginals_have_the_right_variance, ChurnAfterwards(form="euler"))
    red(solvers.one_point_is_recovered, ChurnAfterwards(form="euler"))


class WeightsOfTheODE(DPMpp2MSDE):
    """The stochastic step with the deterministic one's weights: h where (1 + eta) h is meant."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, None, noise)
        if state is None or here.alpha == 0 or there.sigma == 0:
            return move
        h = float(there.log_snr) - float(here.log_snr)
        slope = (move.estimate.x0 - state[0]) / (2 * (float(here.log_snr) - state[1]) / h)
        return move._replace(x=move.x - float(there.alpha) * math.expm1(-h) * slope)


def test_weights_without_the_noise_s_share() -> None:
    red(solvers.order_is_as_claimed, WeightsOfTheODE())


class CorrectsWithoutTau(SASolver):
    """A corrector that integrates the deterministic equation over a step that had noise."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        if state is not None:
            state = state._replace(length=state.length / (1 + self.tau**2))
        return super().step(denoise, x, here, there, state, noise)


def test_corrector_of_another_equation() -> None:
    red(solvers.order_is_as_claimed, CorrectsWithoutTau())
    red(solvers.marginals_have_the_right_mean, CorrectsWithoutTau())


class LCMNotScaled(LCM):
    """Renoising in sigma on a path whose alpha changes too."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, state, noise)
        return move._replace(x=move.x + (1 - float(there.alpha)) * move.estimate.x0)


class TCDEndsEarly(TCD):
    """diffusers' TCD: the last step leads to timestep 0, which still has noise."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        return super().step(denoise, x, here, there if there.sigma else self.path.at(1e-3), state, noise)


def test_few_step_solvers_in_the_wrong_place() -> None:
    red(solvers.marginals_have_the_right_mean, LCMNotScaled())
    red(solvers.one_point_is_recovered, TCDEndsEarly())


class FreshAndAllKept(DPMpp2MSDE):
    """Noise added on top of a step that took none away."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        e = denoise(x, here, there)
        _, fresh = kept_and_fresh(here, there, self.eta)
        x = there.mix(e.x0, e.eps)
        return Move(x + fresh * noise.between(here, there) if fresh else x, e)


def test_noise_on_top() -> None:
    red(solvers.marginals_have_the_right_variance, FreshAndAllKept())


class Faulty(BrownianNoise):
    """Stays what it is from step to step."""

    def at(self, index: float) -> BrownianNoise:
        return type(self)(self.seeds, self.shape, self.dtype, self.device, index)


class OneTreeForAll(Faulty):
    """One tree for the batch: a picture depends on its company (A1111 #5210)."""

    def between(self, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        return super().between(here, there).roll(1, 0)


class NotNormalised(Faulty):
    """Divided by the square root of the step in log-SNR, which is not the time that the path runs in."""

    def between(self, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        if here.alpha == 0 or there.sigma == 0 or float(there.sigma_hat) >= float(here.sigma_hat):
            return super().between(here, there)
        ends = [float(level.sigma_hat) ** -2 for level in (here, there)]
        h = float(there.log_snr) - float(here.log_snr)
        return super().between(here, there) * math.sqrt((ends[1] - ends[0]) / h)


class Leaves(Faulty):
    """A tree that ends at a tolerance and draws anew below it: what is close has nothing in common."""

    def between(self, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        name = [round(float(level.sigma_hat) ** -2.0, 6) if level.sigma else 0.0 for level in (here, there)]
        return self._rows("leaf", *name)


class ChurnOnThePath(Faulty):
    """The way up drawn from the path: the next step down takes the same noise again."""

    def between(self, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        up = float(there.sigma_hat) > float(here.sigma_hat)
        return -super().between(there, here) if up else super().between(here, there)


@pytest.mark.parametrize(
    ("law", "kind"),
    [
        (noise_laws.is_of_the_item, OneTreeForAll),
        (noise_laws.increments_are_brownian, NotNormalised),
        (noise_laws.increments_add_up, Leaves),
        (noise_laws.refuses_what_has_no_noise, Leaves),
        (noise_laws.way_up_is_fresh, ChurnOnThePath),
        (noise_laws.way_up_is_fresh, Leaves),
    ],
)
def test_faulty_brownian_noise(law: Any, kind: type[BrownianNoise]) -> None:
    red(law, kind)


def test_the_tree_s_digits_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """With times of 8 digits short steps become one time."""
    monkeypatch.setattr("unnoise.core.noise._DIGITS", 8)
    red(noise_laws.increments_are_brownian, BrownianNoise)
    assert torch.isfinite(BrownianNoise([1], (2,)).between(NoiseLevel(1.0, 9.0), NoiseLevel(1.0, 1.0))).all()
