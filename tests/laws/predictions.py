"""Prediction: encode then decode is the identity at every admissible level; the rest is refused, and said so."""

from __future__ import annotations

import math

import pytest
import torch

from laws.world import draw
from unnoise.core.level import NoiseLevel
from unnoise.core.prediction import Prediction
from unnoise.core.registry import find, index
from unnoise.errors import UnnoiseError

ANGLES = [i / 8 * math.pi / 2 for i in range(9)]
EDGES = (NoiseLevel(1.0, 0.0), NoiseLevel(0.0, 1.0))
LEVELS = [
    *EDGES,
    *[NoiseLevel(math.cos(a), math.sin(a)) for a in ANGLES[1:-1]],  # variance-preserving
    *[NoiseLevel(1 - i / 8, i / 8) for i in range(1, 8)],  # flow
    *[NoiseLevel(1.0, sigma) for sigma in (0.05, 0.5, 2.0, 20.0)],  # variance-exploding
]


def determinant(prediction: Prediction, level: NoiseLevel) -> float:
    """Of the 2 x 2 system of state and output; where it is zero the output says nothing that the state did not."""
    a, b = prediction.target(level)
    return float(level.alpha * b - level.sigma * a)


def admissible(prediction: Prediction) -> list[NoiseLevel]:
    return [level for level in LEVELS if determinant(prediction, level) != 0]


def decode_inverts_encode(prediction: Prediction) -> None:
    x0, eps = draw(5, 3, 2, seed=1), draw(5, 3, 2, seed=2)
    for level in admissible(prediction):
        x = level.mix(x0, eps)
        decoded = prediction.decode(prediction.encode(x0, eps, level), x, level)
        scale = max(1.0, float(level.sigma)) / abs(determinant(prediction, level))  # of rounding
        assert (decoded[0] - x0).abs().max() < 1e-13 * max(10.0, scale)
        assert (decoded[1] - eps).abs().max() < 1e-13 * max(10.0, scale)


def halves_make_the_state(prediction: Prediction) -> None:
    """Whatever the network says, alpha x0 + sigma eps is the state that it was given."""
    x, output = draw(5, 3, seed=3), draw(5, 3, seed=4)
    for level in admissible(prediction):
        x0, eps = prediction.decode(output, x, level)
        assert torch.allclose(level.mix(x0, eps), x, rtol=0, atol=1e-12 / min(1.0, abs(determinant(prediction, level))))


def converts_to_every_other(prediction: Prediction) -> None:
    x, output = draw(5, 3, seed=3), draw(5, 3, seed=4)
    for name in index("predictions"):
        other = find("predictions", name)()
        for level in LEVELS[2:]:
            there = other.encode(*prediction.decode(output, x, level), level)
            back = prediction.encode(*other.decode(there, x, level), level)
            assert torch.allclose(back, output, rtol=0, atol=1e-12), (name, level)


def refuses_what_cannot_be_inverted(prediction: Prediction) -> None:
    x = draw(2, 3)
    for level in EDGES:
        if determinant(prediction, level) == 0:
            with pytest.raises(UnnoiseError):
                prediction.check(level)
            with pytest.raises(UnnoiseError):
                prediction.decode(x, x, level)
        else:
            prediction.check(level)
            assert all(torch.isfinite(part).all() for part in prediction.decode(x, x, level))


def rows_may_differ_in_level(prediction: Prediction) -> None:
    levels = LEVELS[2:]
    x0, eps = draw(len(levels), 3, 2, seed=5), draw(len(levels), 3, 2, seed=6)
    both = NoiseLevel(*(torch.tensor([float(level[i]) for level in levels], dtype=torch.float64) for i in (0, 1)))
    target, scale = prediction.encode(x0, eps, both), torch.as_tensor(prediction.scale_in(both))
    for i, level in enumerate(levels):
        alone = prediction.encode(x0[i : i + 1], eps[i : i + 1], level)
        assert torch.allclose(target[i : i + 1], alone, rtol=1e-13, atol=1e-13)
        assert math.isclose(float(scale.expand(len(levels))[i]), float(prediction.scale_in(level)), rel_tol=1e-12)


def input_scale_is_finite(prediction: Prediction) -> None:
    for level in LEVELS:
        assert 0 < float(prediction.scale_in(level)) < math.inf


LAWS = [
    decode_inverts_encode,
    halves_make_the_state,
    converts_to_every_other,
    refuses_what_cannot_be_inverted,
    rows_may_differ_in_level,
    input_scale_is_finite,
]
