"""The laboratory itself: its closed forms, against formulas written another way, autograd and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp

from laws.world import draw, mixture, path, truth
from unnoise.core.level import NoiseLevel
from unnoise.core.mixture import CLEAN, Deltas, Mixture, integrate

NOISE = NoiseLevel(0.0, 1.0)
EYE = torch.eye(2, dtype=torch.float64)
LEVELS = [
    NoiseLevel(1.0, 10.0),
    NoiseLevel(1.0, 0.05),
    NoiseLevel(0.3, 0.7),
    NoiseLevel(0.6, 0.8),
    NoiseLevel(1e-9, 1.0),
]


def states(level: NoiseLevel, count: int = 32) -> torch.Tensor:
    return level.mix(mixture().sample(count), draw(count, 2))


def slow_estimate(x: torch.Tensor, level: NoiseLevel) -> torch.Tensor:
    """E[x0 | x] by matrix inversion, component by component and state by state: the formula as one reads it."""
    m, out = mixture(), []
    for row in x:
        logs, means = [], []
        for w, mu, cov in zip(m.weights, m.means, m.covariances, strict=True):
            noised = level.alpha**2 * cov + level.sigma**2 * EYE
            law = torch.distributions.MultivariateNormal(level.alpha * mu, noised)
            logs.append(w.log() + law.log_prob(row))
            means.append(mu + level.alpha * cov @ torch.linalg.inv(noised) @ (row - level.alpha * mu))
        out.append(torch.stack(logs).softmax(0) @ torch.stack(means))
    return torch.stack(out)


@pytest.mark.parametrize("level", LEVELS)
def test_estimate_is_the_formula(level: NoiseLevel) -> None:
    x = states(level)
    e = mixture().estimate(x, level)
    assert torch.allclose(e.x0, slow_estimate(x, level), rtol=0, atol=1e-12)
    assert torch.allclose(level.mix(e.x0, e.eps), x, rtol=1e-13, atol=1e-12), "the halves make the state"


@pytest.mark.parametrize("level", LEVELS)
def test_score_and_covariance_are_derivatives(level: NoiseLevel) -> None:
    """Tweedie: eps = -sigma d ln p/dx; and Cov[x0 | x] = sigma^2/alpha dE[x0 | x]/dx. By autograd."""
    m, x = mixture(), states(level, 8).requires_grad_()
    (score,) = torch.autograd.grad(m.log_prob(x, level).sum(), x)
    assert torch.allclose(m.estimate(x, level).eps, -level.sigma * score, rtol=0, atol=1e-12)
    jacobian = torch.stack([torch.autograd.grad(m.estimate(x, level).x0[:, i].sum(), x)[0] for i in (0, 1)], 1)
    if level.alpha > 1e-6:
        covariance = level.sigma**2 / level.alpha * jacobian
        assert torch.allclose(m.covariance(x, level), covariance, rtol=0, atol=1e-11)


def test_ends_are_exact() -> None:
    m, x = mixture(), draw(16, 2)
    e = m.estimate(x, NOISE)
    assert torch.allclose(e.x0, (m.weights @ m.means).expand(16, 2), rtol=0, atol=1e-14)
    assert torch.allclose(e.eps, x, rtol=0, atol=1e-14)
    clean = m.estimate(x, NoiseLevel(0.5, 0.0))
    assert torch.equal(clean.x0, 2 * x)
    assert not clean.eps.any()
    spread = (m.means - m.weights @ m.means).T * m.weights @ (m.means - m.weights @ m.means)
    prior = torch.einsum("k,kij->ij", m.weights, m.covariances) + spread
    assert torch.allclose(m.covariance(x, NOISE), prior.expand(16, 2, 2), atol=1e-13)
    assert not m.covariance(x, CLEAN).abs().max() > 1e-15


def test_estimate_holds_far_away_and_in_float32() -> None:
    """Weights of e^-5000 are no 0/0, and float32 states are answered in float32 with float64 inside."""
    far = torch.full((1, 2), 100.0, dtype=torch.float64)
    e = mixture().estimate(far, NoiseLevel(1.0, 0.5))
    assert torch.isfinite(e.x0).all()
    x = states(LEVELS[2])
    single = mixture().estimate(x.float(), LEVELS[2]).x0
    assert single.dtype == torch.float32
    assert (single - mixture().estimate(x.float().double(), LEVELS[2]).x0).abs().max() < 1e-6


def test_rows_may_differ_in_level_and_shape_is_free() -> None:
    alpha, sigma = torch.tensor([1.0, 0.3, 0.0, 1.0]).double(), torch.tensor([0.05, 0.7, 1.0, 0.0]).double()
    x = draw(4, 2)
    for data in (mixture(), Deltas(mixture().sample(9))):
        together = data.estimate(x.reshape(4, 1, 2, 1), NoiseLevel(alpha, sigma))
        assert together.x0.shape == (4, 1, 2, 1)
        for i in range(4):
            alone = data.estimate(x[i : i + 1], NoiseLevel(float(alpha[i]), float(sigma[i])))
            assert torch.allclose(together.x0[i].reshape(1, 2), alone.x0, rtol=0, atol=1e-14)
            assert torch.allclose(together.eps[i].reshape(1, 2), alone.eps, rtol=0, atol=1e-14)


@pytest.mark.parametrize("level", [*LEVELS, NOISE])
def test_deltas_are_a_mixture_of_points(level: NoiseLevel) -> None:
    points = mixture().sample(7)
    same = Mixture(torch.ones(7), points, torch.zeros(7, 2, 2))
    x = level.mix(points[[0, 3, 5]], draw(3, 2))
    a, b = Deltas(points).estimate(x, level), same.estimate(x, level)
    assert torch.allclose(a.x0, b.x0, rtol=0, atol=1e-11)
    assert torch.allclose(a.eps, b.eps, rtol=0, atol=1e-11)


def test_deltas_remember() -> None:
    """At little noise the answer is the nearest point, to the last bit: the control that memorisation must flag."""
    points = mixture().sample(50)
    level = NoiseLevel(1.0, 1e-3)
    e = Deltas(points).estimate(level.mix(points, draw(50, 2)), level)
    assert torch.equal(e.x0, points)
    other = mixture().estimate(level.mix(points, draw(50, 2)), level).x0
    assert (other - points).norm(dim=1).min() > 1e-5, "and the true law does not have them by heart"


def test_one_gaussian_s_trajectory_is_known() -> None:
    """x' = m + (x - m) sqrt((s^2 + sigma'^2) / (s^2 + sigma^2)), in x/alpha."""
    variance, mean = 0.4, torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    one = Mixture(torch.ones(1), mean, variance * EYE[None])
    x, here, there = draw(8, 2) * 9, NoiseLevel(1.0, 9.0), NoiseLevel(1.0, 0.01)
    wanted = mean + (x - mean) * math.sqrt((variance + 0.01**2) / (variance + 81))
    assert torch.allclose(one.endpoint(x, here, there), wanted, rtol=0, atol=1e-12)
    assert torch.allclose(one.endpoint(draw(8, 2), NOISE, CLEAN), mean + math.sqrt(variance) * draw(8, 2), atol=1e-12)


def test_endpoint_is_scipy_s() -> None:
    """Ours turns along a circle and extrapolates; theirs is DOP853 in ln sigma. They meet at 1e-11."""
    start, end = truth()

    def slope(log_sigma: float, y: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(y.reshape(-1, 2))
        return (x - mixture().estimate(x, NoiseLevel(1.0, math.exp(log_sigma))).x0).numpy().ravel()

    found = solve_ivp(slope, (math.log(10), math.log(0.05)), start.numpy().ravel(), "DOP853", rtol=1e-12, atol=1e-12)
    assert np.abs(found.y[:, -1] - end.numpy().ravel()).max() < 1e-11


def test_endpoint_is_of_no_path() -> None:
    """The same trajectory on the flow, from the same log-SNR; and there and back again."""
    start, end = truth()
    here, there = (path("flow").onto(NoiseLevel(1.0, sigma)) for sigma in (10.0, 0.05))
    flown = mixture().endpoint(start[:8] * here.alpha, here, there)
    assert torch.allclose(flown / there.alpha, end[:8], rtol=0, atol=1e-11)
    back = mixture().endpoint(flown, there, here)
    assert torch.allclose(back / here.alpha, start[:8], rtol=0, atol=1e-9)


def test_integrator_is_of_high_order() -> None:
    """A rotation through two turns, and a slope that blows up is told and not looped on."""
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    y = integrate(lambda t, y: y @ turn.T, torch.tensor([[1.0, 0.0]], dtype=torch.float64), 0.0, 4 * math.pi)
    assert torch.allclose(y, torch.tensor([[1.0, 0.0]], dtype=torch.float64), rtol=0, atol=1e-12)
    with pytest.raises(ArithmeticError):
        integrate(lambda t, y: y**2, torch.ones(1, 1, dtype=torch.float64), 0.0, 2.0)


@pytest.mark.parametrize(
    ("here", "there"),
    [(CLEAN, NOISE), (CLEAN, NoiseLevel(1.0, 20.0)), (NoiseLevel(0.7, 0.3), NoiseLevel(0.01, 2.0))],
)
def test_likelihood_by_the_flow_is_the_density(here: NoiseLevel, there: NoiseLevel) -> None:
    x = here.mix(mixture().sample(16), draw(16, 2))
    assert torch.allclose(mixture().log_prob_ode(x, here, there), mixture().log_prob(x, here), rtol=0, atol=1e-9)


def test_density_integrates_to_one() -> None:
    line = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0], [0.5]]), torch.tensor([[[0.04]], [[0.2]]]))
    for level in (CLEAN, NoiseLevel(0.6, 0.8)):
        total, _ = quad(
            lambda v, at=level: float(line.log_prob(torch.tensor([[v]]), at).exp()), -8, 8, points=[-1, 0.5]
        )
        assert abs(total - 1) < 2e-8, "as near as quad promises: 1.5e-8"


def test_samples_have_the_moments_and_the_seed() -> None:
    m = mixture()
    x = m.sample(40000, seed=3)
    assert torch.equal(x, m.sample(40000, seed=3))
    assert not torch.equal(x, m.sample(40000, seed=4))
    assert (x.mean(0) - m.weights @ m.means).abs().max() < 0.02
    assert (torch.cov(x.T) - m.covariance(x[:1], NOISE)[0]).abs().max() < 0.03


def test_loss_floor_is_what_the_perfect_denoiser_pays() -> None:
    """The floor is the error of E[x0 | x]; any other denoiser pays more, by exactly its distance from it."""
    m, level, count = mixture(), NoiseLevel(0.6, 0.8), 40000
    x0 = m.sample(count)
    x = level.mix(x0, draw(count, 2))
    best = m.estimate(x, level).x0
    floor, paid = m.loss_floor(x, level).mean(), ((best - x0) ** 2).mean()
    assert abs(float(paid / floor) - 1) < 0.02
    worse = ((best + 0.1 - x0) ** 2).mean()
    assert abs(float(worse - paid) - 0.01) < 0.003
    one = Mixture(torch.ones(1), torch.zeros(1, 2), 0.4 * EYE[None])
    assert torch.allclose(one.loss_floor(x, NoiseLevel(1.0, 0.5)), torch.tensor(0.4 * 0.25 / 0.65).double(), atol=1e-14)


def test_conditionals_are_slices_of_the_density() -> None:
    """p(a | b) = p(a, b) / p(b), with p(b) by quadrature; in either order of coordinates."""
    m, value = mixture(), 0.35
    for seen in (0, 1):
        given = m.given([seen], torch.tensor([value], dtype=torch.float64))

        def joint(v: float, seen: int = seen) -> float:
            point = torch.tensor([[v, value]] if seen else [[value, v]], dtype=torch.float64)
            return float(m.log_prob(point).exp())

        whole, _ = quad(joint, -6, 6, epsabs=1e-12)
        for v in (-1.0, 0.0, 0.8):
            found = float(given.log_prob(torch.tensor([[v]], dtype=torch.float64)).exp())
            assert math.isclose(found, joint(v) / whole, rel_tol=1e-7)


def test_conditionals_in_three_dimensions_keep_the_order() -> None:
    """Observing one coordinate and then another is observing both; a single Gaussian against the block formula."""
    root = draw(2, 3, 3, seed=4)
    m = Mixture(
        torch.tensor([0.4, 0.6]).double(), draw(2, 3, seed=5), root @ root.mT + 0.1 * torch.eye(3, dtype=torch.float64)
    )
    both = m.given([2, 0], torch.tensor([0.5, -0.3]))
    after = m.given([2], torch.tensor([0.5])).given([0], torch.tensor([-0.3]))
    for a, b in ((both.weights, after.weights), (both.means, after.means), (both.covariances, after.covariances)):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("weights", "means", "covariances"),
    [
        (torch.ones(2), torch.zeros(3, 2), torch.zeros(3, 2, 2)),
        (torch.ones(1), torch.zeros(1, 2), torch.zeros(1, 2, 3)),
        (torch.tensor([1.0, -1.0, 1.0]), torch.zeros(3, 2), torch.zeros(3, 2, 2)),
        (torch.ones(1), torch.zeros(1, 2), -EYE[None]),
    ],
)
def test_what_is_no_mixture_is_refused(weights: torch.Tensor, means: torch.Tensor, covariances: torch.Tensor) -> None:
    with pytest.raises(ValueError):
        Mixture(weights, means, covariances)
