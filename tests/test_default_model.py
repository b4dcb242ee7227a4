"""The model that comes with unnoise is there, whole, small, sound, and draws the same pictures each time."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from unnoise.pipelines.load import default_model, load_pipeline
from unnoise.pipelines.text_to_picture import Pipeline

ROOT = Path(__file__).resolve().parent.parent
SHARDS = sorted(default_model().glob("*.safetensors"))


@cache
def pipeline() -> Pipeline:
    return load_pipeline(None, "cpu")


def test_it_is_there() -> None:
    names = {path.name for path in default_model().iterdir()}
    assert {"model.json", "tokenizer.json", "MODEL_CARD.md"} <= names
    assert (default_model() / "MODEL_CARD.md").read_text("utf-8").strip()
    record = json.loads((default_model() / "model.json").read_text("utf-8"))
    assert names == {"model.json", *record["files"]}, "and nothing besides"


def test_it_is_small() -> None:
    assert SHARDS
    assert all(shard.stat().st_size <= 15 * 2**20 for shard in SHARDS)
    assert sum(shard.stat().st_size for shard in SHARDS) <= 36_000_000


def test_its_weights_are_numbers() -> None:
    assert SHARDS
    for shard in SHARDS:
        with safe_open(shard, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                assert torch.isfinite(file.get_tensor(name)).all(), name


def test_it_draws_the_same_each_time() -> None:
    first, second = ([i.tobytes() for i in pipeline().generate("red apple", count=4, seed=1)] for _ in range(2))
    assert first == second
    assert len(set(first)) == 4


def test_a_red_apple_is_red_on_white() -> None:
    """The least that a picture must show: a white ground, and ink that is redder than it is green or blue."""
    drawn = (pipeline().draw(["red apple"] * 4, [1, 2, 3, 4]) + 1) / 2
    corners = drawn[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.mean() > 0.9
    red, green, blue = drawn[:, :, 48:80, 48:80].mean(dim=(0, 2, 3)).tolist()
    assert red > 1.2 * max(green, blue)


@pytest.mark.slow
def test_the_wheel_contains_it(tmp_path: Path) -> None:
    """Built as pip does it, which fetches the build's own tools."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, capture_output=True, check=True)
    wheel = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    held = {name.removeprefix("unnoise/models/default/") for name in wheel.namelist() if "/models/default/" in name}
    assert held == {path.name for path in default_model().iterdir()}
    assert sum(info.file_size for info in wheel.infolist()) < 40_000_000
