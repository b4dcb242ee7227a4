"""The seed contract: picture i of a batch is the picture drawn alone with its seed, for every solver there is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from drawing import latents_of
from unnoise.core import noise
from unnoise.core.registry import index
from unnoise.engine.engine import Engine
from unnoise.engine.load import load_engine

SIZES = (1, 2, 3, 7, 16)
SOLVERS = list(index("solvers"))
BOUNDS = {"float32": 1e-4, "bfloat16": 0.05}  # largest difference of latents, of their largest number
SAMPLED = ("euler", "dpmpp-2m", "ddpm", "dpmpp-2m-sde", "repaint")


@pytest.fixture(scope="module")
def half(tiny_model: Path) -> Engine:
    return load_engine(tiny_model, "cpu", "bfloat16")


def latents(engine: Engine, seeds: Sequence[int], solver: str) -> Tensor:
    return latents_of(engine, ["red apple"] * len(seeds), seeds, solver=solver, steps=3)


def apart(engine: Engine, solver: str, sizes: Sequence[int] = SIZES) -> float:
    """The largest difference of any picture, at any place of any batch, from itself alone."""
    seeds = range(100, 100 + max(sizes))
    alone = torch.cat([latents(engine, [seed], solver) for seed in seeds])
    assert len({bytes(x.numpy()) for x in alone}) == len(alone), "each seed has a picture of its own"
    gaps = [latents(engine, seeds[-size:], solver) - alone[-size:] for size in sizes]
    return max(float(gap.abs().max()) for gap in gaps) / float(alone.abs().max())


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_picture_does_not_depend_on_its_batch(engine: Engine, solver: str) -> None:
    assert apart(engine, solver, SIZES if solver in SAMPLED else SIZES[:-1]) <= BOUNDS["float32"]


@pytest.mark.slow
@pytest.mark.parametrize("solver", [solver for solver in SOLVERS if solver not in SAMPLED])
def test_nor_on_a_full_one(engine: Engine, solver: str) -> None:
    assert apart(engine, solver) <= BOUNDS["float32"]


@pytest.mark.parametrize(
    "solver",
    [pytest.param(solver, marks=() if solver in SAMPLED[:3] else pytest.mark.slow) for solver in SOLVERS],
)
def test_nor_in_half_precision(half: Engine, solver: str) -> None:
    assert apart(half, solver) <= BOUNDS["bfloat16"]


@pytest.mark.parametrize("solver", SOLVERS)
def test_strict_pictures_are_equal_bit_for_bit(engine: Engine, solver: str) -> None:
    together = engine.generate("red apple", count=3, seed=5, solver=solver, steps=2, strict=True)
    alone = engine.generate("red apple", seed=7, solver=solver, steps=2)
    assert alone[0].tobytes() == together[2].tobytes()


@pytest.mark.parametrize("count", SIZES)
def test_strict_pictures_in_half_precision(half: Engine, count: int) -> None:
    drawn = half.generate("red apple", count=count, seed=5, solver="dpmpp-2m-sde", steps=2, strict=True)
    assert [image.tobytes() for image in drawn] == [alone_in(half, 5 + place) for place in range(count)]


@cache
def alone_in(engine: Engine, seed: int) -> bytes:
    return engine.generate("red apple", seed=seed, solver="dpmpp-2m-sde", steps=2)[0].tobytes()


@pytest.mark.parametrize("solver", ["euler", "ddpm"])
def test_noise_that_knows_its_place_is_found_out(engine: Engine, solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a source that draws by the place among all, as one generator for all rows does."""
    generator = torch.Generator().manual_seed(0)

    def rows(self: noise.NoiseSource, *key: object) -> Tensor:
        return torch.randn(len(self.seeds), *self.shape, generator=generator, dtype=self.dtype)

    monkeypatch.setattr(noise.NoiseSource, "_rows", rows)
    assert apart(engine, solver, (2, 3)) > 0.1
