"""Noise that depends on what it is for, and on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from unnoise.core.level import NoiseLevel

VERSION = 1


def generator(*key: object) -> torch.Generator:
    """A CPU generator that is a pure function of the key, on every machine; versioned, so that it can change."""
    text = "|".join(str(part) for part in ("unnoise", VERSION, *key))
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=False) >> 1
    return torch.Generator().manual_seed(seed)


def normal(shape: Sequence[int], *key: object) -> Tensor:
    """Standard normal noise in float64 on the CPU: a pure function of the key."""
    return torch.randn(tuple(shape), generator=generator(*key), dtype=torch.float64)


class NoiseSource:
    """The noise of a run: each picture has its own seed, so that it never depends on what else is in the batch.

    Drawn in float64 on the CPU and rounded once, so that it does not depend on the device either.

    Args:
        seeds: one seed for each row of the batch.
        shape: the shape of one row's state.
        dtype, device: of the noise that is handed out.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        index: int = 0,
    ) -> None:
        self.seeds = tuple(seeds)
        self.shape = tuple(shape)
        self.dtype = dtype
        self.device = device
        self.index = index
        self._draws = 0

    def _rows(self, *key: object) -> Tensor:
        rows = torch.stack([normal(self.shape, seed, *key) for seed in self.seeds])
        return rows.to(device=self.device, dtype=self.dtype)

    def initial(self) -> Tensor:
        """(B, *shape) standard normal noise to start from; multiply by the first level's sigma."""
        return self._rows("initial")

    def at(self, index: int) -> NoiseSource:
        """The source for one step of the run, by its number: a run that is restarted there sees the same noise."""
        return NoiseSource(self.seeds, self.shape, self.dtype, self.device, index)

    def between(self, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        """(B, *shape) fresh standard normal noise for the interval. Two draws in one step are independent."""
        self._draws += 1
        return self._rows("step", self.index, self._draws)
