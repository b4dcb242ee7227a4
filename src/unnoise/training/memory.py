"""How much memory a training needs, before anything large is loaded: counted from shapes, on the meta device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from unnoise.errors import UnnoiseError
from unnoise.training.optimiser import AT_A_TIME, Optimiser
from unnoise.training.settings import TrainSettings

PROGRAM = 1_000_000_000  # bytes of Python, torch and the other libraries, and what they keep for themselves
COPIES = 6  # of a group of matrices, while Muon makes their updates
GROUP = Path("/sys/fs/cgroup")  # where Linux tells a container its limit


class Need(NamedTuple):
    """The bytes that a training needs at once, at its peak.

    Attributes:
        weights: that are trained, in float32.
        gradients: of them.
        moments: what the optimiser keeps of each weight.
        averages: running averages of the weights.
        fixed: weights that are not trained.
        activations: what a step keeps of the network's inside until its gradients are there.
        copies: short-lived ones, of an update or of a save.
        program: the rest.
        peak: the largest sum of those that are there together.
    """

    weights: int
    gradients: int
    moments: int
    averages: int
    fixed: int
    activations: int
    copies: int
    program: int
    peak: int

    def __str__(self) -> str:
        parts = {name: getattr(self, name) for name in self._fields if name != "peak"}
        return ", ".join(f"{name} {gigabytes(size)}" for name, size in parts.items() if gigabytes(size) != "0.0")


def gigabytes(size: int) -> str:
    """Bytes in units of 10^9, for people."""
    return f"{size / 1e9:.1f}"


def needed(trained: nn.Module, fixed: Sequence[nn.Module], settings: TrainSettings, activations: int) -> Need:
    """What a training needs, of modules on the meta device.

    Args:
        trained: what is trained, in float32.
        fixed: what is not, and stays in memory in float32.
        settings: of the training; they say which optimiser and how many averages.
        activations: bytes, from ``kept``, of the samples that are computed at once.
    """
    optimiser = Optimiser(trained, settings)
    weights = sum(4 * p.numel() for p in optimiser.parameters.values())
    moments = sum(4 * t.numel() for t in optimiser.state().values())
    averages = weights * len(settings.averages)
    still = sum(4 * t.numel() for module in fixed for t in module.parameters())
    step = weights + max(activations, _update(optimiser))
    # a save writes tensors in order, and weights of convolutions, channels last, are not; to look at the averages,
    # the weights themselves are put aside. At neither time are there gradients.
    mixed = sum(4 * p.numel() for p in optimiser.parameters.values() if p.ndim == 4 and p[0, 0].numel() > 1)
    save = mixed * round(moments / weights) if weights else 0
    look = weights if averages else 0
    beside = max(step, save, look)
    peak = weights + moments + averages + still + PROGRAM + beside
    copies = max(0, beside - weights - activations)
    return Need(weights, weights, moments, averages, still, activations, copies, PROGRAM, peak)


def _update(optimiser: Optimiser) -> int:
    """The bytes that an update takes besides gradients and moments."""
    adamw = 2 * min(
        max(AT_A_TIME, max((p.numel() for p in optimiser.others.values()), default=0)),
        sum(p.numel() for p in optimiser.others.values()),
    )
    groups: dict[tuple[int, int], int] = {}
    for matrix in optimiser.matrices.values():
        shape = (len(matrix), matrix[0].numel())
        groups[shape] = groups.get(shape, 0) + matrix.numel()
    return 4 * max(adamw, COPIES * max(groups.values(), default=0))


class _Fused(torch.autograd.Function):
    """Attention on the meta device as torch's fused kernel keeps it: what enters and leaves, and no map."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1]))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError("it is counted, and not computed")


class _AsFused(TorchFunctionMode):
    def __torch_function__(self, call: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if call is F.scaled_dot_product_attention:
            return _Fused.apply(*args[:3])  # type: ignore[no-untyped-call]
        return call(*args, **(kwargs or {}))


def kept(network: nn.Module, call: Callable[[], Tensor]) -> int:
    """The bytes that a call keeps for its gradients, besides the network's own weights.

    Args:
        network: on the meta device, in training mode.
        call: calls it, on tensors of the meta device.
    """
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    tensors: dict[int, Tensor] = {}  # tensors are kept here, so that no two storages have one address

    def pack(tensor: Tensor) -> Tensor:
        tensors.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with _AsFused(), saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(tensor.untyped_storage().nbytes() for place, tensor in tensors.items() if place not in own)


def free() -> int | None:
    """The bytes of memory that a program may still take on this machine; None where that is not known."""
    sizes = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes.append(next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    with contextlib.suppress(OSError, ValueError, StopIteration):
        limit = int((GROUP / "memory.max").read_text())  # "max" where there is none
        stat = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
        sizes.append(limit - int((GROUP / "memory.current").read_text()) + int(stat["file"]))
    if not sizes:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(sizes, default=None)


def check(need: Need, what: str, budget: float | None = None) -> None:
    """Ensures that a training fits into memory.

    Args:
        need: of the training.
        what: that is done, for the message.
        budget: 10^9 bytes that it may take; None for what is free.

    Raises:
        UnnoiseError: it does not.
    """
    limit = free() if budget is None else round(budget * 1e9)
    if limit is not None and need.peak > limit:
        have = f"{gigabytes(limit)} GB are free" if budget is None else f"{gigabytes(limit)} GB are what it may take"
        raise UnnoiseError(
            f"{what} needs about {gigabytes(need.peak)} GB of memory ({need}), and {have}",
            "close other programs, or name with --memory the GB that it may take all the same",
        )
