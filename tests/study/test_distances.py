"""The distances against closed forms, scipy and enumeration; intervals against what they promise; memorisation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor

from unnoise.errors import UnnoiseError
from unnoise.study.distances import (
    bootstrap,
    cubic,
    diversity_of,
    frechet,
    frechet_of,
    kernel,
    kernel_of,
    mean_of,
    pair_mean,
    paired_terms,
    resamples,
)
from unnoise.study.leaderboard import saturation, variety
from unnoise.study.memorisation import copied, memoriser, nearest


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(rows: int, mean: Tensor, root: Tensor) -> Tensor:
    """Rows whose sample mean and covariance are these, root root^T, and not merely about these."""
    x = normal(rows, len(mean))
    x = x - x.mean(0)
    white = torch.linalg.qr(x).Q * (rows - 1) ** 0.5
    return mean + white @ root.T


# Frechet


def test_frechet_of_known_gaussians() -> None:
    """With covariances that commute it is |m - m'|^2 + sum (sqrt l - sqrt l')^2."""
    a, b = torch.tensor([4.0, 1.0, 0.25]).double(), torch.tensor([1.0, 9.0, 0.25]).double()
    mean = torch.tensor([1.0, -2.0, 0.5]).double()
    turn = torch.linalg.qr(normal(3, 3, seed=4)).Q
    found = frechet(exactly(40, mean, turn @ a.sqrt().diag()), exactly(17, 0 * mean, turn @ b.sqrt().diag()))
    assert found == pytest.approx(float((mean**2).sum() + ((a.sqrt() - b.sqrt()) ** 2).sum()), rel=1e-12)


@pytest.mark.parametrize(("rows", "others"), [(60, 45), (9, 60)])  # the second without full rank
def test_frechet_is_that_of_the_root_of_a_matrix(rows: int, others: int) -> None:
    a, b = normal(rows, 12) @ normal(12, 12, seed=1), normal(others, 12, seed=2) + 0.3
    c, d = np.cov(a.T.numpy()), np.cov(b.T.numpy())
    root = scipy.linalg.sqrtm(c @ d + 1e-14 * np.eye(12))
    wanted = float(((a.mean(0) - b.mean(0)) ** 2).sum()) + np.trace(c + d - 2 * np.real(root))
    assert frechet(a, b) == pytest.approx(wanted, rel=1e-5)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-12)


def test_frechet_of_a_set_with_itself_is_nothing_and_small_sets_flatter_nobody() -> None:
    a = normal(400, 20)
    assert frechet(a, a) < 1e-10
    far, near = frechet(a[:50], normal(50, 20, seed=9)), frechet(a, normal(400, 20, seed=9))
    assert far > 3 * near > 0, "biased: the same law, and more the fewer rows"


# kernel


def population(a: Tensor, b: Tensor) -> float:
    """The squared discrepancy of two laws, each uniform on its rows."""
    return float(cubic(a, a).mean() + cubic(b, b).mean() - 2 * cubic(a, b).mean())


def test_the_kernel_is_as_written() -> None:
    a, b = normal(2, 3), normal(4, 3, seed=1)
    wanted = [[(float(x @ y) / 3 + 1) ** 3 for y in b] for x in a]
    assert torch.allclose(cubic(a, b), torch.tensor(wanted, dtype=torch.float64), rtol=1e-12)


def test_the_kernel_distance_is_unbiased() -> None:
    """Its mean over all samples of two points from each law is the laws' own distance, to the last digits."""
    a, b = normal(3, 2), normal(2, 2, seed=1) + 0.5
    samples = [
        kernel(a[list(i)], b[list(j)])
        for i in itertools.product(range(3), repeat=2)
        for j in itertools.product(range(2), repeat=2)
    ]
    assert sum(samples) / len(samples) == pytest.approx(population(a, b), rel=1e-12)
    biased = [
        population(a[list(i)], b[list(j)])
        for i in itertools.product(range(3), repeat=2)
        for j in itertools.product(range(2), repeat=2)
    ]
    assert sum(biased) / len(biased) > 1.2 * population(a, b), "the control: the form with i = j is biased"


def test_pairs_of_one_prompt_do_not_bias_it() -> None:
    """Rows of a and b that belong together: only the paired form has the laws' distance as its mean."""
    a = normal(4, 2)
    b = a + 0.2 * normal(4, 2, seed=1)
    ones = torch.ones(1, 2).double()
    every = list(itertools.product(range(4), repeat=2))
    paired = [float(pair_mean(paired_terms(a[list(i)], b[list(i)]), ones)) for i in every]
    assert sum(paired) / len(paired) == pytest.approx(population(a, b), rel=1e-9)
    assert sum(kernel(a[list(i)], b[list(i)]) for i in every) / len(every) < 0, "the control: pulled below zero"
    assert kernel_of(a, a).value == 0


def test_copies_in_a_resample_are_no_pairs() -> None:
    terms, counts = normal(5, 5), torch.tensor([[2.0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).double()
    for row, found in zip(counts, pair_mean(terms, counts), strict=True):
        taken = torch.repeat_interleave(torch.arange(5), row.long()).tolist()
        pairs = [terms[i, j] for i, j in itertools.product(taken, repeat=2) if i != j]
        assert float(found) == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-12)


@pytest.mark.parametrize(("a", "b"), [((1, 3), (4, 3)), ((4, 3), (4, 2)), ((4,), (4,))])
def test_what_cannot_be_compared_is_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    for distance in (frechet, kernel):
        with pytest.raises(UnnoiseError):
            distance(torch.zeros(a), torch.zeros(b))


def test_sets_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(UnnoiseError, match="no pairs"):
        paired_terms(normal(3, 2), normal(4, 2))


# intervals


def test_an_interval_covers_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(300):
        figure = mean_of(normal(60, seed=trial) + 2, seed=trial)
        covered += figure.low <= 2 <= figure.high
    assert 0.91 <= covered / 300 <= 0.98


def test_resamples_are_fixed_and_whole() -> None:
    counts = resamples(30, 7)
    assert torch.equal(counts, resamples(30, 7))
    assert not torch.equal(counts, resamples(30, 8))
    assert torch.equal(counts.sum(1), torch.full((1000,), 30.0).double())
    with pytest.raises(UnnoiseError, match="1 prompts"):
        resamples(1, 0)


def test_the_frechet_interval_is_around_its_value() -> None:
    """Repeated rows push every resample above the value; it is the spread that is kept."""
    a, b = normal(40, 8), normal(40, 8, seed=1)
    figure = frechet_of(a, b)
    assert figure.value == pytest.approx(frechet(a, b))
    assert figure.low < figure.value < figure.high

    def plain(counts: Tensor) -> Tensor:
        rows = [torch.repeat_interleave(torch.arange(40), row.long()) for row in counts]
        return torch.tensor([frechet(a[each], b[each]) for each in rows]).double()

    assert bootstrap(plain, 40, number=200).low > figure.value, "the control: without the shift it is not even inside"


def test_kernel_and_diversity_have_their_value_inside() -> None:
    a, b = normal(50, 6), normal(50, 6, seed=1) + 0.4
    for figure in (kernel_of(a, b), diversity_of(a)):
        assert figure.low < figure.value < figure.high
    same = torch.ones(5, 4)
    assert diversity_of(same) == pytest.approx((0, 0, 0, 5), abs=1e-12)
    assert diversity_of(torch.eye(5)).value == 1


# what one picture shows


def test_variety_of_known_vectors() -> None:
    right = torch.tensor([1.0, 0.0]).double()
    features = torch.stack([torch.stack([right, right]), torch.stack([right, right.flip(0)])])  # (S, P, D)
    assert variety(3 * features).tolist() == pytest.approx([0.0, 1.0])


def test_saturation_of_known_colours() -> None:
    colours = torch.tensor([[255, 0, 0], [128, 128, 128], [255, 255, 255], [200, 100, 100]], dtype=torch.uint8)
    x = colours[:, :, None, None].expand(4, 3, 8, 8).clone()
    x[:, :, :4] = 255  # paper does not count
    assert saturation(x).tolist() == pytest.approx([1.0, 0.0, 0.0, 0.5])


# memorisation


def smooth(count: int, seed: int) -> Tensor:
    """Random pictures of one law, uint8 (count, 3, 32, 32)."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(coarse, 32, mode="bilinear") * 255).round().to(torch.uint8)


def test_nearest_is_in_levels() -> None:
    x = smooth(3, 0).clamp(20, 200)
    assert nearest(x + 7, x) == pytest.approx([7.0] * 3)
    assert nearest(x, x).tolist() == [0.0] * 3


def test_copied_is_mann_whitney() -> None:
    a, b = normal(30).round(decimals=1), normal(30, seed=1).round(decimals=1) + 0.3
    wanted = scipy.stats.mannwhitneyu(b, a).statistic / 900  # how often b is above a, ties a half
    assert copied(a, b).value == pytest.approx(wanted, rel=1e-12)
    assert copied(a, a).value == 0.5


def test_a_memoriser_is_found_out_and_an_honest_model_is_not() -> None:
    training, held, honest = (smooth(60, seed) for seed in (1, 2, 3))
    real = nearest(held, training)
    points = training.double() / 127.5 - 1
    drawn = memoriser(points, list(range(40)))
    apart = torch.cdist(drawn.flatten(1).double(), points.flatten(1)).amin(1)
    assert float(apart.max()) < 1e-4, "each draw is a training picture"
    copies = ((drawn + 1) * 127.5).round().to(torch.uint8)
    assert len(copies.flatten(1).unique(dim=0)) > 15, "and not one for all"
    caught, fair = copied(nearest(copies, training), real[:40]), copied(nearest(honest, training), real)
    assert caught.low > 0.99
    assert fair.low < 0.5 < fair.high
    far = copied(nearest(255 - 0 * honest, training), real)
    assert far.high < 0.1, "bad pictures are not called copies"
