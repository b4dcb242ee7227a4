"""Models of other tools draw, and what their files do not say is found out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image, PngImagePlugin

from small_models import diffusers_folder, single_file
from unnoise.cli.convert import convert
from unnoise.cli.like import Example
from unnoise.engine.foreign import Choices
from unnoise.engine.load import load_engine
from unnoise.engine.metadata import about_model
from unnoise.errors import UnnoiseError
from unnoise.predictions.noise import Noise
from unnoise.predictions.v import V
from unnoise.weights.opening import open_model


@pytest.mark.parametrize(("bias", "prediction", "size"), [(-4.0, V, 768), (0.0, Noise, 512)])
def test_a_trial_tells_what_stable_diffusion_2_predicts(
    bias: float, prediction: type, size: int, tmp_path: Path
) -> None:
    parts = single_file(tmp_path / "m.safetensors", "sd2")
    last = parts["denoiser"].leave.conv  # type: ignore[union-attr]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(0.5 + bias)
    single_file(tmp_path / "m.safetensors", "sd2", parts)
    model = load_engine(tmp_path / "m.safetensors", "cpu").model
    assert isinstance(model.denoiser.prediction, prediction)
    assert model.size == (size, size)
    assert model.denoiser.network.config.size == size // 8
    word = load_engine(tmp_path / "m.safetensors", "cpu", choices=Choices(prediction="v")).model
    assert isinstance(word.denoiser.prediction, V)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_models_for_inpainting_read_the_mask(family: str, tmp_path: Path) -> None:
    single_file(tmp_path / "m.safetensors", family, channels_in=9)
    engine = load_engine(tmp_path / "m.safetensors", "cpu")
    assert engine.model.reads_masks
    seen: list[torch.Tensor] = []
    forward = engine.model.denoiser.network.forward

    def watched(x: torch.Tensor, label: torch.Tensor, cond: object = None, **more: object) -> object:
        seen.append(cond.concat)  # type: ignore[union-attr]
        return forward(x, label, cond, **more)

    engine.model.denoiser.network.forward = watched  # type: ignore[method-assign]
    start = Image.effect_noise((32, 32), 90).convert("RGB")
    mask = Image.new("L", (32, 32))
    mask.paste(255, (8, 0, 24, 16))
    how = {"seed": 1, "steps": 2, "size": (32, 32)}
    picture = engine.generate("a cat", start=start, mask=mask, **how)[0]
    own = torch.zeros(4, 4)
    own[:2, 1:3] = 1
    assert all(torch.equal(row[0], own) for row in seen[0])
    box = (0, 20, 32, 32)  # what the mask leaves alone stays to the last bit
    assert picture.crop(box).tobytes() == start.crop(box).tobytes()
    seen.clear()
    engine.generate("a cat", **how)
    assert all(bool((row[0] == 1).all()) for row in seen[0])  # without a mask all is drawn anew


def test_the_record_tells_parts_apart(tmp_path: Path) -> None:
    parts = single_file(tmp_path / "a.safetensors", "sd1")
    with torch.no_grad():
        parts["autoencoder"].moments.bias.add_(1)  # type: ignore[union-attr]
    single_file(tmp_path / "b.safetensors", "sd1", parts)
    choices = Choices({"autoencoder": tmp_path / "b.safetensors"})
    engines = [load_engine(tmp_path / "a.safetensors", "cpu", choices=each) for each in (Choices(), choices)]
    first, second = (about_model(engine.model)["sha256"] for engine in engines)
    assert first != second
    again = load_engine(tmp_path / "a.safetensors", "cpu").model
    assert about_model(again)["sha256"] == first


def test_what_is_said_of_our_own_models_is_refused(tiny_model: Path) -> None:
    for choices in (Choices(family="sd1"), Choices(prediction="v"), Choices({"autoencoder": tiny_model})):
        with pytest.raises(UnnoiseError, match="is a model of unnoise"):
            load_engine(tiny_model, "cpu", choices=choices)
    assert load_engine(tiny_model, "cpu", choices=dataclasses.replace(Choices(), download=True))


def test_lcm_draws_in_four_steps_with_the_scale_inside(tmp_path: Path) -> None:
    single_file(tmp_path / "m.safetensors", "sd1", guidance_width=32)
    engine = load_engine(tmp_path / "m.safetensors", "cpu")
    request = engine.request("a cat")
    assert (request.steps, request.solver, request.spacing, request.scale) == (4, "lcm", "lcm(50)", 8.5)
    assert engine.request("a cat", cfg_scale=4.0).scale == 4.0
    assert "distilled" in json.dumps(engine.model.record["name"])
    assert engine.generate("a cat", size=(32, 32), seed=1)[0].size == (32, 32)


def test_the_size_of_another_tool_s_picture_is_taken(tmp_path: Path, tiny_model: Path) -> None:
    text = "a red cat\nSteps: 2, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 40x24"
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (40, 24)).save(tmp_path / "theirs.png", pnginfo=info)
    single_file(tmp_path / "m.safetensors", "sd1")
    for model, size in ((tmp_path / "m.safetensors", (40, 24)), (tiny_model, None)):
        example = Example.read(tmp_path / "theirs.png")
        example.take({}, (), False)
        instead = example.fit(load_engine(model, "cpu"), "", True)
        assert instead.get("size") == size
        assert ("size" in example.left_out) == (size is None)
    example = Example.read(tmp_path / "theirs.png")
    example.take({"size": "64x64"}, (), False)
    assert "size" not in example.fit(load_engine(tmp_path / "m.safetensors", "cpu"), "", True)


def test_a_trial_decides_a_folder_too(tmp_path: Path) -> None:
    single_file(tmp_path / "m.safetensors", "sd2")
    convert(tmp_path / "m.safetensors", tmp_path / "d", to="diffusers")
    assert not open_model(tmp_path / "d").undecided


def test_a_path_that_ends_in_noise_wants_v(tmp_path: Path) -> None:
    single_file(tmp_path / "m.safetensors", "sdxl", extra={"ztsnr": torch.empty(0)})
    assert "zero-snr" not in open_model(tmp_path / "m.safetensors").record["parts"]["denoiser"]["path"]
    diffusers_folder(tmp_path / "d", "sdxl")
    (tmp_path / "d/scheduler").mkdir()
    usual = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True}
    (tmp_path / "d/scheduler/scheduler_config.json").write_text(json.dumps(usual))
    with pytest.raises(UnnoiseError, match="ends in pure noise"):
        open_model(tmp_path / "d")
    assert open_model(tmp_path / "d", prediction="v").record["parts"]["denoiser"]["prediction"] == "v"
