"""Which precision a machine trains fastest in: tried, not guessed."""

from __future__ import annotations

import time

import torch
from torch.nn import functional as F

from unnoise.errors import UnnoiseError


def seconds(device: torch.device, dtype: torch.dtype, patience: float = 10.0, repeats: int = 4) -> float:
    """The best time of a small convolution and a matrix product, forward and backward, under autocast.

    Tried ``repeats`` times, the first to warm up, or until ``patience`` seconds have gone by: a processor without
    bfloat16 takes a hundred times as long.
    """
    size = 16 if device.type == "cuda" else 2
    x = torch.randn(size, 128, 16, 16, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    w = torch.randn(128, 128, 3, 3, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    a = torch.randn(size * 128, 256, device=device, requires_grad=True)
    b = torch.randn(1024, 256, device=device, requires_grad=True)
    best, spent = float("inf"), 0.0
    while repeats and spent < patience:
        started = time.perf_counter()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            total = F.conv2d(x, w, padding=1).sum() + F.linear(a, b).sum()
        total.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took = time.perf_counter() - started
        best, spent, repeats = min(best, took), spent + took, repeats - 1
    return best


def fastest_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """The dtype of that name; for "auto" bfloat16 where a timed trial shows it to be faster, else float32.

    float16 is never chosen: on a processor it is ten times slower, and it overflows.

    Raises:
        UnnoiseError: another name.
    """
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name in names:
        return names[name]
    if name != "auto":
        raise UnnoiseError(f"training has no dtype {name!r}", "use float32, bfloat16 or auto")
    if device.type not in ("cpu", "cuda"):
        return torch.float32
    plain = seconds(device, torch.float32)
    faster = seconds(device, torch.bfloat16, patience=max(0.5, 20 * plain)) < 0.9 * plain
    return torch.bfloat16 if faster else torch.float32
