"""Published models: `inspect`, the list of models and loading say the same of a model, from its headers alone."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import true_models
from small_models import diffusers_folder, single_file
from unnoise.cli.main import main
from unnoise.errors import UnnoiseError
from unnoise.inspection.look import look
from unnoise.inspection.published import TRIAL, Published
from unnoise.weights.entry import Entry, entry_of
from unnoise.weights.opening import open_model
from unnoise.weights.roles import CHECKPOINT, DENOISER
from unnoise.weights.walk import Walk

EVERY = ("sd1", "sd2", "sdxl", "sdxl-refiner")
SRC = Path(__file__).resolve().parent.parent.parent / "src"


def model_of(path: Path) -> Published:
    answer = look(path)
    assert answer.model is not None, answer.note
    return answer.model


def entries(root: Path) -> dict[str, Entry]:
    found: list[Entry] = []
    for item in Walk(root):
        entry = entry_of(item, None, found)
        assert entry is not None
        found.append(entry)
    return {os.path.basename(entry.path): entry for entry in found}


@pytest.mark.parametrize("family", EVERY)
def test_inspect_the_list_and_loading_agree(family: str, tmp_path: Path) -> None:
    parts = single_file(tmp_path / "whole.safetensors", family)
    diffusers_folder(tmp_path / "folder", family, parts)
    listed = entries(tmp_path)
    for name in ("whole.safetensors", "folder"):
        opened, model = open_model(tmp_path / name), model_of(tmp_path / name)
        assert opened.family.name == model.family == listed[name].family == family
        assert (opened.matched, opened.total, opened.unknown) == (model.matched, model.total, model.unmatched)
        assert set(model.parts) == set(opened.parts)
        assert not model.missing + model.needs + model.faults
        assert listed[name].kind == CHECKPOINT
        assert model.prediction == (None if opened.undecided else opened.record["parts"]["denoiser"]["prediction"])
    assert set(listed["whole.safetensors"].parts) == set(model_of(tmp_path / "whole.safetensors").parts)


@pytest.mark.slow
@pytest.mark.parametrize("family", EVERY)
def test_true_sizes_in_every_layout(family: str, tmp_path: Path) -> None:
    """Denoisers alone are known by their widths, which small models do not have."""
    true_models.write_sparse(tmp_path / "whole.safetensors", true_models.single_file(family))
    true_models.write_sparse(tmp_path / "unet.safetensors", true_models.single_file(family, ["denoiser"]))
    bare = true_models.shapes(family, "denoiser", "diffusers")
    true_models.write_sparse(tmp_path / "bare.safetensors", bare, "BF16")
    two = true_models.single_file(family, ["denoiser", "autoencoder"])
    true_models.write_sparse(tmp_path / "two.safetensors", two, "F32")
    true_models.folder(tmp_path / "folder", family)
    listed = entries(tmp_path)
    layouts = {
        "whole.safetensors": "original single file",
        "unet.safetensors": "denoiser alone, original names",
        "bare.safetensors": "denoiser alone, diffusers' names",
        "folder": "diffusers folder",
    }
    for name, layout in layouts.items():
        model = model_of(tmp_path / name)
        alone = layout.startswith("denoiser")
        assert (model.family, model.layout, model.quantisation) == (family, layout, "none")
        assert (listed[name].family, listed[name].kind) == (family, DENOISER if alone else CHECKPOINT)
        assert model.matched == model.total
        assert bool(model.missing) == alone
        if alone:
            assert set(model.needs) == {f"--part {part}=FILE" for part in model.missing}
            with pytest.raises(UnnoiseError, match=r"has no autoencoder"):
                open_model(tmp_path / name)
        else:
            assert open_model(tmp_path / name).family.name == family
    model = model_of(tmp_path / "two.safetensors")
    assert model.layout.startswith("single file, original names, without text.clip")
    assert listed["two.safetensors"].kind == CHECKPOINT
    assert set(listed["two.safetensors"].parts) == set(model.parts) == {"denoiser", "autoencoder"}
    header = look(tmp_path / "folder").header
    assert header is not None
    assert header.parameters == sum(map(math.prod, true_models.single_file(family).values()))


@pytest.mark.slow
def test_variants_and_their_evidence(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    one = true_models.single_file("sd1", ["denoiser"], channels_in=9)
    true_models.write_sparse(path, one)
    assert model_of(path).variants == ("inpainting",)
    true_models.write_sparse(path, true_models.single_file("sd1", ["denoiser"], guidance_width=256))
    assert model_of(path).variants == ("LCM",)
    marked = {**true_models.single_file("sdxl", ["denoiser"]), "v_pred": (0,), "ztsnr": (0,)}
    true_models.write_sparse(path, marked)
    model = model_of(path)
    assert (model.variants, model.evidence) == (("v", "zero-terminal-SNR"), "a mark in the file")
    second = true_models.single_file("sd2", ["denoiser"])
    true_models.write_sparse(path, second)
    assert (model_of(path).prediction, model_of(path).evidence) == (None, TRIAL)
    true_models.write_sparse(path, second, metadata={"modelspec.prediction_type": "v"})
    assert (model_of(path).prediction, model_of(path).evidence) == ("v", "the file's header")
    true_models.write_sparse(path, {**true_models.single_file("sdxl"), "edm_mean": (4,)})
    assert "EDM's calibration" in model_of(path).faults[0]
    assert look(path).note.startswith("it cannot be drawn with")


@pytest.mark.slow
def test_quantised_files_are_named_and_not_called_ready(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    true_models.write_sparse(path, true_models.single_file("sdxl"), "F8_E4M3")
    model = model_of(path)
    assert model.quantisation == "F8_E4M3 without scales"
    assert "a type that cannot be drawn with yet" in model.faults[0]
    scaled = {**true_models.single_file("sd1"), "scaled_fp8": (2,)}
    true_models.write_sparse(path, scaled, "F8_E4M3")
    assert model_of(path).quantisation == "fp8 with scales"


def test_names_that_match_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.safetensors"
    single_file(path, "sd1", extra={"some.other\x1b[2J": torch.zeros(3), "betas": torch.zeros(9)})
    model = model_of(path)
    assert (model.total - model.matched, model.unmatched) == (2, ("some.other\x1b[2J",))
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "matches nothing: some.other\\x1b[2J" in shown
    assert "\x1b" not in shown


def test_a_damaged_part_is_named_beside_the_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    single_file(path, "sd1")
    tensors = load_file(path)
    del tensors["first_stage_model.decoder.conv_out.bias"]
    save_file(tensors, path)
    model = model_of(path)
    assert model.parts == ("denoiser", "text.clip-l")
    assert "the autoencoder in" in model.faults[0]
    assert not model.missing


def test_a_folder_with_variants_and_shards(tmp_path: Path) -> None:
    diffusers_folder(tmp_path / "m", "sd1")
    unet = tmp_path / "m/unet"
    tensors = load_file(unet / "diffusion_pytorch_model.safetensors")
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    names = sorted(tensors)
    files = {f"diffusion_pytorch_model-0000{n}-of-00002.safetensors": names[n - 1 :: 2] for n in (1, 2)}
    for file, own in files.items():
        save_file({name: tensors[name] for name in own}, unet / file)
    index = {"weight_map": {name: file for file, own in files.items() for name in own}}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    vae = tmp_path / "m/vae/diffusion_pytorch_model.safetensors"
    vae.rename(vae.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert model_of(tmp_path / "m").layout == "diffusers folder, variant fp16, 2 shards of the denoiser"


def test_missing_parts_are_taken_from_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNNOISE_HOME", str(tmp_path / "home"))
    true_models.write_sparse(tmp_path / "unet.safetensors", true_models.single_file("sd1", ["denoiser"]))
    (tmp_path / "vae").mkdir()
    vae = tmp_path / "vae/vae-ft-mse-840000.safetensors"
    true_models.write_sparse(vae, true_models.shapes("sd1", "autoencoder", "original"))
    assert main(["models", "add", str(tmp_path / "vae")]) == 0
    model = model_of(tmp_path / "unet.safetensors")
    assert model.listed == {"autoencoder": str(vae)}
    assert model.needs == ("--part text.clip-l=FILE",)
    (tmp_path / "home/models.json").write_text("{")
    assert not model_of(tmp_path / "unet.safetensors").listed


LOOK = (
    "import json, sys\nfrom pathlib import Path\nfrom unnoise.cli.main import main\nimport unnoise.inspection.look\n"
    "from unnoise.weights.families.family import families\n"
    "[piece.names for family in families().values() for piece in family.pieces.values()]\n"
    "before = Path('/proc/self/io').read_text()\ncode = main(['inspect', sys.argv[1]])\n"
    "after = Path('/proc/self/io').read_text()\n"
    "count = lambda text: int(text.split('rchar: ')[1].split()[0])\n"
    "print(json.dumps([count(after) - count(before), sorted({m.split('.')[0] for m in sys.modules})]))"
)


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="Linux counts what a process reads")
def test_of_24_gigabytes_two_megabytes_are_read_and_torch_is_not_imported(tmp_path: Path) -> None:
    tensors = true_models.single_file("sdxl")
    averages = {
        f"model_ema.{name[6:].replace('.', '')}": shape for name, shape in tensors.items() if "diffusion" in name
    }
    assert true_models.write_sparse(tmp_path / "m.safetensors", {**tensors, **averages}, "F32") > 24e9
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-c", LOOK, str(tmp_path / "m.safetensors")]
    run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=True)
    count, modules = json.loads(run.stdout.splitlines()[-1])
    assert "sdxl: Stable Diffusion XL" in run.stdout
    assert count < 4e6, "its header has 0.6 million bytes, and is read twice"
    assert not {"torch", "numpy", "safetensors", "tokenizers"} & set(modules)


def test_verify_reads_all_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.safetensors"
    single_file(path, "sd1")
    assert main(["inspect", "--verify", str(path)]) == 0
    assert "numbers in 3 parts are finite" in capsys.readouterr().out
    tensors = load_file(path)
    tensors["first_stage_model.decoder.conv_out.bias"][1] = float("nan")
    save_file(tensors, path)
    assert main(["inspect", str(path)]) == 0
    assert main(["inspect", "--verify", str(path)]) == 1
    assert "not finite (autoencoder.decoder.leave.bias)" in capsys.readouterr().err
    tensors["first_stage_model.decoder.conv_out.bias"] = torch.zeros(7)
    save_file(tensors, path)
    assert main(["inspect", "--verify", str(path)]) == 1
    assert "has the shape [7]" in capsys.readouterr().err


def test_json_has_the_documented_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    single_file(tmp_path / "m.safetensors", "sdxl")
    capsys.readouterr()
    assert main(["inspect", "--json", str(tmp_path / "m.safetensors")]) == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    page = (SRC.parent / "docs/inspecting.md").read_text("utf-8")
    for name in (*record, *(f"model.{name}" for name in record["model"])):
        assert re.search(rf"^\| [^|]*`{re.escape(name)}`[^|]* \|", page, re.M), name
