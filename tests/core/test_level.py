"""NoiseLevel: the arithmetic that everything else rests on."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laws.world import draw
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel, over

POSITIVE = st.floats(1e-6, 1e3)
FRACTION = st.floats(0, 1)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(alpha=st.floats(0, 10), sigma=POSITIVE, there=st.tuples(POSITIVE, POSITIVE), eta=FRACTION)
def test_split_keeps_the_variance(alpha: float, sigma: float, there: tuple[float, float], eta: float) -> None:
    """kept^2 + fresh^2 = sigma^2, neither negative, whatever the two levels are."""
    kept, fresh = NoiseLevel(*there).split(NoiseLevel(alpha, sigma), eta)
    assert kept >= 0
    assert fresh >= 0
    assert math.isclose(kept**2 + fresh**2, there[1] ** 2, rel_tol=1e-9)
    assert eta > 0 or fresh == 0


def test_split_is_the_ancestral_posterior() -> None:
    """With eta 1 the fresh variance is beta~ = (1 - abar_s)/(1 - abar_t) beta_t: DDPM's posterior (equation 7)."""
    a_t, a_s = 0.3, 0.5  # alpha bar of here and there
    here, there = (NoiseLevel(math.sqrt(a), math.sqrt(1 - a)) for a in (a_t, a_s))
    _, fresh = there.split(here, 1.0)
    assert math.isclose(fresh**2, (1 - a_s) / (1 - a_t) * (1 - a_t / a_s), rel_tol=1e-12)
    assert there.split(NoiseLevel(0.0, 1.0), 1.0) == (0.0, there.sigma), "from pure noise all of it is fresh"
    assert NoiseLevel(1.0, 0.0).split(here, 1.0) == (0.0, 0.0)


def test_log_snr_and_sigma_hat_at_the_ends() -> None:
    noise, clean = NoiseLevel(0.0, 1.0), NoiseLevel(1.0, 0.0)
    assert (noise.sigma_hat, noise.log_snr) == (math.inf, -math.inf)
    assert (clean.sigma_hat, clean.log_snr) == (0.0, math.inf)
    both = NoiseLevel(torch.tensor([0.0, 1.0, 0.6]), torch.tensor([1.0, 0.0, 0.8]))
    assert torch.equal(torch.as_tensor(both.log_snr)[:2], torch.tensor([-math.inf, math.inf]))
    assert math.isclose(float(torch.as_tensor(both.log_snr)[2]), NoiseLevel(0.6, 0.8).log_snr, rel_tol=1e-6)


def test_between_is_even_in_log_snr() -> None:
    here, there = NoiseLevel(0.3, 0.9), NoiseLevel(0.8, 0.2)
    for r in (0.0, 0.25, 1.0):
        found = here.between(there, r)
        assert math.isclose(found.log_snr, (1 - r) * here.log_snr + r * there.log_snr, rel_tol=1e-12)
    for end in (NoiseLevel(0.0, 1.0), NoiseLevel(1.0, 0.0)):
        with pytest.raises(ValueError):
            here.between(end, 0.5)


def test_over_broadcasts_rows_and_keeps_dtype() -> None:
    x = torch.zeros(2, 3, 4)
    row = over(torch.tensor([1.0, 2.0], dtype=torch.float64), x)
    assert isinstance(row, torch.Tensor)
    assert row.shape == (2, 1, 1)
    assert row.dtype == torch.float32
    video = over(torch.ones(2, 1, 4), x)
    assert isinstance(video, torch.Tensor)
    assert video.shape == (2, 1, 4), "a level for each frame stays as it is"
    assert over(0.5, x) == 0.5


def test_mix_of_rows_is_mix_of_each() -> None:
    x0, eps = draw(3, 2, 2, seed=1), draw(3, 2, 2, seed=2)
    alpha, sigma = torch.tensor([0.1, 0.5, 1.0]).double(), torch.tensor([0.9, 0.5, 0.0]).double()
    mixed = NoiseLevel(alpha, sigma).mix(x0, eps)
    for i in range(3):
        assert torch.equal(mixed[i], NoiseLevel(float(alpha[i]), float(sigma[i])).mix(x0[i], eps[i]))


def test_estimate_of_x0_makes_the_state() -> None:
    x, x0 = draw(2, 3, seed=1), draw(2, 3, seed=2)
    for level in (
        NoiseLevel(0.3, 0.7),
        NoiseLevel(0.0, 2.0),
        NoiseLevel(torch.tensor([0.1, 1.0]), torch.tensor([1.0, 3.0])),
    ):
        e = Estimate.of(x, x0, level)
        assert torch.allclose(level.mix(e.x0, e.eps), x, rtol=0, atol=1e-12)
    assert not Estimate.of(x, x0, NoiseLevel(1.0, 0.0)).eps.any(), "at sigma = 0 nothing is said of the noise"
    rows = Estimate(x, x0, torch.tensor([0.1, 0.2])).rows(1, 2)
    assert torch.equal(rows.x0, x[1:])
    assert rows.fraction is not None
    assert rows.fraction.tolist() == torch.tensor([0.2]).tolist()
