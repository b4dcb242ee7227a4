"""``inspect --verify`` reads a model folder whole, and says in one line what is wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unnoise.cli.main import main
from unnoise.files import sha256


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def flip(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-9] ^= 1
    (folder / name).write_bytes(data)


def make_nan(folder: Path) -> None:
    """With hashes that are right, as of a training that went wrong."""
    name = "text-01-of-01.safetensors"
    tensors = load_file(folder / name)
    tensors["text.norm.bias"][3] = torch.nan
    save_file(tensors, folder / name)
    record = json.loads((folder / "model.json").read_text())
    record["files"][name], record["parts"]["text"]["shards"][name] = sha256(folder / name), None
    (folder / "model.json").write_text(json.dumps(record))


def test_a_sound_model_is_said_to_be_sound(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(copy), "--verify"]) == 0
    printed = capsys.readouterr().out
    assert "an unnoise model: autoencoder, text tower and denoiser" in printed
    assert "verified: 4 files by SHA-256; " in printed
    assert "numbers in 3 parts are finite" in printed
    assert main(["inspect", str(copy)]) == 0
    assert "verified" not in capsys.readouterr().out
    assert main(["inspect", str(copy), "--verify", "--json"]) == 0
    assert "finite" in json.loads(capsys.readouterr().out)["facts"]["verified"]


@pytest.mark.parametrize("name", ["denoiser-01-of-01.safetensors", "tokenizer.json"])
def test_a_flipped_bit_is_found(name: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(copy, name)
    assert main(["inspect", str(copy)]) == 0, "without --verify only headers are read"
    capsys.readouterr()
    for more in ([], ["--json"]):
        assert main(["inspect", str(copy), "--verify", *more]) == 1
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert f"{name} is damaged: its SHA-256 is not the one in model.json; copy or train" in captured.err


def test_weights_that_are_not_finite_are_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_nan(copy)
    assert main(["inspect", str(copy), "--verify"]) == 1
    assert "has weights that are not finite (text.norm.bias); train it again" in capsys.readouterr().err


def test_the_model_of_a_finished_training_is_verified(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the training's folder, as other commands take it."""
    (copy.parent / "run").mkdir()
    copy.rename(copy.parent / "run" / "model")
    assert main(["inspect", str(copy.parent / "run"), "--verify"]) == 0
    flip(copy.parent / "run" / "model", "tokenizer.json")
    assert main(["inspect", str(copy.parent / "run"), "--verify"]) == 1


def test_what_is_no_model_is_not_verified(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (copy / "tokenizer.json", copy.parent.parent / "nowhere"):
        assert main(["inspect", str(path), "--verify"]) == 1
        assert "no model at" in capsys.readouterr().err
    (copy / "model.json").write_text("{}")
    assert main(["inspect", str(copy), "--verify"]) == 1
    assert "model.json is damaged" in capsys.readouterr().err
