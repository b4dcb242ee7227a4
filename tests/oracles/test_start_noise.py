"""The start noise of other tools, by their seeds: what ``--noise torch`` matches, and what it does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource, TorchNoise, TorchStart

SHAPE = (4, 16, 16)


def of_diffusers(seeds: list[int]) -> Tensor:
    """The latents that a pipeline of diffusers prepares, given a list of generators, in float32."""
    from diffusers.utils.torch_utils import randn_tensor

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    noise: Tensor = randn_tensor((len(seeds), *SHAPE), generator=generators, device=torch.device("cpu"))
    return noise


def of_comfyui(seed: int, batch: int) -> Tensor:
    """ComfyUI's ``comfy.sample.prepare_noise``: one stream of numbers for the batch."""
    size = torch.Size((batch, *SHAPE))
    return torch.randn(size, dtype=torch.float32, layout=torch.strided, generator=torch.manual_seed(seed), device="cpu")


@pytest.mark.parametrize("seed", [0, 5, 2**63 - 1])
def test_one_picture_starts_from_the_same_bits(seed: int) -> None:
    ours = TorchNoise([seed], SHAPE).initial()
    assert torch.equal(ours, of_diffusers([seed]))
    assert torch.equal(ours, of_comfyui(seed, 1))
    assert not torch.equal(NoiseSource([seed], SHAPE).initial(), ours), "control: our own noise is other noise"


def test_of_a_batch_in_one_stream_the_first_matches_alone() -> None:
    ours, stream = TorchNoise([5, 6], SHAPE).initial(), of_comfyui(5, 2)
    assert torch.equal(ours, of_diffusers([5, 6])), "a generator for each picture"
    assert torch.equal(ours[0], stream[0])
    assert not torch.equal(ours[1], stream[1])


def test_half_precision_rounds_the_same_numbers() -> None:
    ours = TorchNoise([5], SHAPE).initial()
    half = torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(5), dtype=torch.float16)
    assert not torch.equal(ours, half.float())
    assert torch.allclose(ours, half.float(), atol=0.01)


def test_noise_on_the_way_goes_on_with_the_same_generator() -> None:
    """As schedulers of diffusers draw that draw once a step; the second of a step is of our own."""
    here, there = NoiseLevel(0.5, 0.8), NoiseLevel(0.8, 0.5)
    theirs = torch.Generator().manual_seed(5)
    source = TorchNoise([5, 6], SHAPE)
    drawn = [torch.randn(SHAPE, generator=theirs) for _ in range(4)]
    assert torch.equal(source.initial()[0], drawn[0])
    for index in (2, 0, 1, 1):
        step = source.at(index)
        assert torch.equal(step.between(here, there)[0], drawn[1 + index])
        other, own = step.between(here, there), NoiseSource([5, 6], SHAPE, index=index)
        own.between(here, there)
        assert torch.equal(other, own.between(here, there))
    between = source.at(1.5).between(here, there)
    assert torch.equal(between, NoiseSource([5, 6], SHAPE, index=1.5).between(here, there))
    before = TorchStart([5], SHAPE).at(1)
    assert torch.equal(before.between(here, there), NoiseSource([5], SHAPE, index=1).between(here, there))
