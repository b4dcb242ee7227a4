"""Scaled dot-product attention, and the norm of its queries and keys."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

EPS = torch.finfo(torch.float32).eps


def attention_map(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)), (B, heads, N, L): the weight of each value for each query. Vaswani et al. 2017
    (arXiv 1706.03762), equation 1.

    Args:
        q: (B, heads, N, d).
        k: (B, heads, L, d).
        mask: bool, broadcast to (B, heads, N, L): False gives a weight of 0. Each query must have at least one True.
    """
    logits = (q / math.sqrt(q.shape[-1])) @ k.mT
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf)
    return logits.softmax(-1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, (B, heads, N, d), without the map where torch has a fast fused kernel.

    For training in 16 bits on a CPU it has none: its kernel takes four to five times as long, forward and backward, as
    plain matrix products, which are computed instead.

    Args:
        q: (B, heads, N, d).
        k, v: (B, heads, L, d).
        mask: bool, broadcast to (B, heads, N, L): False gives a weight of 0.
        causal: query i attends only to values up to i; without a mask.
    """
    needs_grad = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if needs_grad and q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16):
        if causal:
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
        return attention_map(q, k, mask) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def columns_used(mask: Tensor) -> int:
    """The number of columns of a (B, L) bool mask up to the last that is True in any row, at least 1.

    The columns after it are padding that no query sees, and may be left out. It waits for the device; on the meta
    device, which has shapes and no values, it returns L.
    """
    if mask.is_meta:
        return mask.shape[1]
    return int((mask.any(0) * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax().clamp_min(1))


class RMSNorm(nn.RMSNorm):
    """Each row divided by its root mean square, times a weight: torch's module, in fewer passes on a CPU.

    Zhang and Sennrich 2019 (arXiv 1910.07467), equation 4. On a GPU torch has one kernel for it; on a CPU it
    makes a dozen small calls. Lengths are summed in float32 or better. The second derivative is refused.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:  # (..., d)
        if x.is_cuda:
            return super().forward(x)
        if torch.is_grad_enabled():
            return _Normed.apply(x, self.weight)  # type: ignore[no-untyped-call, no-any-return]
        return x * _one_over_rms(x) * self.weight.to(x.dtype)


def _one_over_rms(x: Tensor) -> Tensor:  # (..., d) -> (..., 1)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    return torch.rsqrt(length.square() / x.shape[-1] + EPS).to(x.dtype)


class _Normed(torch.autograd.Function):
    """y = n w with n = x r, r = 1 / rms(x). With h = g w the gradients are r (h - n mean(h n)) and the sum of g n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        r = _one_over_rms(x)
        n, w = x * r, weight.to(x.dtype)
        ctx.save_for_backward(n, r, w)
        ctx.dtype = weight.dtype
        return n * w

    @staticmethod
    @once_differentiable  # n and r are saved as constants: a second derivative would be wrong, and is refused
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        n, r, w = ctx.saved_tensors
        gn = g * n
        mean = (gn @ w)[..., None] / n.shape[-1]
        dx = torch.addcmul(g * w, n, mean, value=-1).mul_(r)
        return dx, gn.flatten(0, -2).sum(0, dtype=ctx.dtype)
