"""The model that comes with unnoise is there, whole, small, sound, and draws the same pictures each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from unnoise.engine.engine import Engine
from unnoise.engine.load import default_model, load_engine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import install_model

from drawing import draw

ROOT = Path(__file__).resolve().parent.parent
SHARDS = sorted(default_model().glob("*.safetensors"))


@cache
def engine() -> Engine:
    return load_engine(None, "cpu")


def test_it_is_there() -> None:
    names = {path.name for path in default_model().iterdir()}
    assert {"model.json", "tokenizer.json", "MODEL_CARD.md"} <= names
    card = (default_model() / "MODEL_CARD.md").read_text("utf-8")
    told = (ROOT / "docs" / "model-card.md").read_text("utf-8")
    assert card == install_model.without_links(told), "install the model again, and its card is new"
    assert "](" in told
    assert "](" not in card, "a link that leads nowhere from there"
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
    first, second = ([i.tobytes() for i in engine().generate("red apple", count=4, seed=1)] for _ in range(2))
    assert first == second
    assert len(set(first)) == 4


def test_a_red_apple_is_red_on_white() -> None:
    """The least that a picture must show: a white ground, and ink that is redder than it is green or blue."""
    drawn = (draw(engine(), ["red apple"] * 4, [1, 2, 3, 4]) + 1) / 2
    corners = drawn[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.mean() > 0.9
    red, green, blue = drawn[:, :, 48:80, 48:80].mean(dim=(0, 2, 3)).tolist()
    assert red > 1.2 * max(green, blue)


@pytest.mark.slow
def test_the_wheel_works_outside_the_clone(tmp_path: Path) -> None:
    """Built as pip does it, which fetches the build's own tools; unpacked elsewhere, it draws what the clone draws."""
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT], capture_output=True, check=True)
    wheel = next(tmp_path.glob("*.whl"))
    held = zipfile.ZipFile(wheel).namelist()
    models = {name.removeprefix("unnoise/models/default/") for name in held if "/models/default/" in name}
    assert models == {path.name for path in default_model().iterdir()}
    assert wheel.stat().st_size < 40_000_000
    installed = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", installed, wheel], capture_output=True, check=True)
    script = "import sys, unnoise, unnoise.cli.main; print(unnoise.__file__); sys.exit(unnoise.cli.main.main())"
    generate = ["generate", "red apple", "--seed", "1", "--steps", "3", "--device", "cpu", "--out", "drawn"]
    done = subprocess.run(
        [sys.executable, "-c", script, *generate],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.splitlines()[0]).is_relative_to(installed), "not the clone's"
    with Image.open(tmp_path / "drawn" / "red-apple-1.png") as image:
        drawn = np.asarray(image).astype(int)
    wanted = np.asarray(load_engine(None, "cpu").generate("red apple", seed=1, steps=3)[0]).astype(int)
    assert abs(drawn - wanted).max() <= 2  # another number of threads adds in another order
