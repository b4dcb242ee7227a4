"""Running averages of weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unnoise.training import ranks


def gamma_of(width: float) -> float:
    """The exponent of the power-function average with a relative width, by bisection.

    Karras et al. 2023 (arXiv 2312.02696), equation 123: width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).
    """
    low, high = 0.0, 1e5
    for _ in range(200):
        middle = (low + high) / 2
        if (middle + 1) / ((middle + 2) ** 2 * (middle + 3)) > width**2:
            low = middle
        else:
            high = middle
    return (low + high) / 2


class PowerAverage:
    """The power-function average of a module's weights: its window grows with the training and forgets the start.

    Karras et al. 2023 (arXiv 2312.02696), section 3.1: after step t the average keeps (1 - 1/t)^(gamma + 1) of itself.
    Buffers are copied, not averaged.
    """

    def __init__(self, module: nn.Module, width: float) -> None:
        self.width, self.gamma = width, gamma_of(width)
        self.module = module
        self.tensors = {n: p.detach().clone() for n, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Takes in the module's weights after optimiser step number ``steps``, counted from 1."""
        beta = (1 - 1 / steps) ** (self.gamma + 1)
        named = dict(self.module.named_parameters())
        torch._foreach_lerp_(list(self.tensors.values()), [named[n] for n in self.tensors], 1 - beta)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over an average; its names must be exactly ours.

        Raises:
            KeyError: a tensor is missing or of another name.
        """
        if self.tensors.keys() != state.keys():
            raise KeyError(f"average differs in {sorted(self.tensors.keys() ^ state.keys())[:3]}")
        for name, tensor in self.tensors.items():
            tensor.copy_(ranks.like(state[name], tensor))


@contextmanager
def swapped(pairs: Iterable[tuple[nn.Module, PowerAverage | None]]) -> Iterator[None]:
    """Within, the modules have the weights of their averages; afterwards their own, bit for bit, as their buffers are.

    No module is copied: one whose weights are spread over processes cannot be.
    """
    own: list[tuple[Tensor, Tensor]] = []
    try:
        with torch.no_grad():
            for module, average in pairs:
                own += [(buffer, buffer.clone()) for buffer in module.buffers()]
                for name, weight in module.named_parameters() if average is not None else ():
                    own.append((weight, weight.detach().clone()))
                    weight.copy_(average.tensors[name])  # type: ignore[union-attr]
        yield
    finally:
        with torch.no_grad():
            for changed, before in own:
                changed.copy_(before)
