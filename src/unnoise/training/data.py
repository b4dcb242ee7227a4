"""What a training calls on its data: a stream of steps, or items by index that are visited in an order of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from unnoise.core.objective import Batch, Draws
from unnoise.training.order import Order


@runtime_checkable
class TrainData(Protocol):
    """What the trainer calls: the data of each step in turn, and a position that a checkpoint keeps."""

    @property
    def identity(self) -> str:
        """What distinguishes this data from other data; a training is resumed on the same alone."""

    def rows(self, step: int, batch: int) -> int:
        """How many rows the step has for ``batch`` samples, from 1 to ``batch``."""

    def batch(self, draws: Draws) -> Batch:
        """The rows ``draws.rows`` of step ``draws.step``; a step is asked for in parts, and no earlier one after it."""

    def state(self, step: int) -> Mapping[str, Tensor]:
        """What must be kept so that the steps from ``step`` on come again: the step that was asked for last, or the
        next. Shapes and dtypes are always the same. Nothing, where steps are functions of their number."""

    def load(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Goes to where ``state(step)`` was, and on from there to the same bits."""


class Items(Protocol):
    """Data with an index: whatever is asked for, in any order and as often as it is asked for."""

    @property
    def weights(self) -> Sequence[float] | Tensor:
        """(N,) how often each should be seen, relative to the others."""

    @property
    def identity(self) -> str:
        """As of ``TrainData``."""

    def batch(self, items: Tensor, draws: Draws) -> Batch:
        """These items; what is random in them belongs to the rows ``draws.rows`` of the step."""


@runtime_checkable
class Fewer(Protocol):
    """Items that cost more in some steps, of which only the first rows are then used."""

    def rows(self, step: int, batch: int) -> int:
        """As of ``TrainData``."""


class InOrder:
    """Items as a training's data, in the order of ``Order``: each step is a function of (seed, step)."""

    def __init__(self, items: Items, seed: int) -> None:
        self.items, self.identity = items, items.identity
        self.order = Order(items.weights, seed)

    def rows(self, step: int, batch: int) -> int:
        return self.items.rows(step, batch) if isinstance(self.items, Fewer) else batch

    def batch(self, draws: Draws) -> Batch:
        start, stop, _ = draws.rows.indices(draws.batch)
        return self.items.batch(self.order(draws.step * draws.batch + start, stop - start), draws)

    def state(self, step: int) -> dict[str, Tensor]:
        return {}

    def load(self, step: int, state: Mapping[str, Tensor]) -> None:
        """There is nothing to load."""
