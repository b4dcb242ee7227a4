"""Levels for any number of steps, fitted to a network by gradient descent through the solver.

After LD3 (Tong et al. 2024, arXiv 2405.15506): the levels are learnt, the network stays fixed, and the loss is
the distance between the ends of a run of few steps and of a run of many from the same noise. Five things differ from
the paper.

1. One curve for all numbers of steps is fitted (`curve`), not one list of levels for one number.
2. The loss uses the logarithm of each row's error: with any levels a few pictures end at another shape of the same
   thing, and would dominate a mean of squares.
3. Distances are between states; the paper's are LPIPS, between pictures.
4. Both runs start from the same state; in the paper's loss (equation 6) the short one may start anywhere within a
   radius of it, and its best end counts.
5. The network gets the level of the state; in the paper the levels for the network are learnt too, as separate offsets.

The solver is ``dpmpp-2m``, written here again with levels that are tensors; a test compares it with the solver.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unnoise.core.guidance import Bound, Memory
from unnoise.core.level import NoiseLevel, over
from unnoise.core.multistep import halved, reach
from unnoise.core.path import Path
from unnoise.core.solver import Denoise
from unnoise.errors import UnnoiseError
from unnoise.spacings.curve import falls, through

COUNTS = (5, 6, 8, 10, 12, 15, 20)
POINTS = 10
RATE = 0.05  # of the logarithms of the gaps between points, for half of the iterations; then it falls to 0
FLOOR = 1e-3  # of an error, below which the run of many steps may itself be off


class Batch(NamedTuple):
    """Start states, and the ends that runs from them should reach.

    Attributes:
        denoise: as for ``sample``.
        start: (B, ...) states at the noisiest level.
        end: (B, ...) their ends after a run of many steps.
    """

    denoise: Bound | Denoise
    start: Tensor
    end: Tensor


class Fit(NamedTuple):
    """The state of a descent.

    Attributes:
        index: number of iterations done.
        num_steps, error: of the last iteration; the error is the geometric mean over rows of (error + ``FLOOR``).
        times: the curve's points so far, for `curve`.
    """

    index: int  # type: ignore[assignment]  # shadows tuple.index, which nobody calls
    num_steps: int
    error: float
    times: list[float]


def end_of(denoise: Bound | Denoise, levels: Sequence[NoiseLevel], x: Tensor) -> Tensor:
    """The end of a run of ``dpmpp-2m`` through which gradients flow to the levels.

    The network's activations are freed, and computed again in the backward pass, a step at a time.

    Args:
        denoise: as for ``sample``.
        levels: alpha and sigma of shape (1,), for all rows, or floats; the last is data.
        x: (B, ...) states at the first level.
    """

    def evaluate(x: Tensor, here: NoiseLevel, there: NoiseLevel, memory: Memory | None) -> tuple[Tensor, Tensor, Any]:
        call = denoise.step(memory) if isinstance(denoise, Bound) else denoise
        e = call(x, here, there)
        return here.mix(e.x0, e.eps), e.x0, getattr(call, "memory", None)

    before: tuple[Tensor, Tensor] | None = None
    memory: Memory | None = None
    for here, there in itertools.pairwise(levels):
        own, x0, memory = checkpoint(evaluate, x, here, there, memory, use_reentrant=False)
        if not isinstance(there.sigma, Tensor) and there.sigma == 0:
            break
        ahead = x0
        if here.alpha != 0:
            now = torch.as_tensor(here.log_snr, dtype=torch.float64)
            h = there.log_snr - now
            if before is not None and _steady(now - before[1], h):
                ahead = x0 + (x0 - before[0]) * over(h / (2 * (now - before[1])), x)
            before = (x0, now)
        # the solver's step with alpha' expm1(-h) expanded, so that it needs no finite log-SNR
        ratio = there.sigma / here.sigma
        x = over(ratio, x) * own + over(there.alpha - ratio * here.alpha, x) * ahead
    data: Tensor = over(levels[-1].alpha, x0) * x0
    return data


def _steady(last: Tensor, h: Tensor) -> bool:
    """Whether the solver extrapolates over a step of h after one of ``last``, both in log-SNR."""
    r, length = float((last / h).detach()), float(h.detach())
    return reach([0.0, -r], -length, halved) > 1


def on_curve(path: Path, points: Sequence[Tensor], num_steps: int) -> list[NoiseLevel]:
    """``num_steps + 1`` levels of a curve through points, the last data; inner levels are tensors of shape (1,)."""
    times = [path.t_min + (1 - path.t_min) * t for t in points]
    inner = [path.at(torch.as_tensor(through(times, i / num_steps)).reshape(1)) for i in range(1, num_steps)]
    ends = [path.at(float(times[0])), path.at(0.0)]
    first, data = (NoiseLevel(float(level.alpha), float(level.sigma)) for level in ends)
    return [first, *inner, data]


def errors(x: Tensor, end: Tensor) -> Tensor:
    """(B,) root mean square distances of states from their ends, relative to that of all ends from 0."""
    return ((x - end) ** 2).flatten(1).mean(1).sqrt() / (end**2).mean().sqrt()


def descend(
    path: Path,
    batches: Sequence[Batch],
    times: Sequence[float],
    counts: Sequence[int] = COUNTS,
    iterations: int = 120,
    seed: int = 0,
) -> Iterator[Fit]:
    """Fits a curve's points, one batch and one number of steps an iteration.

    The noisiest time is fixed. Adam (arXiv 1412.6980) optimises the logarithms of the gaps below it, with
    gradients clipped to norm 1; the curve always falls. Smaller numbers of steps are drawn more often, with a
    probability proportional to 1/sqrt(n).

    Args:
        path: of the denoiser.
        batches: taken in turn.
        times: the curve to begin with, as for `curve`, two points or more.
        counts: numbers of steps to fit for, two or more each.
        iterations: at least 1.
        seed: of the random order of numbers of steps.

    Raises:
        UnnoiseError: there is nothing to fit, or a gradient is not finite.
    """
    if len(times) < 2 or not falls(times) or not batches or iterations < 1 or min(counts, default=0) < 2:
        raise UnnoiseError("there is nothing to fit", "give two falling times or more, and two steps or more")
    gaps = torch.tensor([*times, 0.0], dtype=torch.float64).diff().neg().log().requires_grad_()
    adam = torch.optim.Adam([gaps], RATE, betas=(0.9, 0.95))
    dice, weights = random.Random(seed), [n**-0.5 for n in counts]

    def points() -> list[Tensor]:
        """The curve's points, the last 0."""
        inner = times[0] - times[0] * gaps.softmax(0).cumsum(0)[:-1]
        return [gaps.new_tensor(times[0]), *inner, gaps.new_tensor(0.0)]

    for index in range(iterations):
        adam.param_groups[0]["lr"] = RATE * min(1.0, 2 * (1 - index / iterations))
        num_steps, batch = dice.choices(counts, weights)[0], batches[index % len(batches)]
        off = errors(end_of(batch.denoise, on_curve(path, points(), num_steps), batch.start), batch.end)
        loss = (off + FLOOR).log().mean()
        adam.zero_grad()
        loss.backward()
        if gaps.grad is None or not torch.isfinite(gaps.grad).all():
            raise UnnoiseError(f"the error of {num_steps} steps has no finite gradient", "try dtype float32")
        torch.nn.utils.clip_grad_norm_([gaps], 1.0)
        adam.step()
        yield Fit(index + 1, num_steps, float(loss.detach().exp()), [float(t.detach()) for t in points()[:-1]])
