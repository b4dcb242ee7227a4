"""Models are written in the layouts of others, and as folders of ours, with every bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from small_models import diffusers_folder, single_file
from unnoise.cli.convert import convert
from unnoise.engine.foreign import save_as_ours
from unnoise.engine.load import load_engine
from unnoise.errors import UnnoiseError
from unnoise.weights.layouts import contents, own_contents, write_diffusers, write_original
from unnoise.weights.opening import open_model

EVERY = ("sd1", "sd2", "sdxl", "sdxl-refiner")


@pytest.mark.parametrize("family", ["sd1", "sd2", *(pytest.param(name, marks=pytest.mark.slow) for name in EVERY[2:])])
def test_round_trips_keep_every_bit(family: str, tmp_path: Path) -> None:
    single_file(tmp_path / "a.safetensors", family, dtype=torch.float16)
    first = open_model(tmp_path / "a.safetensors", prediction="noise")
    write_diffusers(contents(first), tmp_path / "b")
    save_as_ours(open_model(tmp_path / "b", family=family), tmp_path / "c")
    write_original(own_contents(tmp_path / "c"), tmp_path / "d.safetensors")
    before, after = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "d.safetensors")
    lost = before.keys() - after.keys()
    assert after.keys() <= before.keys()
    # the last block of Stable Diffusion 2's tower is not in diffusers' layout
    assert not lost or (family == "sd2" and all(".resblocks.3." in name or "ln_final" in name for name in lost))
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert {tensor.dtype for tensor in after.values()} == {torch.float16}


@pytest.mark.parametrize("family", ["sd1", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_a_folder_of_ours_draws_the_same_picture(family: str, tmp_path: Path) -> None:
    single_file(tmp_path / "a.safetensors", family)
    save_as_ours(open_model(tmp_path / "a.safetensors"), tmp_path / "b")
    how = {"seed": 3, "steps": 2, "size": (32, 24)}
    first, second = (load_engine(path, "cpu").generate("red apple", **how)[0] for path in tmp_path.iterdir())
    assert first.tobytes() == second.tobytes()


def test_the_calibration_survives(tmp_path: Path) -> None:
    marks = {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}
    single_file(tmp_path / "a.safetensors", "sdxl", extra=marks)
    first = open_model(tmp_path / "a.safetensors")
    write_diffusers(contents(first), tmp_path / "b")
    write_original(contents(first), tmp_path / "c.safetensors")
    assert marks.keys() <= load_file(tmp_path / "c.safetensors").keys()
    for path in (tmp_path / "b", tmp_path / "c.safetensors"):
        entry, own = (each.record["parts"]["denoiser"] for each in (open_model(path), first))
        assert entry["prediction"] == own["prediction"] == "v"
        assert entry["path"].startswith("zero-snr(scaled-linear")


def test_a_model_that_does_not_say_what_it_predicts_makes_no_folder(tmp_path: Path) -> None:
    single_file(tmp_path / "a.safetensors", "sd2")
    with pytest.raises(UnnoiseError, match="does not say what it predicts"):
        write_diffusers(contents(open_model(tmp_path / "a.safetensors")), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_number_that_does_not_fit_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    parts = single_file(tmp_path / "a.safetensors", "sd1")
    with torch.no_grad():
        parts["denoiser"].leave.conv.bias[0] = 1e6  # type: ignore[union-attr]
    single_file(tmp_path / "a.safetensors", "sd1", parts)
    with pytest.raises(UnnoiseError, match="cannot hold"):
        write_original(contents(open_model(tmp_path / "a.safetensors")), tmp_path / "b.safetensors", torch.float16)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diffusers_folder(tmp_path / "a", "sd1")
    convert(tmp_path / "a", tmp_path / "b.safetensors", to="original", dtype="float16", as_json=True)
    assert json.loads(capsys.readouterr().out)["layout"] == "original"
    assert {tensor.dtype for tensor in load_file(tmp_path / "b.safetensors").values()} == {torch.float16}
    convert(tmp_path / "b.safetensors", tmp_path / "c", to="unnoise")
    convert(tmp_path / "c", tmp_path / "d", to="diffusers")
    assert open_model(tmp_path / "d").family.name == "sd1"
    for wrong, message in (
        ({"file": tmp_path / "c", "to": "unnoise", "out": tmp_path / "e"}, "already"),
        ({"file": tmp_path / "a", "to": "original", "out": tmp_path / "e"}, "would be a safetensors file"),
        ({"file": tmp_path / "a", "to": "original", "out": tmp_path / "b.safetensors"}, "already exists"),
        ({"file": Path("default"), "to": "original", "out": tmp_path / "e.safetensors"}, "no published family"),
    ):
        with pytest.raises(UnnoiseError, match=message):
            convert(**wrong)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.safetensors", "c", "d"]
