"""A laboratory in which everything is known: data that is a mixture of Gaussians, and the perfect denoiser for it.

Whatever is claimed of a path, a solver or a loss can be measured here without training anything. All of it is float64,
and every weight is formed by log-sum-exp, so that it holds at any level: alpha = 0, sigma = 0 and far from the data.

Component k of the data, N(mu_k, S_k), is N(alpha mu_k, alpha^2 S_k + sigma^2 I) at a level, and a state x belongs to it
with probability r_k = softmax_k(ln w_k + ln N(x)). With P_k the inverse of that covariance, g_k = P_k (x - alpha mu_k):

    E[x0 | x, k] = mu_k + alpha S_k g_k          E[eps | x, k] = sigma g_k          score = -sum_k r_k g_k

The rule for one Gaussian is Bishop 2006, equation 2.116; for points see Karras et al. 2022 (arXiv 2206.00364), B.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.noise import generator

CLEAN = NoiseLevel(1.0, 0.0)


class _Posterior(NamedTuple):
    """What a state reveals about its component: K components, B states, d dimensions."""

    weight: Tensor  # (B, K) r_k
    log_prob: Tensor  # (B,) ln p(x) at the level
    pull: Tensor  # (B, K, d) g_k
    mean: Tensor  # (B, K, d) E[x0 | x, k]
    alpha: Tensor  # (B, 1)
    sigma: Tensor  # (B, 1)
    variance: Tensor  # (B, K, d) eigenvalues of alpha^2 S_k + sigma^2 I


def _columns(level: NoiseLevel, x: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha, sigma) as (B, 1) float64; a level in a run is two floats, in training two tensors of shape (B,)."""

    def column(value: Scalar) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64, device=x.device).reshape(-1, 1).expand(len(x), 1)

    return column(level.alpha), column(level.sigma)


class Mixture:
    """Data that is a mixture of K Gaussians in d dimensions, with everything that diffusion asks of it, exactly.

    ``Mixture.estimate`` is the denoiser that a perfect training would reach: give it to ``core.sample.sample`` as
    ``denoise``. States may have any shape (B, ...) of d numbers a row.

    Args:
        weights: (K,) how common each component is; made to sum to 1.
        means: (K, d).
        covariances: (K, d, d) symmetric, none with a negative eigenvalue; zero makes a component a point.

    Raises:
        ValueError: the shapes do not fit, a weight is not positive, or a covariance is no covariance.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        self.weights = weights.double() / weights.double().sum()
        self.means = means.double()
        self.covariances = covariances.double()
        num, dim = self.means.shape
        if self.weights.shape != (num,) or self.covariances.shape != (num, dim, dim):
            raise ValueError("a mixture wants weights (K,), means (K, d) and covariances (K, d, d)")
        values, self._axes = torch.linalg.eigh(self.covariances)  # S_k = Q diag(l) Q^T: (K, d), (K, d, d)
        if not (self.weights > 0).all() or (values < -1e-12 * values.abs().amax()).any():
            raise ValueError("weights must be positive, and covariances without a negative eigenvalue")
        self._values = values.clamp_min(0)
        self.dim = dim

    def _posterior(self, x: Tensor, level: NoiseLevel) -> _Posterior:
        alpha, sigma = _columns(level, x)
        variance = alpha[..., None] ** 2 * self._values + sigma[..., None] ** 2  # (B, K, d)
        gap = x[:, None] - alpha[..., None] * self.means  # (B, K, d)
        turned = torch.einsum("bki,kij->bkj", gap, self._axes)  # in each component's own axes
        scaled = turned / variance
        logs = -0.5 * (turned * scaled + variance.log() + math.log(2 * math.pi)).sum(-1) + self.weights.log()
        pull = torch.einsum("bkj,kij->bki", scaled, self._axes)
        mean = self.means + alpha[..., None] * torch.einsum("bkj,kij->bki", self._values * scaled, self._axes)
        return _Posterior(logs.softmax(1), logs.logsumexp(1), pull, mean, alpha, sigma, variance)

    def estimate(self, x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
        """(E[x0 | x], E[eps | x]) at any level, in the shape and dtype of x."""
        flat = x.reshape(len(x), -1).double()
        post = self._posterior(flat, here)
        x0 = torch.einsum("bk,bki->bi", post.weight, post.mean)
        eps = post.sigma * torch.einsum("bk,bki->bi", post.weight, post.pull)
        clean = post.sigma == 0  # the state is the data, even where a component is a point and 0/0 was met above
        x0, eps = torch.where(clean, flat / post.alpha, x0), torch.where(clean, torch.zeros_like(eps), eps)
        return Estimate(x0.reshape(x.shape).to(x.dtype), eps.reshape(x.shape).to(x.dtype))

    def covariance(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """(B, d, d) Cov[x0 | x]: what is still open about the picture. It equals sigma^2/alpha dE[x0 | x]/dx."""
        post = self._posterior(x.reshape(len(x), -1).double(), level)
        shrunk = self._values * post.sigma[..., None] ** 2 / post.variance  # (B, K, d)
        inside = torch.einsum("bk,bkj,kij,klj->bil", post.weight, shrunk, self._axes, self._axes)
        off = post.mean - torch.einsum("bk,bki->bi", post.weight, post.mean)[:, None]
        return inside + torch.einsum("bk,bki,bkj->bij", post.weight, off, off)

    def log_prob(self, x: Tensor, level: NoiseLevel = CLEAN) -> Tensor:
        """(B,) ln p(x) of states at the level; by default of the data itself."""
        return self._posterior(x.reshape(len(x), -1).double(), level).log_prob

    def loss_floor(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """(B,) the squared error of x0, a mean over d, that no network can go below at these states: tr Cov / d.

        Its mean over draws of x at the level is the Bayes loss; a training's loss less this is its excess.
        """
        return self.covariance(x, level).diagonal(dim1=1, dim2=2).mean(1)

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """(count, d) draws of the data, a pure function of the seed."""
        g = generator("mixture", seed)
        which = torch.multinomial(self.weights, count, replacement=True, generator=g)
        z = torch.randn(count, self.dim, generator=g, dtype=torch.float64) * self._values[which].sqrt()
        return self.means[which] + torch.einsum("bj,bij->bi", z, self._axes[which])

    def given(self, coordinates: Sequence[int], values: Tensor) -> Mixture:
        """The law of the other coordinates, in their order, where these have these values: again a mixture.

        Bishop 2006, equations 2.81 and 2.82, with weights by how well each component explains the values. This is the
        truth for inpainting.
        """
        places = torch.as_tensor(list(coordinates))
        rest = torch.tensor([i for i in range(self.dim) if i not in set(coordinates)])
        cov = self.covariances
        within = Mixture(self.weights, self.means[:, places], cov[:, places][:, :, places])
        values = values.double()
        weights = within._posterior(values[None], CLEAN).weight[0]
        across = cov[:, rest][:, :, places]  # (K, r, s)
        gain = torch.linalg.solve(within.covariances, across.mT).mT  # (K, r, s) S_ab S_bb^-1
        means = self.means[:, rest] + torch.einsum("krs,ks->kr", gain, values - self.means[:, places])
        residual = cov[:, rest][:, :, rest] - gain @ across.mT
        return Mixture(weights.clamp_min(1e-300), means, (residual + residual.mT) / 2)

    def endpoint(self, x: Tensor, here: NoiseLevel, there: NoiseLevel, tolerance: float = 1e-12) -> Tensor:
        """Where the sampling equation dx = x0 d(alpha) + eps d(sigma) leads x: the truth that solvers approach.

        Either end may be pure noise; ``there`` may be clean data unless a component is a point.
        """
        end, _ = self._flow(x.reshape(len(x), -1), here, there, tolerance, counted=False)
        return end.reshape(x.shape).to(x.dtype)

    def log_prob_ode(self, x: Tensor, here: NoiseLevel, there: NoiseLevel, tolerance: float = 1e-11) -> Tensor:
        """(B,) ln p(x) at ``here``, following the flow to ``there`` and counting how it spreads; equals ``log_prob``.

        Song et al. 2021 (arXiv 2011.13456), equation 39, with the exact trace and the exact density at ``there``.
        """
        end, spread = self._flow(x.reshape(len(x), -1), here, there, tolerance, counted=True)
        return self.log_prob(end, there) + spread

    def _flow(
        self, x: Tensor, here: NoiseLevel, there: NoiseLevel, tolerance: float, counted: bool
    ) -> tuple[Tensor, Tensor]:
        """(state, log of the growth of volume if it is counted) at ``there``.

        It turns along the circle alpha = cos, sigma = sin, on which the slope is smooth and finite at both ends, pure
        noise and clean data; at equal log-SNR a state on the circle is a multiple of the state on any other path.
        """

        def slope(angle: float, y: Tensor) -> Tensor:
            cos, sin = max(0.0, math.cos(angle)), math.sin(angle)
            post = self._posterior(y[:, :-1], NoiseLevel(cos, sin))
            r, away = post.weight, -sin * post.mean + cos * sin * post.pull  # (B, K, d) the slope of each component
            mean = torch.einsum("bk,bki->bi", r, away)
            if not counted:
                return torch.cat([mean, y.new_zeros(len(y), 1)], 1)
            pull = torch.einsum("bk,bki->bi", r, post.pull)
            inside = ((cos * sin * (1 - self._values)) / post.variance).sum(-1)  # (B, K) trace of d(away)/dx
            between = ((away - mean[:, None]) * (post.pull - pull[:, None])).sum(-1)
            return torch.cat([mean, (r * (inside - between)).sum(1, keepdim=True)], 1)

        start, stop = (math.hypot(float(level.alpha), float(level.sigma)) for level in (here, there))
        ends = [math.atan2(float(level.sigma), float(level.alpha)) for level in (here, there)]
        y = torch.cat([x.double() / start, x.new_zeros(len(x), 1, dtype=torch.float64)], 1)
        y = integrate(slope, y, ends[0], ends[1], tolerance)
        return y[:, :-1] * stop, y[:, -1] + self.dim * math.log(stop / start)


class Deltas:
    """Data that is a list of N points and nothing else: the denoiser of a perfect memoriser, and a control for metrics.

    The same as a ``Mixture`` of points with zero covariance, without its (N, d, d) memory.

    Args:
        points: (N, ...) the points, all as likely.
    """

    def __init__(self, points: Tensor) -> None:
        self.points = points.reshape(len(points), -1).double()

    def estimate(self, x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
        """(E[x0 | x], E[eps | x]) at any level, in the shape and dtype of x."""
        flat = x.reshape(len(x), -1).double()
        alpha, sigma = _columns(here, flat)
        one = torch.ones_like(sigma)
        whole, noisy = torch.where(alpha == 0, one, alpha), torch.where(sigma == 0, one, sigma)  # safe to divide by
        distance = alpha * torch.cdist(flat / whole, self.points, compute_mode="donot_use_mm_for_euclid_dist")  # (B, N)
        x0 = (-0.5 * (distance / noisy) ** 2).softmax(1) @ self.points
        x0 = torch.where(sigma == 0, flat / whole, x0)
        eps = (flat - alpha * x0) / noisy
        return Estimate(x0.reshape(x.shape).to(x.dtype), eps.reshape(x.shape).to(x.dtype))


_HALVES = (2, 4, 6, 8, 10, 12, 14, 16)


def integrate(
    slope: Callable[[float, Tensor], Tensor], y: Tensor, start: float, stop: float, tolerance: float = 1e-12
) -> Tensor:
    """y at ``stop`` of dy/dt = slope(t, y), to about the tolerance: Gragg's midpoint rule, extrapolated to order 16.

    Hairer, Norsett and Wanner 1993, section II.9 (GBS): the rule's error is a series in even powers of its step, so
    eight runs over the same stretch with ever smaller steps tell what a run of step zero would give.

    Args:
        slope: of (B, ...) states; the worst of the batch decides the step.
    """
    t, h = start, (stop - start) / 8
    while (stop - t) * (stop - start) > 0:
        h = math.copysign(min(abs(h), abs(stop - t)), stop - start)
        row: list[Tensor] = []
        first = slope(t, y)
        for halves in _HALVES:
            new = [_midpoint(slope, y, first, t, h, halves)]
            for k, old in enumerate(row):
                new.append(new[k] + (new[k] - old) / ((halves / _HALVES[len(row) - 1 - k]) ** 2 - 1))
            row, last = new, row[-1] if row else new[0]
        error = float(((row[-1] - last).abs() / (1 + row[-1].abs())).amax()) / tolerance
        if error <= 1:
            t, y = (stop if h == stop - t else t + h), row[-1]
        h *= min(3.0, max(0.2, 0.9 * max(error, 1e-16) ** (-1 / 15)))
        if abs(h) < 1e-12 * abs(stop - start):
            raise ArithmeticError(f"the flow is too steep at {t:g} for a tolerance of {tolerance:g}")
    return y


def _midpoint(
    slope: Callable[[float, Tensor], Tensor], y: Tensor, first: Tensor, t: float, h: float, halves: int
) -> Tensor:
    """Gragg's modified midpoint rule over [t, t + h] in an even number of steps; ``first`` is the slope at t."""
    step = h / halves
    before, now = y, y + step * first
    for i in range(1, halves):
        before, now = now, before + 2 * step * slope(t + i * step, now)
    return 0.5 * (before + now + step * slope(t + h, now))
