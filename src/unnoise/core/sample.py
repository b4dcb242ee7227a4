"""The sampling loop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.solver import Denoise, Solver
from unnoise.errors import UnnoiseError


class Run(NamedTuple):
    """All that a run must remember between two steps: keep one, and the run can be restarted or branched there.

    Attributes:
        x: (B, C, ...) state.
        here: its level.
        index: how many of the levels have been passed.
        solver: the solver's state.
        memory: the guidance's memory.
    """

    x: Tensor
    here: NoiseLevel
    index: int = 0  # type: ignore[assignment]  # shadows tuple.index, which nobody calls
    solver: Any = None
    memory: Any = None


class Step(NamedTuple):
    """One step that was taken.

    Attributes:
        index: its number, from 0.
        here, there: the levels it went from and to.
        x: the state before it, at ``here``.
        estimate: the denoiser's, of x.
        run: everything after it; ``run.x`` is the state at ``there``.
    """

    index: int  # type: ignore[assignment]
    here: NoiseLevel
    there: NoiseLevel
    x: Tensor
    estimate: Estimate
    run: Run


@runtime_checkable
class Remembering(Protocol):
    """A ``denoise`` that remembers something from step to step, such as what ``guidance.bind`` makes.

    ``step(memory)`` gives the denoise of one step, ``(x, here, there) -> Estimate``, whose attribute ``memory`` holds
    afterwards what the next step is given. What wraps another denoise hands both on.
    """

    def step(self, memory: Any) -> Denoise: ...


def check_levels(levels: Sequence[NoiseLevel]) -> list[NoiseLevel]:
    """Levels that a run can visit.

    Raises:
        UnnoiseError: one is no level, they are fewer than two, or the noise does not fall from each to the next.
    """

    def level(name: str, value: NoiseLevel) -> NoiseLevel:
        return checks.instance(name, value, NoiseLevel, "give a NoiseLevel, such as a spacing makes")

    levels = checks.several("levels", levels, level, least=0, most=100_001)
    if len(levels) < 2:
        raise UnnoiseError("a run needs at least one step, that is two noise levels", "ask for 1 step or more")
    for number, (before, after) in enumerate(pairwise(float(level.sigma_hat) for level in levels)):
        if not after < before:
            raise UnnoiseError(
                f"noise levels must fall, but number {number + 1} (sigma/alpha {after:.6g}) is not below the one "
                f"before it ({before:.6g})",
                "give the levels from the noisiest to the cleanest",
            )
    return levels


def all_finite(x: Tensor) -> bool:
    """Whether no number of x is infinite or not a number.

    One that is makes the sum so too, and a sum is read in a tenth of the time that looking at each number takes. Only
    where the sum is not finite, which large numbers bring about as well, are they looked at.
    """
    return math.isfinite(x.sum()) or bool(torch.isfinite(x).all())


def _number(run: Run, levels: Sequence[NoiseLevel]) -> float:
    """The number of the step that begins here, for its noise.

    At a level of the run that is the level's own. A step that an adaptive solver begins between two of them has a
    fraction added, how far it has come in sigma / (alpha + sigma): each such step then draws noise of its own.
    """
    if run.here == levels[run.index]:
        return run.index
    first, here, last = (
        float(level.sigma) / (float(level.alpha) + float(level.sigma))
        for level in (levels[run.index], run.here, levels[run.index + 1])
    )
    return run.index + (first - here) / (first - last)


def sample(
    denoise: Remembering | Denoise,
    solver: Solver,
    levels: Sequence[NoiseLevel],
    x: Tensor,
    noise: NoiseSource,
    run: Run | None = None,
) -> Iterator[Step]:
    """Follows the levels from the noisiest to the last, yielding each step; callers watch, draw, stop or branch.

    Args:
        denoise: any function ``(x, here, there) -> Estimate``, or what has a ``step(memory)`` that gives one, such as
            what ``guidance.bind`` makes.
        solver: the rule of one step.
        levels: the levels to visit, the first and the last included.
        x: (B, C, ...) state at ``levels[0]``.
        noise: where stochastic solvers get their noise.
        run: where to go on, from an earlier ``Step.run``; ``x`` is then not used.

    Raises:
        UnnoiseError: at once, an argument of another kind, or levels that do not fall; later, the network answers with
            a number that is not finite.
    """
    if not callable(denoise) and not isinstance(denoise, Remembering):
        raise UnnoiseError(
            f"denoise is {checks.description(denoise)}, which cannot be called", "make it by guidance.bind"
        )
    levels = check_levels(levels)
    checks.instance("solver", solver, Solver, "give one, such as Heun()")
    checks.instance("noise", noise, NoiseSource, "give NoiseSource(seeds, shape)")
    if run is None:
        checks.instance("x", x, Tensor, "give noise.initial() * levels[0].sigma")
        run = Run(x, levels[0], 0, solver.start(levels))
    checks.instance("run", run, Run, "give the run of an earlier step")
    return _follow(denoise, solver, levels, noise, run)


def _follow(
    denoise: Remembering | Denoise, solver: Solver, levels: list[NoiseLevel], noise: NoiseSource, run: Run
) -> Iterator[Step]:
    while run.index < len(levels) - 1:
        step = take(denoise, solver, levels, noise, run)
        yield step
        run = step.run


def take(
    denoise: Remembering | Denoise, solver: Solver, levels: Sequence[NoiseLevel], noise: NoiseSource, run: Run
) -> Step:
    """The next step of a run: a pure function of its arguments, if ``denoise`` is one. Args are those of ``sample``.

    Raises:
        UnnoiseError: the state after it has numbers that are not finite.
    """
    here, there = run.here, levels[run.index + 1]
    call = denoise.step(run.memory) if isinstance(denoise, Remembering) else denoise
    move = solver.step(call, run.x, here, there, run.solver, noise.at(_number(run, levels)))
    if not all_finite(move.x):
        raise UnnoiseError(
            f"step {run.index + 1} of {len(levels) - 1} (alpha {float(here.alpha):.4g}, "
            f"sigma {float(here.sigma):.4g}) gave numbers that are not finite",
            "check the weights, or try --dtype float32",
        )
    reached = move.reached or there
    index = run.index + (1 if reached == there else 0)
    after = Run(move.x, reached, index, move.state, getattr(call, "memory", None))
    return Step(run.index, here, reached, run.x, move.estimate, after)
