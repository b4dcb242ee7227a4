"""Which sample is trained at which position: a pure function, so that it never has to be saved."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from unnoise.core.noise import generator


class Order:
    """The endless order of a data set's items.

    Each epoch is a shuffle of its own in which an item stands as often as its weight; with equal weights each
    stands there once. A weight's fraction of a time is rounded at random, so that it is kept on average.

    Args:
        weights: (N,) positive sampling weights.
        seed: of the training.
    """

    def __init__(self, weights: Sequence[float] | Tensor, seed: int) -> None:
        weights = torch.as_tensor(weights, dtype=torch.float64)
        self.expected = weights / weights.mean()  # (N,) times an epoch
        self.seed = seed
        self._epoch = functools.lru_cache(maxsize=2)(self._make)

    def _make(self, epoch: int) -> Tensor:
        g = generator("order", self.seed, epoch)
        # systematic rounding: one random offset keeps each item's count within 1 of what is expected, and the sum at N
        ends = torch.cumsum(self.expected, 0)
        ends[-1] = len(ends)
        ends = ends + torch.rand((), generator=g, dtype=torch.float64)
        counts = torch.diff(ends.floor(), prepend=ends.new_zeros(1)).long()
        items = torch.repeat_interleave(torch.arange(len(counts)), counts)
        return items[torch.randperm(len(items), generator=g)]

    def __call__(self, start: int, count: int) -> Tensor:
        """(count,) items at the positions from ``start`` on; position p lies in epoch p // N."""
        size = len(self.expected)
        parts, place = [], start
        while place < start + count:
            epoch, inside = divmod(place, size)
            part = self._epoch(epoch)[inside : inside + start + count - place]
            parts.append(part)
            place += len(part)
        return torch.cat(parts)
