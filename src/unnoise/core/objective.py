"""What a training minimises, over which modules."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from unnoise.core.noise import generator


class Draws:
    """The random numbers of one training step: a pure function of (seed, step, sample), so that resuming is exact.

    Each stream is drawn for the whole batch of the step and cut to the rows asked for: how a batch is split among
    micro-batches or machines changes no sample's noise.

    Args:
        seed: of the training.
        step: the optimiser step, from 0.
        batch: samples in the step, over all micro-batches and machines.
        rows: which of them are drawn here.
    """

    def __init__(self, seed: int, step: int, batch: int, rows: slice, device: torch.device | str = "cpu") -> None:
        self.seed, self.step, self.batch, self.rows, self.device = seed, step, batch, rows, device

    def on(self, device: torch.device | str) -> Draws:
        """The same numbers on another device."""
        return Draws(self.seed, self.step, self.batch, self.rows, device)

    def normal(self, stream: str, *shape: int) -> Tensor:
        """(rows, *shape) standard normal float32."""
        g = generator("train", self.seed, self.step, stream)
        return torch.randn((self.batch, *shape), generator=g)[self.rows].to(self.device)

    def uniform(self, stream: str, *shape: int) -> Tensor:
        """(rows, *shape) uniform in [0, 1), float64."""
        g = generator("train", self.seed, self.step, stream)
        return torch.rand((self.batch, *shape), generator=g, dtype=torch.float64)[self.rows].to(self.device)

    def integers(self, stream: str, high: int, *shape: int) -> Tensor:
        """(rows, *shape) integers in [0, high)."""
        g = generator("train", self.seed, self.step, stream)
        return torch.randint(high, (self.batch, *shape), generator=g)[self.rows].to(self.device)


class Loss(NamedTuple):
    """A loss and what is worth showing of it.

    Attributes:
        total: scalar to differentiate, a mean over the rows.
        per_sample: (B,) the unweighted loss of each row, detached; for charts by noise level.
        log_snr: (B,) each row's level, where there is one.
        metrics: further scalars to log.
    """

    total: Tensor
    per_sample: Tensor | None = None
    log_snr: Tensor | None = None
    metrics: Mapping[str, Tensor] = {}


class Role(NamedTuple):
    """A module that takes part in a training.

    Attributes:
        module: the module.
        rate: factor on the recipe's learning rates for it.
        averaged: whether running averages of its weights are kept.
        trained: whether its weights change.
        compilable: whether it is called as a whole, so that compiling it helps.
    """

    module: nn.Module
    rate: float = 1.0
    averaged: bool = True
    trained: bool = True
    compilable: bool = False


Batch = Mapping[str, Any]


class Phase(NamedTuple):
    """One kind of optimiser step: which roles it changes, how often it runs, and its loss."""

    name: str
    trains: Sequence[str]
    every: int
    loss: Callable[[Batch, Draws], Loss]


class Objective(nn.Module):
    """What a training minimises: its roles (modules) and its phases (losses). Draws all randomness from ``Draws``."""

    kind: ClassVar[str] = "objectives"

    @abstractmethod
    def roles(self) -> dict[str, Role]:
        """The modules that take part, by name. Every trained one is saved."""

    @abstractmethod
    def phases(self) -> list[Phase]:
        """The kinds of step, in the order in which they run."""
