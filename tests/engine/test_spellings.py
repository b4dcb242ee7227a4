"""A number is that number however it is spelt; what is none is refused by the name of what it was given for."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from drawing import draw
from unnoise.core.noise import NoiseSource
from unnoise.engine.engine import Engine
from unnoise.engine.request import Request

PROMPT = "red apple"
THREES = [np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor(3, dtype=torch.uint8)]
TWOS = [2, np.float32(2), np.float64(2), np.int8(2), torch.tensor(2.0), torch.tensor(2), Fraction(2), Decimal(2)]


def spelt(value: Any) -> str:
    return f"{type(value).__name__} {getattr(value, 'dtype', '')}"


@pytest.mark.parametrize("three", THREES, ids=spelt)
def test_whole_numbers_draw_the_picture_of_the_plain_one(engine: Engine, three: Any) -> None:
    plain = engine.generate(PROMPT, seed=3, count=3, steps=3)
    assert [p.tobytes() for p in engine.generate(PROMPT, seed=three, count=three, steps=three)] == [
        p.tobytes() for p in plain
    ]
    assert torch.equal(NoiseSource([three], (5,)).initial(), NoiseSource([3], (5,)).initial())
    assert [step.picture for step in engine.steps(PROMPT, seed=three, steps=2)] == [
        step.picture for step in engine.steps(PROMPT, seed=3, steps=2)
    ]


@pytest.mark.parametrize("two", TWOS, ids=spelt)
def test_real_numbers_are_the_plain_one(two: Any) -> None:
    request = Request("", cfg_scale=two, start="0" * 64, strength=two / 4)
    assert request == Request("", cfg_scale=2.0, start="0" * 64, strength=0.5)
    assert request.guidance == "cfg(2)"
    assert type(request.strength) is float


def test_a_small_whole_number_does_not_wrap(engine: Engine) -> None:
    """250 + 9 is 3 in eight bits: the last picture would be that of seed 3."""
    drawn = engine.generate(PROMPT, seed=np.uint8(250), count=10, steps=1)  # type: ignore[arg-type]
    plain = engine.generate(PROMPT, seed=250, count=10, steps=1)
    assert [p.tobytes() for p in drawn] == [p.tobytes() for p in plain]
    assert drawn[9].tobytes() != engine.generate(PROMPT, seed=3, steps=1)[0].tobytes()


@pytest.mark.parametrize(
    "seeds", [(5, 6), range(5, 7), np.array([5, 6]), torch.tensor([5, 6], dtype=torch.uint8)], ids=spelt
)
def test_seeds_may_be_any_list(engine: Engine, seeds: Any) -> None:
    prompts = np.array([PROMPT, "blue heart"])
    plain = draw(engine, [PROMPT, "blue heart"], [5, 6], steps=1)
    assert torch.equal(draw(engine, prompts, seeds, steps=1), plain)  # type: ignore[arg-type]
