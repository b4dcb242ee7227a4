"""Muon for hidden matrices, AdamW for all else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from unnoise.training import ranks
from unnoise.training.settings import TrainSettings

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
AT_A_TIME = 2**24  # numbers that AdamW updates together: a step needs little memory beside gradients and moments


def orthogonalise(matrices: Tensor, steps: int = 5, half: bool = False) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values end between 0.7 and 1.2.

    Newton-Schulz iteration with the quintic of Muon (Jordan et al. 2024). (n, rows, columns) in, the same out. With
    ``half``, and on a GPU always, it is computed in bfloat16 as its authors do: it is rough in any precision.
    """
    a, b, c = _NEWTON_SCHULZ
    x: Tensor = matrices.bfloat16() if half or matrices.is_cuda else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x  # (n, short, long)
    for _ in range(steps):
        gram = x @ x.mT  # (n, short, short)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


def together(tensors: Mapping[str, Tensor], numbers: int) -> Iterator[list[str]]:
    """Names, in their order, of tensors that hold so many numbers together at most; a larger one comes alone."""
    names: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        if names and size + tensor.numel() > numbers:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensor.numel()
    if names:
        yield names


def wants_muon(name: str, parameter: nn.Parameter, module: nn.Module) -> bool:
    """Whether a parameter is a hidden matrix: at least two axes, and not at the module's edges.

    A module names the layers at its edges (input, output, embeddings) in ``edges``, a tuple of name prefixes.
    """
    return parameter.ndim >= 2 and not name.startswith(tuple(getattr(module, "edges", ())) or ("\0",))


class Optimiser:
    """Muon and AdamW over one module, with state that is named and can be written as plain tensors.

    Args:
        module: whose parameters are trained.
        settings: rates, decay and clipping.
        rate: factor on both learning rates for this module.
        half: whether Muon's iteration runs in bfloat16; weights and all state keep their dtypes.
    """

    momentum, betas, eps = 0.95, (0.9, 0.95), 1e-8

    def __init__(self, module: nn.Module, settings: TrainSettings, rate: float = 1.0, half: bool = False) -> None:
        self.settings, self.rate, self.half = settings, rate, half
        self.parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        muon = settings.matrix_rate > 0
        self.matrices = {n: p for n, p in self.parameters.items() if muon and wants_muon(n, p, module)}
        self.others = {n: p for n, p in self.parameters.items() if n not in self.matrices}
        self.momenta = {n: torch.zeros_like(p) for n, p in self.matrices.items()}
        self.first = {n: torch.zeros_like(p) for n, p in self.others.items()}
        self.second = {n: torch.zeros_like(p) for n, p in self.others.items()}
        self.steps = 0
        shapes: dict[tuple[int, int], list[str]] = {}
        for name, parameter in self.matrices.items():
            shapes.setdefault((len(parameter), parameter[0].numel()), []).append(name)
        self._shapes = shapes

    def gradient_norm(self) -> Tensor:
        """The norm of all gradients together, as a scalar tensor; not finite if any of them is."""
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        return ranks.whole(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One step with both learning rates times ``factor``; parameters without a gradient stay."""
        self.steps += 1
        self._adamw(factor * self.rate * self.settings.rate)
        self._muon(factor * self.rate * self.settings.matrix_rate)

    def _adamw(self, rate: float) -> None:
        names = [n for n, p in self.others.items() if p.grad is not None]
        if not names:
            return
        grads = {n: p.grad for n in names if (p := self.others[n]).grad is not None}
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(grads.values()))))
        clip = (self.settings.clip / (norm + 1e-6)).clamp(max=1.0)
        correct1, correct2 = (1 - beta**self.steps for beta in self.betas)
        for some in together(grads, AT_A_TIME):
            params: list[Tensor] = [self.others[n] for n in some]
            clipped = torch._foreach_mul([grads[n] for n in some], clip)
            first, second = [self.first[n] for n in some], [self.second[n] for n in some]
            torch._foreach_lerp_(first, clipped, 1 - self.betas[0])
            torch._foreach_mul_(second, self.betas[1])
            torch._foreach_addcmul_(second, clipped, clipped, 1 - self.betas[1])
            below = torch._foreach_sqrt(second)
            torch._foreach_div_(below, correct2**0.5)
            torch._foreach_add_(below, self.eps)
            decayed = [p for p in params if p.ndim >= 2]
            if decayed:
                torch._foreach_mul_(decayed, 1 - rate * self.settings.weight_decay)
            torch._foreach_addcdiv_(params, first, below, -rate / correct1)

    def _muon(self, rate: float) -> None:
        for (rows, columns), all_names in self._shapes.items():
            names = [n for n in all_names if self.matrices[n].grad is not None]
            if not names:
                continue
            params: list[Tensor] = [self.matrices[n] for n in names]
            grads = [p.grad for p in params if p.grad is not None]
            momenta = [self.momenta[n] for n in names]
            torch._foreach_mul_(momenta, self.momentum)
            torch._foreach_add_(momenta, grads)
            ahead = torch._foreach_add(grads, momenta, alpha=self.momentum)  # Nesterov
            updates = orthogonalise(torch.stack([g.reshape(rows, columns) for g in ahead]), half=self.half)
            scale = rate * max(1.0, rows / columns) ** 0.5
            torch._foreach_mul_(params, 1 - rate * self.settings.weight_decay)
            torch._foreach_add_(
                params, [u.reshape(p.shape) for u, p in zip(updates, params, strict=True)], alpha=-scale
            )

    def state(self) -> dict[str, Tensor]:
        """Everything that a step depends on besides weights and gradients, by name; the tensors themselves."""
        buffers = {"momentum": self.momenta, "first": self.first, "second": self.second}
        tensors = {f"{kind}/{name}": t for kind, named in buffers.items() for name, t in named.items()}
        return {**tensors, "steps": torch.tensor(self.steps)}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state; its names must be exactly ours.

        Raises:
            KeyError: a tensor is missing or of another name.
        """
        own = self.state()
        if own.keys() != state.keys():
            raise KeyError(f"optimiser state differs in {sorted(own.keys() ^ state.keys())[:3]}")
        self.steps = int(state["steps"])
        for name, tensor in own.items():
            if name != "steps":
                tensor.copy_(ranks.like(state[name], tensor))
