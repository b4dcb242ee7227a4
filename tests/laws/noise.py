"""Noise: a pure function of (seed, run index, draw), whatever else is in the batch and whatever the machine.

Brownian noise is one of (seed, interval), and in its own time the increments of one Brownian motion.
"""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise

import torch

from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.errors import UnnoiseError

HERE, THERE = NoiseLevel(0.0, 1.0), NoiseLevel(0.5, 0.5)
Source = type[NoiseSource]

GOLDEN = {  # version 1, forever: whoever kept a seed gets the same picture again
    "initial": "ce1afec51e6d8fe7",
    "step 0, draw 1": "9c7e8da4fb565201",
    "step 0, draw 2": "46764b16f80b678d",
    "step 3, draw 1": "88cef969bbf06928",
}


def drawn(source: NoiseSource) -> dict[str, torch.Tensor]:
    first, fourth = source.at(0), source.at(3)
    return {
        "initial": source.initial(),
        "step 0, draw 1": first.between(HERE, THERE),
        "step 0, draw 2": first.between(HERE, THERE),
        "step 3, draw 1": fourth.between(HERE, THERE),
    }


def digest(noise: torch.Tensor) -> str:
    """Of six decimals, so that the last bit of another machine's logarithm does not count."""
    text = ",".join(str(round(v * 1e6)) for v in noise.flatten().tolist())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_as_published(kind: Source) -> None:
    found = {name: digest(noise) for name, noise in drawn(kind([0, 12345], (2, 3, 4), torch.float64)).items()}
    assert found == GOLDEN


def is_pure(kind: Source) -> None:
    """The global generator is neither read nor moved, and a second look shows the same."""
    torch.manual_seed(1)
    first = drawn(kind([1, 2], (5, 5)))
    state = torch.get_rng_state()
    again = drawn(kind([1, 2], (5, 5)))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    third = drawn(kind([1, 2], (5, 5)))
    for name in first:
        assert torch.equal(first[name], again[name])
        assert torch.equal(first[name], third[name])


def is_of_the_item(kind: Source) -> None:
    """A row's noise depends on its seed alone."""
    batch = drawn(kind([7, 8, 9], (4, 5)))
    for row, seed in enumerate([7, 8, 9]):
        alone = drawn(kind([seed], (4, 5)))
        assert all(torch.equal(batch[name][row], alone[name][0]) for name in batch)


def draws_are_independent(kind: Source) -> None:
    """The start, two draws in one step, and draws of two steps or seeds have nothing in common."""
    parts = [row.flatten() for noise in drawn(kind([1, 2], (10000,), torch.float64)).values() for row in noise]
    gram = torch.stack(parts) @ torch.stack(parts).T / 10000
    assert (gram - torch.eye(len(parts))).abs().max() < 0.06, "6 standard errors"
    assert all(abs(float(part.mean())) < 0.05 for part in parts)


def is_rounded_once(kind: Source) -> None:
    exact = drawn(kind([3], (64,), torch.float64))
    for dtype in (torch.float32, torch.bfloat16):
        rounded = drawn(kind([3], (64,), dtype))
        for name, noise in rounded.items():
            assert noise.dtype == dtype
            assert torch.equal(noise, exact[name].to(dtype))


LAWS = [is_as_published, is_pure, is_of_the_item, draws_are_independent, is_rounded_once]


GOLDEN_PATH = {  # version 1, forever
    "from pure noise": "d6b2f55c0e421701",
    "after it": "58df1ee017b7a295",
    "a hair's breadth": "73f0f96772e264cd",
}
GRID = [NoiseLevel(0.0, 1.0), *[NoiseLevel(1.0, sigma) for sigma in (5000.0, 80.0, 7.0, 2.0, 1.999, 1.0, 0.3)]]
GRID += [NoiseLevel(1.0, 0.3 * (1 - 2e-6)), NoiseLevel(0.6, 0.1), NoiseLevel(0.9, 0.01)]


def snr(level: NoiseLevel) -> float:
    """The signal-to-noise ratio."""
    return float(level.sigma_hat) ** -2.0


def path_is_as_published(kind: Source) -> None:
    source = kind([0, 12345], (2, 3, 4), torch.float64).at(3)
    ends = [(HERE, THERE), (THERE, NoiseLevel(1.0, 0.3)), (NoiseLevel(1.0, 0.3), NoiseLevel(1.0, 0.299999))]
    found = {name: digest(source.between(*pair)) for name, pair in zip(GOLDEN_PATH, ends, strict=True)}
    assert found == GOLDEN_PATH


def increments_add_up(kind: Source) -> None:
    """Over adjacent intervals, weighted by the roots of their lengths; in whatever step of the run they are asked."""
    times = [0.0, 2.0**-26, 2.0**-20, 3 * 2.0**-10, 1.0, 1 + 2.0**-20, 5.0, 16.0, 100.0]  # of few digits, not rounded
    grid = [NoiseLevel(1.0, t**-0.5) if t else NoiseLevel(0.0, 1.0) for t in times]
    for seed in range(3):
        source, total = kind([seed], (3,), torch.float64), torch.zeros(1, 3, dtype=torch.float64)
        for number in range(len(grid) - 1):
            here, there = grid[number : number + 2]
            total = total + math.sqrt(times[number + 1] - times[number]) * source.at(number).between(here, there)
            whole = math.sqrt(times[number + 1]) * source.at(0).between(grid[0], there)
            assert torch.allclose(total, whole, rtol=1e-12, atol=1e-12)


def increments_are_brownian(kind: Source) -> None:
    """Disjoint intervals, however unlike and however short, are independent of each other, of the start and of other
    seeds, each of variance 1; of overlapping ones the covariance is the root of their overlaps."""
    source = kind([1, 2], (10000,), torch.float64)
    draws = [source.initial(), *[source.between(here, there) for here, there in pairwise(GRID)]]
    parts = [row for noise in draws for row in noise]
    gram = torch.stack(parts) @ torch.stack(parts).T / 10000
    assert (gram - torch.eye(len(parts))).abs().max() < 0.06, "6 standard errors"
    a, b = source.between(GRID[2], GRID[6]), source.between(GRID[4], GRID[7])
    ends = [snr(GRID[i]) for i in (2, 4, 6, 7)]
    overlap = (ends[2] - ends[1]) / math.sqrt((ends[2] - ends[0]) * (ends[3] - ends[1]))
    assert abs(float((a * b).mean()) - overlap) < 0.05


def way_up_is_fresh(kind: Source) -> None:
    """Toward more noise, each step draws anew, and draws nothing of the path."""
    source, low, high = kind([5], (10000,), torch.float64), NoiseLevel(1.0, 1.0), NoiseLevel(1.0, 1.5)
    parts = [source.at(2).between(low, high), source.at(3).between(low, high), source.at(2).between(high, low)]
    gram = torch.cat(parts) @ torch.cat(parts).T / 10000
    assert (gram - torch.eye(3)).abs().max() < 0.06


def refuses_what_has_no_noise(kind: Source) -> None:
    source = kind([5], (2,), torch.float64)
    for there in (NoiseLevel(1.0, 0.0), NoiseLevel(1.0, 1.0), NoiseLevel(1.0, 1 - 1e-9)):
        try:
            source.between(NoiseLevel(1.0, 1.0), there)
        except UnnoiseError:
            continue
        raise AssertionError(f"noise for an interval that ends at {there}")


BROWNIAN_LAWS = [
    path_is_as_published,
    is_pure,
    is_of_the_item,
    is_rounded_once,
    increments_add_up,
    increments_are_brownian,
    way_up_is_fresh,
    refuses_what_has_no_noise,
]
