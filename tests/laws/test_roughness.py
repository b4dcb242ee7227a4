"""Solvers by spacings by steps: what the default model draws is as smooth as a long run of a plain solver draws it.

Errors of a network, extrapolated over a long step, burn: they are grain all over a picture, which no law of order sees,
since it is small steps that have an order. The figures stand in docs/solvers.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import roughness
from roughness import LIMIT, LONG, Case

EVERY = 23  # of the cross; no divisor of its sides, so that every solver and every spacing comes up


def test_texture_is_of_grain_and_not_of_shape() -> None:
    """A square has little, wherever it lies and however it is turned; grain that is hardly seen has more."""
    flat = torch.ones(1, 3, 128, 128)
    square = flat.clone()
    square[..., 20:60, 30:90] = -1.0
    grain = square + 0.1 * torch.randn(square.shape, generator=torch.Generator().manual_seed(0))
    assert roughness.texture(flat) == 0
    plain = roughness.texture(square)
    assert torch.allclose(roughness.texture(square.flip(-1).mT.roll(9, -1)), plain, rtol=1e-5)
    assert roughness.texture(grain) > 3 * plain


def test_the_thinned_cross_meets_everything() -> None:
    whole, thin = roughness.cross(), roughness.cross(every=EVERY)
    assert len(thin) < len(whole) / 20
    for side in (0, 1, 2):
        assert {case[side] for case in thin} == {case[side] for case in whole}


@pytest.mark.slow
@pytest.mark.parametrize("case", roughness.cross(every=EVERY), ids=lambda case: "-".join(map(str, case)))
def test_pictures_are_smooth(case: Case) -> None:
    assert roughness.roughness(case) < roughness.limit(case)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        Case("sa-solver", "linspace", 20),
        Case("sa-solver", "kl-optimal", 5),
        Case("dpmpp-3m-sde", "kl-optimal", 20),
        Case("dpmpp-2m-sde", "beta-sigma", 20),
        Case("res-multistep", "beta-sigma", 20),
        Case("heun", "beta-sigma", 20),
        Case("dpm-2-a", "leading", 2),
        Case("dpmpp-2m", "leading", 3),
        Case("plms", "karras", 3),
    ],
    ids=lambda case: "-".join(map(str, case)),
)
def test_what_burnt_by_the_first_rules_is_smooth_by_todays(case: Case) -> None:
    """The control: without the rule for long steps the measure is far above its limit."""
    assert roughness.limit(case) == (LIMIT, "")
    assert roughness.roughness(case, rules=1) > LIMIT + 0.2
    assert roughness.roughness(case) < LIMIT - 0.2


@pytest.mark.soak
def test_all_pictures_are_smooth() -> None:
    """The whole cross; some two hours of one core."""
    found = {case: roughness.roughness(case) for case in roughness.cross(LONG)}
    assert not {case: rough for case, rough in found.items() if rough >= roughness.limit(case)[0]}
