"""Quantiles of the Beta distribution, without a library for statistics."""

from __future__ import annotations

import math
from functools import lru_cache


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete Beta function (DLMF 8.17.22), by Lentz; for x < (a + 1)/(a + b + 2)."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def beta_cdf(x: float, a: float, b: float) -> float:
    """P(X <= x) for X of Beta(a, b), to about 14 digits; relative ones near 0."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    scale = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return scale * _fraction(x, a, b) / a
    return 1 - scale * _fraction(1 - x, b, a) / b


def _below_half(u: float, a: float, b: float) -> float:
    """The quantile of u in (0, 1/2], by Newton's rule on ln x, in which the distribution is nearly a straight line."""
    norm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    low, high = -745.0, 0.0  # of ln x
    y = min(-1e-3, (math.log(u * a) - norm) / a)  # exact as u tends to 0
    for _ in range(100):
        gap = beta_cdf(math.exp(y), a, b) - u
        low, high = (low, y) if gap > 0 else (y, high)
        density = math.exp(norm + a * y + (b - 1) * math.log(-math.expm1(y)))  # of ln x
        new = y - gap / density
        new = new if low < new < high else 0.5 * (low + high)
        if abs(new - y) < 1e-14 * abs(y):
            return math.exp(new)
        y = new
    return math.exp(y)


@lru_cache(4096)
def beta_quantile(u: float, a: float, b: float) -> float:
    """x with P(X <= x) = u for X of Beta(a, b), to about 13 digits."""
    if u <= 0 or u >= 1:
        return 0.0 if u <= 0 else 1.0
    return _below_half(u, a, b) if u <= 0.5 else 1 - _below_half(1 - u, b, a)
