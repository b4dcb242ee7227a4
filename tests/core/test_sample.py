"""The loop: what it refuses, what it reports, and how it goes on from any step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from laws.world import draw, mixture, path
from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Ask, Asks, Bound, Guidance, Parts, bind
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.sample import Run, all_finite, check_levels, sample
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.errors import UnnoiseError
from unnoise.solvers.euler import Euler

LEVELS = [path("flow").at(1 - i / 5) for i in range(6)]
NOISE = NoiseSource([0, 1], (2,), torch.float64)


@pytest.mark.parametrize(
    "levels",
    [
        [],
        LEVELS[:1],
        LEVELS[::-1],
        [LEVELS[1], LEVELS[1], LEVELS[2]],
        [NoiseLevel(1.0, 1.0), NoiseLevel(1.0, math.nan)],
    ],
)
def test_levels_that_cannot_be_visited_are_refused(levels: list[NoiseLevel]) -> None:
    with pytest.raises(UnnoiseError):
        check_levels(levels)
    with pytest.raises(UnnoiseError):
        next(sample(mixture().estimate, Euler(), levels, draw(2, 2), NOISE))


def test_steps_tell_what_happened() -> None:
    x = draw(2, 2)
    steps = list(sample(mixture().estimate, Euler(), LEVELS, x, NOISE))
    assert [step.index for step in steps] == list(range(5))
    assert [step.here for step in steps] == LEVELS[:-1]
    assert [step.there for step in steps] == LEVELS[1:]
    assert torch.equal(steps[0].x, x)
    for before, after in zip(steps, steps[1:], strict=False):
        assert torch.equal(before.run.x, after.x)
    assert torch.equal(steps[2].estimate.x0, mixture().estimate(steps[2].x, LEVELS[2]).x0)
    assert steps[-1].run.index == 5


def test_it_is_lazy() -> None:
    """A caller that stops has paid for the steps that it saw."""
    calls: list[NoiseLevel] = []

    def denoise(x: Tensor, here: NoiseLevel, there: NoiseLevel) -> Estimate:
        calls.append(here)
        return mixture().estimate(x, here)

    for step in sample(denoise, Euler(), LEVELS, draw(2, 2), NOISE):
        if step.index == 1:
            break
    assert calls == LEVELS[:2]


def test_a_run_begins_in_the_middle() -> None:
    """Image to image: a Run at a later level; the steps before it are not taken, and the numbers of the noise go on."""
    x = LEVELS[3].mix(draw(2, 2, seed=1), draw(2, 2, seed=2))
    steps = list(sample(mixture().estimate, Euler(), LEVELS, torch.zeros(0), NOISE, Run(x, LEVELS[3], 3)))
    assert [step.index for step in steps] == [3, 4]
    assert torch.equal(steps[0].x, x)
    assert not list(sample(mixture().estimate, Euler(), LEVELS, x, NOISE, steps[-1].run)), "nothing is left to do"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_stop_the_run(bad: float) -> None:
    def denoise(x: Tensor, here: NoiseLevel, there: NoiseLevel) -> Estimate:
        e = mixture().estimate(x, here)
        return e._replace(x0=e.x0 * bad) if here == LEVELS[2] else e

    with pytest.raises(UnnoiseError, match=r"step 3 of 5 \(alpha 0\.4, sigma 0\.6\)"):
        list(sample(denoise, Euler(), LEVELS, draw(2, 2), NOISE))


def test_one_number_is_found_and_large_ones_are_let_by() -> None:
    """The sum that is looked at first is not finite where numbers are large, and they are numbers all the same."""
    x = torch.ones(3, 4, 5)
    assert all_finite(x)
    for bad in (math.nan, math.inf, -math.inf):
        for place in (0, 37, 59):
            y = x.clone()
            y.view(-1)[place] = bad
            assert not all_finite(y)
    both = torch.tensor([math.inf, -math.inf, 1.0])
    assert not all_finite(both), "which do not cancel"
    large = torch.full((4,), 3e38)
    assert math.isinf(large.sum())
    assert all_finite(large)
    assert all_finite(torch.full((4,), 6e4, dtype=torch.float16))


class HalfSteps(Solver):
    """Goes half of the way, in log-SNR, twice: what an adaptive solver does."""

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: bool | None, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        if state or there.sigma == 0 or here.alpha == 0:
            return Move(there.mix(e.x0, e.eps), e, None)
        to = here.between(there, 0.5)
        return Move(to.mix(e.x0, e.eps), e, True, to)


def test_a_solver_may_reach_another_level() -> None:
    """The index moves when the level that was asked for is reached, and not before; a restart between is exact."""
    steps = list(sample(mixture().estimate, HalfSteps(), LEVELS, draw(2, 2), NOISE))
    assert [step.index for step in steps] == [0, 1, 1, 2, 2, 3, 3, 4]
    for before, after in zip(steps, steps[1:], strict=False):
        assert before.there == after.here
    assert steps[-1].run.here == LEVELS[-1]
    again = list(sample(mixture().estimate, HalfSteps(), LEVELS, torch.zeros(0), NOISE, steps[1].run))
    assert torch.equal(again[-1].run.x, steps[-1].run.x)


class Counting(Guidance):
    """A guidance that remembers how many steps it has seen, and says so in its estimate."""

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return {"cond": Ask(conds["cond"])}

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        seen = (memory or 0) + 1
        return Estimate(parts["cond"].x0 + seen, parts["cond"].eps), seen


class Wrapped:
    """What wraps a denoise and hands its memory on."""

    def __init__(self, inner: Bound) -> None:
        self.inner = inner

    def step(self, memory: Any) -> Any:
        return self.inner.step(memory)


def test_what_wraps_a_denoise_keeps_its_memory() -> None:
    def evaluate(x: Tensor, here: NoiseLevel, there: NoiseLevel | None, asks: Asks) -> Parts:
        return {name: Estimate(torch.zeros_like(x), torch.ones_like(x)) for name in asks}

    bound = bind(Counting(), evaluate, {"cond": None})
    levels = [NoiseLevel(1 - s, s) for s in (1.0, 0.6, 0.3, 0.0)]
    noise = NoiseSource([1], (2,))

    def seen(denoise: Any) -> list[float]:
        return [float(s.estimate.x0[0, 0]) for s in sample(denoise, Euler(), levels, noise.initial(), noise)]

    assert seen(bound) == seen(Wrapped(bound)) == [1, 2, 3]
    assert seen(lambda x, here, there: bound(x, here, there)) == [1, 1, 1], "the control: a function forgets"
