"""Two computations timed against each other in one process, and against what the processor can do.

A machine's speed drifts by tens of per cent from one minute to the next. Of two computations run in turn, ABBA, both
see the same drift, and a ratio over one such round is free of it to first order; so ratios are taken round by round,
and their median is what is reported, with the quartiles as spread.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Call = Callable[[], Any]
Timed = Callable[[], Mapping[str, float]]  # runs something, and says how long each part of it took


class Ratio(NamedTuple):
    """How much longer theirs takes than ours.

    Attributes:
        ours, theirs: seconds a call, medians.
        ratio: theirs over ours, the median over rounds.
        low, high: its quartiles.
        rounds: how many there were.
    """

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    rounds: int


class Work(NamedTuple):
    """Floating-point operations of a call, a multiplication and an addition counted as two."""

    convolutions: float
    products: float

    def floor(self, peak: Work) -> float:
        """Seconds it takes at least, at a ``peak`` in operations a second."""
        return self.convolutions / peak.convolutions + self.products / peak.products


def clocked(call: Call) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def whole(call: Call) -> Timed:
    """The call as one whole, named "all"."""
    return lambda: {"all": clocked(call)}


def paired(ours: Timed, theirs: Timed, seconds: float, least: int = 3) -> dict[str, Ratio]:
    """By part: rounds of ours, theirs, theirs, ours, after one of each that does not count, until the seconds are over.

    Raises:
        ValueError: fewer than two rounds are asked for, of which there are no quartiles.
    """
    if least < 2:
        raise ValueError(f"{least} rounds have no quartiles")
    ours(), theirs()
    rounds: list[tuple[Mapping[str, float], ...]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < least or time.perf_counter() < end:
        rounds.append((ours(), theirs(), theirs(), ours()))
    found = {}
    for part in rounds[0][0]:
        times = [[said[part] for said in each] for each in rounds]
        low, middle, high = statistics.quantiles([(b + c) / (a + d) for a, b, c, d in times], n=4)
        mine = statistics.median(t for a, _, _, d in times for t in (a, d))
        other = statistics.median(t for _, b, c, _ in times for t in (b, c))
        found[part] = Ratio(mine, other, middle, low, high, len(rounds))
    return found


def fastest(calls: Mapping[str, Call], seconds: float) -> str:
    """The name of the call with the lowest median, all run in turn there and back until the seconds have passed."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while not times[next(iter(calls))] or time.perf_counter() < end:
        for name in (*calls, *reversed(calls)):
            times[name].append(clocked(calls[name]))
    return min(times, key=lambda name: statistics.median(times[name]))


def peak(dtype: torch.dtype, seconds: float = 1.0) -> Work:
    """Operations a second of 3 x 3 convolutions, channels last, and of products of matrices, each at its best.

    Sizes are chosen to be easy: 16 pictures of 128 channels of 32 x 32, and 1024 x 1024 numbers.
    """
    x = torch.randn(16, 128, 32, 32).to(dtype).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(128, 128, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    matrix = torch.randn(1024, 1024).to(dtype)
    calls: list[Call] = [lambda: F.conv2d(x, kernel, padding=1), lambda: matrix @ matrix]
    operations = (2 * 16 * 32 * 32 * 128 * 128 * 9, 2 * 1024**3)
    rates = []
    with torch.inference_mode():
        for call, count in zip(calls, operations, strict=True):
            call()
            end, best = time.perf_counter() + seconds, float("inf")
            while time.perf_counter() < end:
                best = min(best, clocked(call))
            rates.append(count / best)
    return Work(*rates)


def attended(q: list[int], k: list[int], v: list[int], *more: Any, **out: Any) -> int:
    """The work of torch's fused attention on processors, which its counter leaves out; from shapes."""
    return int(sdpa_flop_count(q, k, v))


def attended_back(gradient: list[int], q: list[int], k: list[int], v: list[int], *more: Any, **out: Any) -> int:
    """That of its backward pass."""
    return int(sdpa_backward_flop_count(gradient, q, k, v))


FUSED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attended,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attended_back,
}


def work(call: Call) -> Work:
    """What a call computes in convolutions and in products of matrices, attention included; backward passes as well."""
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        call()
    counts = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    convolutions = sum(count for op, count in counts.items() if "convolution" in op)
    return Work(convolutions, sum(counts.values()) - convolutions)


def agree(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> float:
    """The largest difference, relative to the largest number of theirs.

    Raises:
        AssertionError: it is above the tolerance, or theirs is zero everywhere and so says nothing.
    """
    largest = float(theirs.abs().max())
    apart = float((ours - theirs).abs().max()) / largest if largest else float("inf")
    assert apart <= tolerance, f"ours and theirs differ by {apart:.2g}, and only {tolerance:g} is allowed"
    return apart


def machine() -> str:
    """The processor, its fast dtypes, and what computes on it, in one line."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    known = {key.strip(): value.strip() for key, value in fields.items()}
    name = known.get("model name", platform.processor() or platform.machine())
    version = f"family {known['cpu family']} model {known['model']}" if "cpu family" in known else "unknown version"
    fast = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in known.get("flags", "").split()]
    return (
        f"{name} ({version}, {' '.join(fast) or 'no vector units known'}), {torch.get_num_threads()} threads of "
        f"{os.cpu_count()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
    )
