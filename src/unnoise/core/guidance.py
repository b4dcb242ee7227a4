"""Steering: which calls to a network a step makes, and how their answers become one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.edit import Edit
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.errors import UnnoiseError


class Ask(NamedTuple):
    """One call that guidance wants made.

    Attributes:
        cond: what the picture is asked to be in this call.
        edits: changes inside the network for this call.
        denoiser: another network than the run's own (a weaker one, for autoguidance).
        previous: what the call of this name said a step earlier, for networks that read it; ``Call`` fills it in.
    """

    cond: Condition | None
    edits: tuple[Edit, ...] = ()
    denoiser: Denoiser | None = None
    previous: Estimate | None = None


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


class Memory(NamedTuple):
    """What a run remembers of its last step: what guidance asked to have kept, and what each call said."""

    guidance: Any = None
    parts: Parts = {}


class Call:
    """``denoise(x, here, there) -> Estimate`` for one step of one run.

    A solver may call it several times in a step; the memory moves once, at the first call. Each call by name is shown
    what the same call said in the step before, which is how networks with self-conditioning were trained: a call with
    the empty prompt is fed a picture of nothing in particular. The fraction of variance is not guided but the first
    part's, the conditional one's where there is one, as in DiT and GLIDE.
    """

    def __init__(self, bound: Bound, memory: Memory | None) -> None:
        self._bound = bound
        self._before = memory or Memory()
        self.memory = memory
        self._moved = False

    def __call__(self, x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
        bound = self._bound
        asks = bound.guidance.asks(bound.conds, here)
        asks = {name: ask._replace(previous=self._before.parts.get(name)) for name, ask in asks.items()}
        parts = bound.evaluate(x, here, there, asks)
        estimate, memory = bound.guidance.combine(parts, x, here, self._before.guidance)
        if not self._moved:
            self.memory, self._moved = Memory(memory, parts), True
        said = parts["cond"] if "cond" in parts else next(iter(parts.values()))
        return estimate._replace(parts=parts, fraction=said.fraction)


class Bound:
    """A guidance, a way to evaluate networks and the conditions of a run, bound together; holds no state."""

    def __init__(self, guidance: Guidance, evaluate: Evaluate, conds: Mapping[str, Condition | None]) -> None:
        self.guidance = guidance
        self.evaluate = evaluate
        self.conds = conds

    def step(self, memory: Memory | None) -> Call:
        """The denoise of one step."""
        return Call(self, memory)

    def __call__(self, x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
        return self.step(None)(x, here, there)


def bind(guidance: Guidance, evaluate: Evaluate, conds: Mapping[str, Condition | None]) -> Bound:
    """What ``sample`` takes as ``denoise``. ``evaluate`` is the only seam that a batching server replaces.

    Raises:
        UnnoiseError: ``guidance`` is none, or ``conds`` lacks "cond".
    """
    checks.instance("guidance", guidance, Guidance, "give one, such as CFG(3.0)")
    if not isinstance(conds, Mapping) or "cond" not in conds:
        raise UnnoiseError("conds has no condition called 'cond'", 'give {"cond": pipeline.encode(prompts)}')
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
            again = _joined([asks[name].previous for name in names], x)
            rows = x.repeat(len(names), *[1] * (x.ndim - 1))
            estimate = network(rows, here, there, cond=joined, edits=edits, previous=again)
            for row, name in enumerate(names):
                parts[name] = estimate.rows(row * len(x), (row + 1) * len(x))
        return parts

    return evaluate


def _joined(previous: Sequence[Estimate | None], x: Tensor) -> Estimate | None:
    """The rows of earlier estimates, one after the other; zeros for a call that was not made, None where none was."""
    if all(e is None for e in previous):
        return None
    nothing = Estimate(torch.zeros_like(x), torch.zeros_like(x))
    known = [nothing if e is None else e for e in previous]
    return Estimate(torch.cat([e.x0 for e in known]), torch.cat([e.eps for e in known]))
