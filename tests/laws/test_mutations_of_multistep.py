"""Known bugs of known tools, put back in: each must turn its law red. Multistep and adaptive solvers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import solvers
from laws.solver_facts import has_long_steps
from laws.world import draw, mixture, path, red
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import Past, multistep, weights
from unnoise.core.registry import find, index
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.errors import UnnoiseError
from unnoise.solvers.deis import DEIS
from unnoise.solvers.dpm_adaptive import DPMAdaptive
from unnoise.solvers.dpmpp_3m import DPMpp3M
from unnoise.solvers.exp_heun import ExpHeun
from unnoise.solvers.ipndm import IPNDM
from unnoise.solvers.lms import LMS
from unnoise.solvers.unipc import Memory, UniPC


def test_half_a_second_difference() -> None:
    """3M as published, in the authors' code, diffusers and k-diffusion, claims an order that it does not have."""
    claimed = DPMpp3M(published=True)
    claimed.order = 3
    red(solvers.order_is_as_claimed, claimed)


def test_weights_of_even_steps_on_uneven_ones() -> None:
    claimed = IPNDM()
    claimed.order = 4
    red(solvers.order_is_as_claimed, claimed)


def test_an_euler_start_is_seen() -> None:
    """The setting with which orders are measured is needed: without it the claim is false."""

    class NoStart(LMS):
        singlestep_start = property(lambda self: False, lambda self, value: None)  # type: ignore[assignment]

    red(solvers.order_is_as_claimed, NoStart())


class WrongExponent(DEIS):
    """The exponential of the other half: x0's weights on eps."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        def weigh(nodes: Sequence[float], z: float) -> list[float]:
            exact, wrong = weights(nodes, z), weights(nodes, -z)
            return [w * sum(exact) / sum(wrong) for w in wrong]  # of second order still

        return multistep(denoise, x, here, there, state, "eps", self.points, weigh, self.singlestep_start)


class KeepsPureNoise(LMS):
    """What was predicted at alpha = 0, where sigma/alpha is infinite, taken for a point of the polynomial."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, state, noise)
        return move if here.alpha else move._replace(state=Past(((here, move.estimate.eps),)))


def test_multistep_weights_and_history() -> None:
    red(solvers.order_is_as_claimed, WrongExponent())
    red(solvers.starts_from_pure_noise, KeepsPureNoise(steady=False))


@pytest.mark.parametrize("name", [name for name in index("solvers") if has_long_steps(find("solvers", name)())])
def test_a_long_step_that_is_extrapolated(name: str) -> None:
    """As published: over a step many times longer than those before it, at full order."""
    red(solvers.errors_are_not_magnified, find("solvers", name)(steady=False))


class OrderZeroAtTheEnd(UniPC):
    """The last step but one counts one step too few and looks at nothing: order 0, as copies of UniPC have had it."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, state, noise)
        if state.past.left == 2 and here.alpha:
            return move._replace(x=float(there.sigma) / float(here.sigma) * x, state=Memory(move.state.past, None))
        return move


class CorrectsBackwards(UniPC):
    """The corrector's difference with the wrong sign: the promise less what the new estimate says."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        plain = super().step(denoise, x, here, there, Memory(state.past, None), noise)
        right = super().step(denoise, x, here, there, state, noise)
        return right._replace(x=2 * plain.x - right.x)


class PromisesItself(UniPC):
    """The step to be corrected kept on the solver, where the next run finds it (diffusers' ``last_sample``)."""

    held: Any = None

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, Memory(state.past, self.held if here.alpha else None), noise)
        self.held = move.state.promise
        return move._replace(state=Memory(move.state.past, None))


def test_unipc() -> None:
    red(solvers.one_point_is_recovered, OrderZeroAtTheEnd())
    red(solvers.order_is_as_claimed, CorrectsBackwards())
    red(solvers.two_runs_do_not_meet, PromisesItself())
    red(solvers.restarts_bit_equal, PromisesItself())


class StartsAgain(UniPC):
    """The corrector as published: from the state before, so that what guidance did to eps is lost."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, state, noise)
        e = move.estimate
        lost = float(there.sigma) / float(here.sigma) * (here.mix(e.x0, e.eps) - x)
        return move if state.promise is None else move._replace(x=move.x - lost)


def changed_halves_arrive(solver: Solver) -> None:
    """A change of eps in the estimate of a later step is a change of the state, carried by sigma'."""
    levels = [path("flow").at(t) for t in (0.9, 0.7, 0.5, 0.3)]
    x, state = levels[0].mix(mixture().sample(8), draw(8, 2)), solver.start(levels)
    for here, there in zip(levels[:2], levels[1:], strict=False):
        move = solver.step(mixture().estimate, x, here, there, state, None)  # type: ignore[arg-type]
        x, state = move.x, move.state
    e = mixture().estimate(x, levels[2])
    plain, moved = (
        solver.step(lambda *_, e=each: e, x, levels[2], levels[3], state, None).x  # type: ignore[arg-type,misc]
        for each in (e, e._replace(eps=e.eps + 0.2))
    )
    assert torch.allclose(moved - plain, torch.full_like(plain, 0.2 * 0.3), rtol=1e-9)


@pytest.mark.parametrize("name", ["dpmpp-2m", "dpmpp-3m", "res-multistep", "unipc"])
def test_changed_halves_arrive(name: str) -> None:
    changed_halves_arrive(find("solvers", name)())
    if name == "unipc":
        red(changed_halves_arrive, StartsAgain())


class CorrectsTwice(ExpHeun):
    """Heun's correction of Euler's step counted twice."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, state, noise)
        if here.alpha == 0 or there.sigma == 0:
            return move
        ahead = there.mix(move.estimate.x0, move.estimate.eps)
        return move._replace(x=2 * move.x - ahead)


class Overshoots(DPMAdaptive):
    """A step that is not cut at the run's next level, whose number the run then never reaches."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        move = super().step(denoise, x, here, there, state, noise)
        return move._replace(reached=None)


def test_single_steps() -> None:
    red(solvers.order_is_as_claimed, CorrectsTwice())
    red(solvers.one_point_is_recovered, Overshoots())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("unipc", {"points": 4}),
        ("unipc", {"variant": "bh3"}),
        ("unipc", {"predicts": "v"}),
        ("dpm-solver", {"order": 4}),
        ("lms", {"points": 0}),
        ("deis", {"points": 5}),
        ("res-multistep", {"points": 2.5}),
        ("ipndm", {"points": 9}),
        ("gradient-estimation", {"gamma": 0.5}),
        ("dpm-adaptive", {"pair": 45}),
        ("dpm-adaptive", {"rtol": 0.0}),
        ("dpm-adaptive", {"accept": 1.5}),
    ],
)
def test_bad_settings_are_refused_by_name(name: str, settings: dict[str, Any]) -> None:
    value = next(iter(settings.values()))
    with pytest.raises(UnnoiseError, match=str(value).split(".")[0]):
        find("solvers", name)(**settings)
