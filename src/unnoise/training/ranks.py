"""One training in several processes: what they must agree on, and tensors of which each holds a part.

Without ``torch.distributed`` all of this is nothing: one process, and tensors that are whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, distributed, nn

from unnoise.errors import UnnoiseError


def place() -> tuple[int, int]:
    """(this process's number from 0, how many there are)."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def mean(value: float, device: torch.device) -> float:
    """The mean of a number over all processes, in float64 where the device has it."""
    _, count = place()
    if count == 1:
        return value
    each = torch.tensor(value, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    distributed.all_reduce(each)
    return float(each) / count


def average(gradients: Iterable[Tensor | None]) -> None:
    """Replaces gradients by their means over all processes; those of sharded weights are such means already."""
    _, count = place()
    for gradient in gradients if count > 1 else ():
        if gradient is not None and not hasattr(gradient, "full_tensor"):
            distributed.all_reduce(gradient)
            gradient /= count


def whole(tensor: Tensor) -> Tensor:
    """The tensor with the parts of all processes, which all must ask for; others come as they are."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that is spread over several; others come as they are."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def like(tensor: Tensor, own: Tensor) -> Tensor:
    """A whole tensor in the form of our own: where that is a part of one, the same part."""
    if not hasattr(own, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(own.device), own.device_mesh, own.placements)  # type: ignore[attr-defined]


def gathered(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors by name, for the first process to write; the others take part, and get nothing."""
    first, count = place()[0] == 0, place()[1]
    if count == 1:
        return dict(named)
    tensors: dict[str, Tensor] = {}
    for name, tensor in named.items():
        full = whole(tensor)
        if first:
            tensors[name] = full.cpu()
    return tensors


def written(done: bool, device: torch.device) -> None:
    """Ends what the first process wrote: the others wait for it.

    Raises:
        UnnoiseError: it could not; raised here in the others, which have no error of their own.
    """
    if mean(float(done), device) < 1 and done:
        raise UnnoiseError("another process could not save the training", "see what it reports")


def plain(parts: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Components with whole weights, in modules that share nothing: made anew from their configs and filled.

    All processes must call it. Where no tensor is a part, the components come as they are.
    """
    from unnoise.weights.parts import build, describe

    modules: dict[str, nn.Module] = {}
    for name, part in parts.items():
        tensors = part.state_dict()
        if not any(hasattr(tensor, "full_tensor") for tensor in tensors.values()):
            modules[name] = part
            continue
        module = build(name, describe(part), len(tensors))
        module.load_state_dict({key: whole(tensor) for key, tensor in tensors.items()}, assign=True)
        modules[name] = module.eval().requires_grad_(False)
    return modules
