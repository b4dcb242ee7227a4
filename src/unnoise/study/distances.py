"""Distances between two sets of pictures in a network's features, with bootstrap intervals.

The Frechet and the kernel distance are FID and KID if the features are Inception's. Here the features come from a judge
that the user trained, so they are called FD-local and KD-local: figures are comparable only under one judge and at one
number of pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.core.noise import generator
from unnoise.errors import UnnoiseError

RESAMPLES = 1000
LEVEL = 0.95


class Figure(NamedTuple):
    """A figure of ``count`` prompts with the middle 95 % of its bootstrap over prompts."""

    value: float
    low: float
    high: float
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody calls


def frechet(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance between the Gaussians of two sets of features.

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)): Dowson and Landau 1982; as FID by Heusel et al. 2017 (arXiv 1706.08500).
    With centred rows X = Q R and C = R^T R / (N - 1) the eigenvalues of C C' are the squared singular values
    of R R'^T / sqrt((N - 1)(M - 1)), so that the trace of the root is their sum: no matrix root is needed, and
    the result is exact for covariances without full rank (fewer pictures than features) too.

    Args:
        a, b: (N, d) and (M, d), two rows or more each. The distance is biased: fewer rows give larger values.
    """
    _check(a, b)
    a, b = a.double(), b.double()
    centred = [(x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b)]
    r, s = (torch.linalg.qr(x, mode="r").R for x in centred)
    shared = torch.linalg.svdvals(r @ s.T).sum()
    distance = ((a.mean(0) - b.mean(0)) ** 2).sum() + sum((x**2).sum() for x in centred) - 2 * shared
    return float(distance.clamp_min(0))


def cubic(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) the polynomial kernel k(x, y) = (x . y / d + 1)^3 of KID: Binkowski et al. 2018 (arXiv 1801.01401)."""
    return (a.double() @ b.double().T / a.shape[1] + 1) ** 3


def kernel(a: Tensor, b: Tensor) -> float:
    """Squared maximum mean discrepancy under ``cubic``, unbiased: it may be negative.

    Gretton et al. 2012 (JMLR 13), lemma 6; as KID by Binkowski et al. 2018. For sets that were drawn independently;
    for pictures of the same prompts see ``paired_terms``.

    Args:
        a, b: (N, d) and (M, d), two rows or more each.
    """
    _check(a, b)
    inside = [pair_mean(cubic(x, x), torch.ones(1, len(x), dtype=torch.float64)) for x in (a, b)]
    return float(inside[0] + inside[1] - 2 * cubic(a, b).mean())


def paired_terms(a: Tensor, b: Tensor) -> Tensor:
    """(N, N) terms h_ij = k(a_i, a_j) + k(b_i, b_j) - k(a_i, b_j) - k(a_j, b_i), whose mean over i != j is unbiased.

    Gretton et al. 2012, lemma 6, for equal numbers. Row i of both belongs to prompt i: such rows are similar, which
    would pull the general form, with its terms k(a_i, b_i), below zero. This one has no such terms, and is 0 for a = b.
    """
    if a.shape != b.shape:
        raise UnnoiseError(f"{len(a)} and {len(b)} pictures are no pairs", "give as many of both, in one order")
    _check(a, b)
    across = cubic(a, b)
    return cubic(a, a) + cubic(b, b) - across - across.T


def pair_mean(terms: Tensor, counts: Tensor) -> Tensor:
    """(R,) means of (N, N) terms over pairs i != j, with row i repeated counts[r, i] times.

    A resample repeats rows. A row forms no pair with itself or its copies: otherwise
    the distribution would look narrower than it is.
    """
    own = terms.diagonal()
    total = ((counts @ terms) * counts).sum(1) - (counts**2) @ own
    return total / (counts.sum(1) ** 2 - (counts**2).sum(1))


def resamples(count: int, seed: int, number: int = RESAMPLES) -> Tensor:
    """(number, count) float64: how often each resample contains each prompt; a pure function of the seed."""
    if count < 2:
        raise UnnoiseError(f"{count} prompts give no interval", "ask for 2 or more of each tier")
    rows = torch.randint(count, (number, count), generator=generator("bootstrap", seed, count))
    return torch.zeros(number, count, dtype=torch.float64).scatter_add_(1, rows, torch.ones(rows.shape).double())


def bootstrap(
    statistic: Callable[[Tensor], Tensor], count: int, seed: int = 0, number: int = RESAMPLES, centred: bool = False
) -> Figure:
    """A statistic of ``count`` prompts with its percentile interval (Efron 1979).

    Args:
        statistic: maps (R, count) numbers of repeats of each prompt to (R,) values.
        seed: of the resamples; figures with one seed and count share them, so that they are comparable.
        centred: shift the resamples' mean to the value. For a statistic that grows when rows repeat, as the Frechet
            distance does: the spread of its resamples is right, but not their mean.
    """
    value = float(statistic(torch.ones(1, count, dtype=torch.float64))[0])
    values = statistic(resamples(count, seed, number))
    values = values[values.isfinite()]  # a resample with only one prompt has no pairs
    if centred:
        values = values - values.mean() + value
    low, high = values.quantile(torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)).tolist()
    return Figure(value, low, high, count)


def mean_of(values: Tensor, seed: int = 0) -> Figure:
    """The mean of (N,) values, one per prompt."""
    values = values.double()
    return bootstrap(lambda counts: counts @ values / counts.sum(1), len(values), seed)


def frechet_of(a: Tensor, b: Tensor, seed: int = 0, number: int = 200) -> Figure:
    """``frechet`` of rows of the same prompts; both rows of a prompt are resampled together."""

    def statistic(counts: Tensor) -> Tensor:
        samples = (torch.repeat_interleave(torch.arange(len(a)), row.long()) for row in counts)
        return torch.tensor([frechet(a[rows], b[rows]) for rows in samples], dtype=torch.float64)

    return bootstrap(statistic, len(a), seed, number, centred=True)


def kernel_of(a: Tensor, b: Tensor, seed: int = 0) -> Figure:
    """The kernel distance of rows of the same prompts."""
    terms = paired_terms(a, b)
    return bootstrap(lambda counts: pair_mean(terms, counts), len(a), seed)


def diversity_of(features: Tensor, seed: int = 0) -> Figure:
    """Mean of 1 - cosine between pictures of different prompts: 0 if all prompts give the same picture."""
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    apart = 1 - unit @ unit.T
    return bootstrap(lambda counts: pair_mean(apart, counts), len(features), seed)


def _check(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise UnnoiseError(
            f"features of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be compared", "use those of one judge"
        )
    if min(len(a), len(b)) < 2:
        raise UnnoiseError("one picture has no spread", "compare two or more with two or more")
