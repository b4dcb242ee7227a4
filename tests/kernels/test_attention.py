"""Attention and its norm against torch's own, values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unnoise.kernels import attention as kernel
from unnoise.kernels.attention import RMSNorm, attend, attention_map, columns_used

Norm = Callable[[Tensor, Tensor], Tensor]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def normed(x: Tensor, weight: Tensor) -> Tensor:
    norm = RMSNorm(len(weight)).to(weight.dtype)
    norm.weight = weight  # type: ignore[assignment]
    return norm(x)


def is_torchs(norm: Norm) -> None:
    x, g = draw(3, 5, 8), draw(3, 5, 8, seed=1)
    x[0, 0] *= 1e-4  # where the small number below the root matters
    weight = 1 + 0.3 * draw(8, seed=2)
    found = []
    for each in (norm, lambda x, w: F.rms_norm(x, (8,), w, kernel.EPS)):
        leaves = [x.clone().requires_grad_(), torch.nn.Parameter(weight.clone())]
        y = each(*leaves)
        found.append([y, *torch.autograd.grad((y * g).sum(), leaves)])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.detach().abs().max()))


def test_rms_norm_is_torchs() -> None:
    is_torchs(normed)
    norm = RMSNorm(8)
    x = draw(3, 5, 8, dtype=torch.float32)
    wanted = F.rms_norm(x, (8,), norm.weight, kernel.EPS)
    assert torch.allclose(norm(x), wanted, rtol=0, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(norm(x), wanted, rtol=0, atol=1e-6)
    assert norm(x.bfloat16()).dtype == torch.bfloat16
    assert torch.allclose(norm(x.bfloat16()).float(), wanted, rtol=0, atol=0.05)
    norm(x.bfloat16()).float().sum().backward()
    assert norm.weight.grad is not None
    assert norm.weight.grad.dtype == torch.float32


def with_a_length_that_stands_still(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + kernel.EPS).detach() * weight


def without_the_small_number(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True)) * weight


def with_the_mean_taken_out(x: Tensor, weight: Tensor) -> Tensor:
    return F.layer_norm(x, (8,), weight, None, kernel.EPS)


@pytest.mark.parametrize("fault", [with_a_length_that_stands_still, without_the_small_number, with_the_mean_taken_out])
def test_rms_norm_faults_are_seen(fault: Norm) -> None:
    with pytest.raises(AssertionError):
        is_torchs(fault)


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    x = draw(2, 8).requires_grad_()
    (first,) = torch.autograd.grad(normed(x, torch.nn.Parameter(torch.ones(8).double())).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(first.sum(), x)


def question(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [draw(2, 3, n, 8, seed=n, dtype=dtype).requires_grad_() for n in (6, 5, 5)]


MASK = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)[:, None, None, :]


@pytest.mark.parametrize("mask", [None, MASK])
def test_the_map_is_what_attention_weighs_with(mask: Tensor | None) -> None:
    q, k, v = question()
    weights = attention_map(q, k, mask)
    assert torch.allclose(weights @ v, F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
    assert mask is None or not weights[~mask.expand_as(weights)].any()


@pytest.mark.parametrize("how", [{}, {"mask": MASK}, {"causal": True}], ids=["plain", "mask", "causal"])
def test_sixteen_bits_train_by_plain_products(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients are those of float64, to what 16 bits can say; and torch's kernel is not called."""
    exact, rounded = question(), [x.detach().bfloat16().requires_grad_() for x in question()]
    g = draw(2, 3, 6, 8, seed=9)
    wanted = attend(*exact, **how)
    wanted_grads = torch.autograd.grad((wanted * g).sum(), exact)
    fused = F.scaled_dot_product_attention

    def refuse(*args: Any, **kwargs: Any) -> Tensor:
        raise ValueError("torch's kernel")

    monkeypatch.setattr(kernel.F, "scaled_dot_product_attention", refuse)
    found = attend(*rounded, **how)
    grads = torch.autograd.grad((found.double() * g).sum(), rounded)
    with pytest.raises(ValueError, match="kernel"), torch.no_grad():
        attend(*rounded, **how)
    monkeypatch.setattr(kernel.F, "scaled_dot_product_attention", fused)
    for ours, theirs in zip((found, *grads), (wanted, *wanted_grads), strict=True):
        assert (ours.double() - theirs).abs().max() < 0.03 * theirs.abs().max()


def test_columns_that_are_used() -> None:
    assert columns_used(MASK[:, 0, 0]) == 4
    assert columns_used(MASK[1:, 0, 0]) == 1
    assert columns_used(torch.zeros(2, 3, dtype=torch.bool)) == 1
    assert columns_used(torch.ones(2, 3, dtype=torch.bool)) == 3
    assert columns_used(MASK[:, 0, 0].to("meta")) == 5, "no values to look at"
