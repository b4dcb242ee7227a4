"""Solver: it is as accurate as it claims on every path, forgets nothing, and remembers nothing but what it returns."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate, pairwise, zip_longest

import torch
from torch import Tensor

from laws.solver_facts import (
    claims_an_order,
    claims_an_order_without_noise,
    draws_after_the_network,
    draws_noise,
    has_long_steps,
    is_adaptive,
    keeps_the_marginals,
    keeps_to_the_levels,
    values,
)
from laws.world import FAMILIES, Gaussian, Rigged, draw, finish, ladder, mixture, only, path, slope, truth, variances
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.mixture import Deltas
from unnoise.core.multistep import FAR
from unnoise.core.noise import NoiseSource
from unnoise.core.sample import Step, sample
from unnoise.core.solver import Solver

TOLERANCE = 0.15  # of a measured order


def flow_levels(num_steps: int) -> list[NoiseLevel]:
    """From pure noise, alpha = 0, to exact data."""
    return [path("flow").at(1 - i / num_steps) for i in range(num_steps + 1)]


def stochastic_is_declared(solver: Solver) -> None:
    default = type(solver)()
    assert draws_noise(default) == type(solver).stochastic


def strong_errors(solver: Solver, family: str) -> list[float]:
    """Mean distance from the exact ends of 64 trajectories of the mixture, at 64 and 128 steps; at 128 and 256 for
    order 4, which shows late."""
    start, end = truth()
    errors = []
    for num_steps in (128, 256) if solver.order == 4 else (64, 128):
        levels = ladder(path(family), num_steps)
        x = finish(mixture().estimate, solver, levels, start * levels[0].alpha)
        errors.append(float((x / levels[-1].alpha - end).norm(dim=1).mean()))
    return errors


def weak_errors(solver: Solver, family: str) -> list[float]:
    """Relative error of the variance on Gaussian data, at 256 and 512 steps; no sampling error."""
    errors = []
    for num_steps in (256, 512):
        levels = ladder(path(family), num_steps)
        first, last = (0.4 * float(level.alpha) ** 2 + float(level.sigma) ** 2 for level in (levels[0], levels[-1]))
        errors.append(abs(variances(Gaussian().estimate, solver, levels, first)[-1] / last - 1))
    return errors


def started(solver: Solver) -> Solver:
    """The solver with first steps of its own order, where it can: Euler's, of local error h^2, would spoil a run."""
    solver = copy.copy(solver)
    if hasattr(solver, "singlestep_start"):
        solver.singlestep_start = True
    return solver


@only(claims_an_order)
def order_is_as_claimed(solver: Solver) -> None:
    """Within 0.15 on the variance-preserving, the flow and the exploding path; weak order where noise is drawn."""
    assert solver.order is not None
    solver = started(solver)
    measure = weak_errors if draws_noise(solver) else strong_errors
    for family in FAMILIES:
        measured = slope(measure(solver, family))
        assert abs(measured - solver.order) < TOLERANCE, f"order {measured:.2f} on {family}, not {solver.order}"


@cache
def truth_from_pure_noise() -> tuple[Tensor, Tensor]:
    """(starts, ends) of 64 exact trajectories of the flow, from t = 1 to 0.05."""
    x, flow = draw(64, 2, seed=7), path("flow")
    return x, mixture().endpoint(x, flow.at(1.0), flow.at(0.05), 1e-10)


@only(claims_an_order_without_noise)
def order_holds_from_pure_noise(solver: Solver) -> None:
    """A run that starts where log-SNR is infinite is as accurate as another, up to order 2: its first step, Euler's,
    has a local error of 1/num_steps^2. Twice the tolerance: evenly in t, steps of order 2 add a logarithm to it."""
    assert solver.order is not None
    flow, errors = path("flow"), []
    x, end = truth_from_pure_noise()
    for num_steps in (64, 128):
        levels = [flow.at(1 - 0.95 * i / num_steps) for i in range(num_steps + 1)]
        errors.append(float((finish(mixture().estimate, solver, levels, x) - end).norm(dim=1).mean()))
    assert slope(errors) > min(solver.order, 2) - 2 * TOLERANCE


def one_point_is_recovered(solver: Solver) -> None:
    """Where the data is one point c, the state at every level is alpha c + noise, and the end is c to the last bit."""
    point = torch.tensor([[0.7, -1.3, 2.0]], dtype=torch.float64)
    deltas, quiet = Deltas(point), not draws_noise(solver)
    for family in FAMILIES:
        on = path(family)
        for num_steps in (1, 2, 3, 13):
            levels = [on.at(1 - i / num_steps) for i in range(num_steps + 1)]
            eps = draw(4, 3, seed=num_steps)
            noise = NoiseSource(range(4), (3,), torch.float64)
            for step in sample(deltas.estimate, solver, levels, levels[0].mix(point, eps), noise):
                x, there = step.run.x, step.there
                if not is_adaptive(solver):
                    assert there == levels[step.index + 1], "a step ends on the run's next level"
                if quiet:
                    assert torch.allclose(x, there.mix(point, eps), rtol=0, atol=2e-12 * (1 + there.sigma))
            assert step.run.here == levels[-1]
            assert torch.allclose(x, point.expand(4, 3), rtol=0, atol=1e-12), (family, num_steps)


def marginals_have_the_right_mean(solver: Solver) -> None:
    """Around one point c, with no noise at the start and none drawn, the state at every level is alpha c."""
    point = torch.full((1, 40), 0.7, dtype=torch.float64)
    deltas = Deltas(point)
    for levels in (*[ladder(path(family), 8) for family in FAMILIES], flow_levels(8)):
        for step in sample(deltas.estimate, solver, levels, levels[0].alpha * point, Rigged(40, silent=True)):
            assert torch.allclose(step.run.x, step.there.alpha * point, rtol=0, atol=1e-12)


@only(draws_after_the_network)
def last_step_draws_nothing(solver: Solver) -> None:
    for num_steps in (1, 5):
        last = flow_levels(num_steps)[-2:]
        silent, loud = (
            finish(Gaussian().estimate, solver, last, draw(1, 40), Rigged(40, silent=silent))
            for silent in (True, False)
        )
        assert torch.equal(silent, loud), "noise in the step to clean data stays in the picture"


@only(keeps_the_marginals)
def marginals_have_the_right_variance(solver: Solver) -> None:
    """Around one point the state at a level has exactly the variance sigma^2, however much of it is fresh."""
    deltas = Deltas(torch.zeros(1, 4 * 9, dtype=torch.float64))
    for levels in (*[ladder(path(family), 8) for family in FAMILIES], flow_levels(8)):
        found = variances(deltas.estimate, solver, levels, float(levels[0].sigma) ** 2)
        for variance, level in zip(found, levels[1:], strict=True):
            assert math.isclose(variance, float(level.sigma) ** 2, rel_tol=1e-9, abs_tol=1e-12)


LONG_STEPS = ((*6 * [0.5], 4.0), (*6 * [0.02], 2.0), (4.0,))  # lengths of a run's steps in log-SNR


def magnified(solver: Solver, lengths: Sequence[float]) -> float:
    """How many times larger than what the estimates are wrong by is what the picture, x/alpha, is wrong by after steps
    of these lengths in log-SNR. Each call is wrong in a direction of its own."""
    levels = [path("flow").onto(NoiseLevel(1.0, 3.0 * math.exp(-length))) for length in accumulate((0.0, *lengths))]
    calls: list[int] = []

    def wrong(x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
        error = torch.zeros_like(x)
        error[0, len(calls)] = 1.0
        calls.append(1)
        return Estimate.of(x, error, here)

    x = finish(wrong, solver, levels, torch.zeros(1, 64, dtype=torch.float64), Rigged(64, silent=True))
    return float(x.abs().sum()) / float(levels[-1].alpha)


@only(has_long_steps)
def errors_are_not_magnified(solver: Solver) -> None:
    """In a step that is long, or much longer than those before it, as some spacings have. Even steps at their worst
    count k values 2^k - 1 times; a little more is borne."""
    for lengths in LONG_STEPS:
        assert magnified(solver, lengths) < FAR * (2 ** values(solver) - 1)


def whole_run(solver: Solver, num_steps: int = 7) -> Iterator[Step]:
    x = draw(3, 2, seed=3)
    yield from sample(mixture().estimate, solver, flow_levels(num_steps), x, noise_for([1, 2, 3], 2))


def noise_for(seeds: list[int], width: int) -> NoiseSource:
    return NoiseSource(seeds, (width,), torch.float64)


def starts_from_pure_noise(solver: Solver) -> None:
    """alpha = 0 first and sigma = 0 last, with steps enough for a full history between."""
    for step in whole_run(solver):
        assert torch.isfinite(step.run.x).all()
        assert torch.isfinite(step.estimate.x0).all()
    assert tuple(step.run.here) == (1.0, 0.0)
    assert step.run.x.abs().max() < 6, "what comes out is of the size of the data"


def restarts_bit_equal(solver: Solver) -> None:
    steps = list(whole_run(solver))
    for step in steps[:-1]:
        again = list(
            sample(mixture().estimate, solver, flow_levels(7), torch.zeros(3, 2), noise_for([1, 2, 3], 2), step.run)
        )
        assert torch.equal(again[-1].run.x, steps[-1].run.x), f"from step {step.index}"


def two_runs_do_not_meet(solver: Solver) -> None:
    """Two interleaved runs of one solver object, of unlike length, are each what they are alone."""
    alone = [[step.run.x for step in whole_run(solver, n)] for n in (7, 5)]
    together: tuple[list[Tensor], list[Tensor]] = ([], [])
    for pair in zip_longest(whole_run(solver, 7), whole_run(solver, 5)):
        for found, step in zip(together, pair, strict=True):
            found.extend([step.run.x] if step else [])
    for found, wanted in zip(together, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@only(keeps_to_the_levels)
def seeds_are_honoured_by_item(solver: Solver) -> None:
    """A picture depends on its own seed and state alone: not on its place, nor on its company; steps that are chosen on
    the way are chosen for the whole batch."""
    denoise, levels = Gaussian(mean=0.3).estimate, flow_levels(6)
    x = {seed: noise_for([seed], 20).initial() for seed in (5, 6, 7)}
    alone = {seed: finish(denoise, solver, levels, x[seed], noise_for([seed], 20)) for seed in x}
    for order in ([5, 6, 7], [7, 5], [6, 6]):
        together = finish(denoise, solver, levels, torch.cat([x[s] for s in order]), noise_for(order, 20))
        for row, seed in enumerate(order):
            assert torch.equal(together[row : row + 1], alone[seed])


def inconsistent_estimates_are_honoured(solver: Solver) -> None:
    """A step from x with an estimate of other halves is the step from ``here.mix(x0, eps)``, the state they make."""
    levels = ladder(path("ddpm-linear"), 4)

    def answering(first: Estimate) -> Callable[[Tensor, NoiseLevel, NoiseLevel], Estimate]:
        calls: list[int] = []

        def denoise(x: Tensor, here: NoiseLevel, there: NoiseLevel) -> Estimate:
            calls.append(1)
            return first if len(calls) == 1 else Gaussian().estimate(x, here)

        return denoise

    x, state = levels[0].mix(draw(2, 3, seed=1), draw(2, 3, seed=2)), solver.start(levels)
    for index, (here, there) in enumerate(pairwise(levels[:4])):
        e = Estimate(Gaussian().estimate(x, here).x0, Gaussian(mean=0.5).estimate(x, here).eps)
        noise = noise_for([1, 2], 3)
        move = solver.step(answering(e), x, here, there, state, noise.at(index))
        same = solver.step(answering(e), here.mix(e.x0, e.eps), here, there, state, noise.at(index))
        assert torch.allclose(move.x, same.x, rtol=1e-12, atol=1e-12)
        x, state = move.x, move.state


def calls_are_as_claimed(solver: Solver) -> None:
    """The first call of a step is at its start; there are as many as claimed, and fewer only at the ends."""
    levels = flow_levels(6)
    calls: list[tuple[float, NoiseLevel]] = []

    def denoise(x: Tensor, here: NoiseLevel, there: NoiseLevel) -> Estimate:
        calls.append((float(x.abs().sum()), here))
        return mixture().estimate(x, here)

    for step in sample(denoise, solver, levels, draw(3, 2), noise_for([1, 2, 3], 2)):
        if getattr(solver, "churn", 0) and step.here.alpha:  # noise is added first, and the state after it is asked
            assert calls[0][1].sigma_hat > step.here.sigma_hat
        else:
            assert calls[0] == (float(step.x.abs().sum()), step.here)
        inner = 0 < step.index < 5
        if is_adaptive(solver):
            assert (len(calls) - 1) % (solver.evaluations - 1) == 0, "further tries do not ask at the start again"
        elif 0 < step.index <= getattr(solver, "starting", 0):
            assert solver.evaluations < len(calls) <= 3, "a single step in place of a history"
        else:
            assert len(calls) == solver.evaluations if inner else 1 <= len(calls) <= solver.evaluations
        calls.clear()


LAWS = [
    stochastic_is_declared,
    order_is_as_claimed,
    order_holds_from_pure_noise,
    one_point_is_recovered,
    marginals_have_the_right_mean,
    last_step_draws_nothing,
    marginals_have_the_right_variance,
    starts_from_pure_noise,
    restarts_bit_equal,
    two_runs_do_not_meet,
    seeds_are_honoured_by_item,
    inconsistent_estimates_are_honoured,
    calls_are_as_claimed,
    errors_are_not_magnified,
]
