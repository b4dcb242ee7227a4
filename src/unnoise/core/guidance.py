"""Steering: which calls to a network a step makes, and how their answers become one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.edit import Edit
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel


class Ask(NamedTuple):
    """One call that guidance wants made.

    Attributes:
        cond: what the picture is asked to be in this call.
        edits: changes inside the network for this call.
        denoiser: another network than the run's own (a weaker one, for autoguidance).
    """

    cond: Condition | None
    edits: tuple[Edit, ...] = ()
    denoiser: Denoiser | None = None


Asks = Mapping[str, Ask]
Parts = Mapping[str, Estimate]
Evaluate = Callable[[Tensor, NoiseLevel, NoiseLevel | None, Asks], Parts]


class Guidance(ABC):
    """A rule that makes one estimate of several. It holds settings alone: what a run must remember is ``memory``."""

    kind: ClassVar[str] = "guidances"

    @abstractmethod
    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        """The calls to make at this level. ``conds`` holds "cond" and, where there is one, "uncond"."""

    @abstractmethod
    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        """One estimate from the parts, and the memory for the next step. ``memory`` is None at a run's start."""


class Call:
    """``denoise(x, here, there) -> Estimate`` for one step of one run.

    A solver may call it several times in a step; the memory moves once, at the first call.
    """

    def __init__(self, bound: Bound, memory: Any) -> None:
        self._bound = bound
        self._before = memory
        self.memory = memory
        self._moved = False

    def __call__(self, x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
        bound = self._bound
        parts = bound.evaluate(x, here, there, bound.guidance.asks(bound.conds, here))
        estimate, memory = bound.guidance.combine(parts, x, here, self._before)
        if not self._moved:
            self.memory, self._moved = memory, True
        return estimate._replace(parts=parts)


class Bound:
    """A guidance, a way to evaluate networks and the conditions of a run, bound together; holds no state."""

    def __init__(self, guidance: Guidance, evaluate: Evaluate, conds: Mapping[str, Condition | None]) -> None:
        self.guidance = guidance
        self.evaluate = evaluate
        self.conds = conds

    def step(self, memory: Any) -> Call:
        """The denoise of one step."""
        return Call(self, memory)

    def __call__(self, x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
        return self.step(None)(x, here, there)


def bind(guidance: Guidance, evaluate: Evaluate, conds: Mapping[str, Condition | None]) -> Bound:
    """What ``sample`` takes as ``denoise``. ``evaluate`` is the only seam that a batching server replaces."""
    return Bound(guidance, evaluate, conds)


def batched(denoiser: Denoiser) -> Evaluate:
    """An ``evaluate`` that makes one network call of all asks that share a network and edits, and splits the answer."""

    def evaluate(x: Tensor, here: NoiseLevel, there: NoiseLevel | None, asks: Asks) -> Parts:
        groups: dict[tuple[int, tuple[Edit, ...], bool], list[str]] = {}
        for name, ask in asks.items():  # an ask with no condition has no rows to join to another's
            groups.setdefault((id(ask.denoiser or denoiser), ask.edits, ask.cond is None), []).append(name)
        parts: dict[str, Estimate] = {}
        for (_, edits, _), names in groups.items():
            conds = [asks[name].cond for name in names]
            joined = Condition.cat([c for c in conds if c is not None]) if conds[0] is not None else None
            network = asks[names[0]].denoiser or denoiser
            estimate = network(x.repeat(len(names), *[1] * (x.ndim - 1)), here, there, cond=joined, edits=edits)
            for row, name in enumerate(names):
                parts[name] = estimate.rows(row * len(x), (row + 1) * len(x))
        return parts

    return evaluate
