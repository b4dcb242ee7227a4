"""Pictures that stream by out of tars train a model, and a training that is resumed goes on to the same bits."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import tiny
from unnoise.core.denoiser import Denoiser
from unnoise.core.objective import Draws
from unnoise.data.square import Squarer
from unnoise.data.stream import TarStream, captioned
from unnoise.errors import UnnoiseError
from unnoise.networks.unet import UNet
from unnoise.objectives.denoising import DenoisingObjective
from unnoise.paths.flow import Flow
from unnoise.predictions.flow import FlowVelocity
from unnoise.training.data import TrainData
from unnoise.training.settings import TrainSettings
from unnoise.training.trainer import Trainer

SIZES = (7, 3, 5)  # pictures of the shards
BUFFER = 6  # more than a shard, fewer than a pass


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three tars of pictures, each of a grey of its own, with captions; one of them is damaged."""
    folder, grey, paths = tmp_path_factory.mktemp("shards"), 0, []
    for number, size in enumerate(SIZES):
        paths.append(folder / f"{number}.tar")
        with tarfile.open(paths[-1], "w") as tar:
            for place in range(size):
                data = io.BytesIO()
                Image.new("RGB", (32, 40), (10 * grey,) * 3).save(data, "PNG")
                whole = data.getvalue() if (number, place) != (2, 1) else data.getvalue()[:-30]
                add(tar, f"{place}.png", whole)
                add(tar, f"{place}.txt", f"red apple {grey}".encode())
                grey += 1
    return paths


def greys(pixels: Tensor, captions: Any, draws: Draws) -> dict[str, Any]:
    """The number of each picture, as its grey tells, and its captions."""
    return {"greys": [int(each) for each in pixels[:, 0, 0, 0] / 10], "captions": captions, "step": draws.step}


def stream(shards: list[Path], **more: Any) -> TarStream:
    return TarStream(shards, greys, Squarer(32), **{"buffer": BUFFER, **more})


def seen(data: TarStream, steps: range, batch: int = 4, micro: int = 4) -> list[int]:
    parts = [slice(start, start + micro) for start in range(0, batch, micro)]
    return [each for k in steps for rows in parts for each in data.batch(Draws(0, k, batch, rows))["greys"]]


def test_each_picture_comes_once_a_pass_and_mixed(shards: list[Path]) -> None:
    data = stream(shards)
    assert isinstance(data, TrainData)
    found = seen(data, range(14 * 20 // 4))
    counts = Counter(found)
    assert len(counts) == 14, "but for the damaged one"
    assert max(counts.values()) - min(counts.values()) <= 2, "what lies in the buffer may be late"
    assert found[:14] != sorted(found[:14])
    assert found != seen(stream(shards, seed=1), range(70))
    assert found == seen(stream(shards), range(70)), "a function of the seed"
    assert found == seen(stream(shards), range(70), micro=1), "and not of how a step is split"
    kept = stream(shards).batch(Draws(0, 0, 4, slice(None)))
    assert kept["captions"] == [(f"red apple {each}",) for each in kept["greys"]]


@pytest.mark.parametrize("buffer", [1, BUFFER, 40])
def test_a_position_is_gone_on_from(buffer: int, shards: list[Path]) -> None:
    """From every step, also within one; without the buffer, or with another, others come."""
    whole, steps = stream(shards, buffer=buffer), range(12)
    states: list[dict[str, Tensor]] = []
    batches = []
    for k in steps:
        states.append({name: each.clone() for name, each in whole.state(k).items()})
        batches.append(seen(whole, range(k, k + 1)))
        assert all(torch.equal(each, states[k][name]) for name, each in whole.state(k).items()), "of a step that failed"
    for k in steps:
        resumed = stream(shards, buffer=buffer)
        resumed.load(k, states[k])
        assert all(torch.equal(each, states[k][name]) for name, each in resumed.state(k).items())
        assert seen(resumed, range(k, 12)) == [each for batch in batches[k:] for each in batch], k
    other = stream(shards, buffer=buffer)
    other.load(7, {**states[7], "position": states[8]["position"]})
    assert seen(other, range(7, 12)) != [each for batch in batches[7:] for each in batch], "control"


def training(shards: list[Path], folder: Path) -> Trainer:
    parts = tiny.components()
    for part in parts.values():
        part.train()
    objective = DenoisingObjective(
        Denoiser(UNet(tiny.UNET), Flow(), FlowVelocity()), text=parts["text"].requires_grad_(True)
    )
    with torch.no_grad():
        tiny.lively(objective.denoiser)
        objective.requires_grad_(True)
    data = TarStream(shards, captioned(parts["autoencoder"].eval(), tiny.tokenizer()), Squarer(128), buffer=BUFFER)
    settings = TrainSettings(samples=24, batch=4, micro_batch=2, warmup=4, averages=(0.1,))
    return Trainer(objective, data, settings, folder)


def bits(of: Trainer) -> dict[str, Tensor]:
    return {f"{file}/{name}": each.clone() for file, named in of.tensors().items() for name, each in named.items()}


def test_a_training_on_a_stream_resumes_to_the_same_bits(shards: list[Path], tmp_path: Path) -> None:
    whole = training(shards, tmp_path)
    for step in whole.run():
        if step.step == 3:
            path = whole.save()
    assert (path / "data.safetensors").is_file()
    resumed = training(shards, tmp_path)
    resumed.load(path)
    list(resumed.run())
    assert all(torch.equal(a, b) for a, b in zip(bits(whole).values(), bits(resumed).values(), strict=True))
    lost = training(shards, tmp_path)
    lost.data.load = lambda step, state: None  # type: ignore[method-assign]
    lost.load(path)
    list(lost.run())
    own = bits(whole)
    assert not all(torch.equal(each, own[name]) for name, each in bits(lost).items()), "control"


def test_a_step_that_fails_is_not_lost(shards: list[Path], tmp_path: Path) -> None:
    """What is saved after a failure is the state before the step, its pictures too."""
    whole, broken = training(shards, tmp_path), training(shards, tmp_path)
    list(whole.run())
    steps = broken.run()
    for _ in range(3):
        next(steps)
    loss = broken.objective.loss

    def fails(batch: Any, draws: Draws) -> Any:
        raise MemoryError("not enough")

    broken.objective.loss = fails  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        next(steps)
    broken.objective.loss = loss  # type: ignore[method-assign]
    assert broken.whole
    resumed = training(shards, tmp_path)
    resumed.load(broken.save())
    list(resumed.run())
    assert all(torch.equal(a, b) for a, b in zip(bits(whole).values(), bits(resumed).values(), strict=True))


def test_what_cannot_be_read(shards: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UnnoiseError, match=r"there is no tar .*nowhere\.tar; name uncompressed"):
        stream([*shards, tmp_path / "nowhere.tar"])
    with pytest.raises(UnnoiseError, match="there is no tar named"):
        stream([])
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        add(tar, "a.png", b"\x89PNG\r\n\x1a\n and no more")
    for name in ("empty", "bad"):
        with pytest.raises(UnnoiseError, match="no picture in the tars can be used"):
            seen(stream([tmp_path / f"{name}.tar"]), range(1))
    first = stream(shards)
    seen(first, range(3))
    with pytest.raises(ValueError, match="step 1 has gone by"):
        seen(first, range(1, 2))
    assert first.identity != stream(shards[:2]).identity
    assert first.identity != stream(shards, buffer=7).identity
