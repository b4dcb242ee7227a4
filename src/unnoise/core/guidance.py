"""Steering: which calls to a network a step makes, and how their answers become one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.edit import Edit
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.errors import UnnoiseError

OWN = "denoiser"  # the name of a run's own network


class Ask(NamedTuple):
    """One call that guidance needs: plain data, so that a guidance can be typed and sent.

    Attributes:
        cond: what the picture is asked to be in this call.
        edits: changes inside the network for this call.
        network: the name of the network that is called: a weaker one for autoguidance.
        previous: the estimate of the call of this name a step earlier, for networks that read it; ``Call`` fills it in.
        read: names of features to bring back in the estimate's ``parts``.
        adapters: names of the adapters that are active in this call.
    """

    cond: Condition | None
    edits: tuple[Edit, ...] = ()
    network: str = OWN
    previous: Estimate | None = None
    read: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()


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
    """What a run remembers of its last step: what guidance asked to have kept, and each call's estimate."""

    guidance: Any = None
    parts: Parts = {}


class Call:
    """``denoise(x, here, there) -> Estimate`` for one step of one run.

    A solver may call it several times in a step; the memory moves once, at the first call. Each call by name is shown
    the same call's estimate in the step before, which is how networks with self-conditioning were trained: a call with
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
        asks = {n: ask._replace(previous=self._before.parts.get(n), read=bound.read) for n, ask in asks.items()}
        parts = bound.evaluate(x, here, there, asks)
        estimate, memory = bound.guidance.combine(parts, x, here, self._before.guidance)
        if not self._moved:
            self.memory, self._moved = Memory(memory, parts), True
        first = parts["cond"] if "cond" in parts else next(iter(parts.values()))
        return estimate._replace(parts=parts, fraction=first.fraction)


class Bound:
    """A guidance, a way to evaluate networks and the conditions of a run, bound together; holds no state."""

    def __init__(
        self,
        guidance: Guidance,
        evaluate: Evaluate,
        conds: Mapping[str, Condition | None],
        read: tuple[str, ...] = (),
    ) -> None:
        self.guidance = guidance
        self.evaluate = evaluate
        self.conds = conds
        self.read = read

    def step(self, memory: Memory | None) -> Call:
        """The denoise of one step."""
        return Call(self, memory)

    def __call__(self, x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
        return self.step(None)(x, here, there)


def bind(
    guidance: Guidance,
    evaluate: Evaluate,
    conds: Mapping[str, Condition | None],
    read: Sequence[str] = (),
) -> Bound:
    """The ``denoise`` of a run.

    Args:
        guidance: how it is steered.
        evaluate: what makes the calls, such as ``evaluate.batched(denoiser)``.
        conds: {"cond": what is wanted, "uncond": what to steer away from, where there is such}.
        read: names of features that come back with each estimate, in the ``parts`` of its parts.

    Raises:
        UnnoiseError: ``guidance`` is none, or ``conds`` lacks "cond".
    """
    checks.instance("guidance", guidance, Guidance, "give one, such as CFG(3.0)")
    if not isinstance(conds, Mapping) or "cond" not in conds:
        raise UnnoiseError("conds has no condition called 'cond'", 'give {"cond": model.encode(prompts)}')
    return Bound(guidance, evaluate, conds, tuple(read))
