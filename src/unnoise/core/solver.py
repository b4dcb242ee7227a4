"""One step from a level to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource

Denoise = Callable[[Tensor, NoiseLevel, NoiseLevel], Estimate]


class Move(NamedTuple):
    """What a step did.

    Attributes:
        x: the state after it.
        estimate: the denoiser's estimate at the step's start.
        state: what the solver must remember for the next step.
        reached: the level that was reached, where it is not the one that was asked for (adaptive solvers).
    """

    x: Tensor
    estimate: Estimate
    state: Any = None
    reached: NoiseLevel | None = None


class Solver(ABC):
    """The rule of one step. It holds settings alone: whatever a run must remember is in the state it returns.

    Attributes:
        order: the order of convergence it claims, measured in the tests; None for methods that claim none. A setting
            may change this and ``evaluations``; the class has them for the default settings.
        stochastic: whether a step draws noise with its default settings.
        evaluations: calls of the denoiser a step.
        use: when to choose it, in a few words, for the table that a person chooses from.
    """

    kind: ClassVar[str] = "solvers"
    order: int | None = None
    stochastic: ClassVar[bool] = False
    evaluations: int = 1
    use: ClassVar[str] = ""

    def start(self, levels: Sequence[NoiseLevel]) -> Any:
        """The state before the first step of a run over these levels."""
        return None

    @abstractmethod
    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        """Takes x from ``here`` to ``there``.

        After its first call a solver goes on from ``here.mix(e.x0, e.eps)``, which is x unless guidance answered with
        an estimate whose halves belong to different states (CFG++).
        """
