"""Models of other tools are recognised, and open whole or not at all."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from small_models import diffusers_folder, modules, single_file
from unnoise.errors import UnnoiseError
from unnoise.weights import keys
from unnoise.weights.families.family import families
from unnoise.weights.opening import is_foreign, open_model

EVERY = ("sd1", "sd2", "sdxl", "sdxl-refiner")


def assert_same(parts: dict, loaded: dict) -> None:
    for name, module in parts.items():
        own = loaded[name].network if name == "denoiser" else loaded[name]
        state = own.state_dict()
        for key, tensor in module.state_dict().items():
            if key in state:
                assert torch.equal(state[key], tensor), f"{name}.{key}"
        assert len(state) >= len(module.state_dict()) - 16 or name == "text.clip-h"


@pytest.mark.parametrize("family", EVERY)
def test_a_single_file_opens(family: str, tmp_path: Path) -> None:
    parts = single_file(tmp_path / "m.safetensors", family)
    opened = open_model(tmp_path / "m.safetensors")
    assert opened.family.name == family
    assert opened.matched == opened.total
    assert opened.undecided == (family == "sd2")
    assert_same(parts, opened.load())


@pytest.mark.parametrize("family", EVERY)
def test_a_folder_of_diffusers_opens(family: str, tmp_path: Path) -> None:
    parts = diffusers_folder(tmp_path / "m", family)
    opened = open_model(tmp_path / "m")
    assert opened.family.name == family
    assert_same(parts, opened.load())


def test_a_denoiser_s_own_folder_opens_with_parts_from_elsewhere(tmp_path: Path) -> None:
    diffusers_folder(tmp_path / "m", "sdxl")
    unet, whole = tmp_path / "m/unet", tmp_path / "m"
    parts = {"autoencoder": whole, "text.clip-l": whole, "text.clip-g": whole}
    assert is_foreign(unet)
    assert not is_foreign(tmp_path)
    assert open_model(unet, parts, family="sdxl").family.name == "sdxl"


def test_of_a_model_that_gives_a_part_nothing_else_counts(tmp_path: Path) -> None:
    single_file(tmp_path / "m.safetensors", "sd1")
    single_file(tmp_path / "other.safetensors", "sd1", extra={"some.other.weight": torch.zeros(3)})
    opened = open_model(tmp_path / "m.safetensors", {"autoencoder": tmp_path / "other.safetensors"})
    assert opened.matched == opened.total
    assert opened.unknown == ()
    assert opened.report()[1] == f"autoencoder from {tmp_path / 'other.safetensors'}"


def test_the_picture_s_half_of_clip_is_passed_over_wherever_it_lies(tmp_path: Path) -> None:
    extra = {"cond_stage_model.transformer.vision_model.a": torch.zeros(3)}
    single_file(tmp_path / "m.safetensors", "sd1", extra=extra)
    assert open_model(tmp_path / "m.safetensors").unknown == ()


def test_a_control_network_and_a_damaged_part_are_named(tmp_path: Path) -> None:
    diffusers_folder(tmp_path / "m", "sd1")
    unet = load_file(tmp_path / "m/unet/diffusion_pytorch_model.safetensors")
    control = {
        key: value for key, value in unet.items() if not key.startswith(("up_blocks", "conv_norm_out", "conv_out"))
    }
    control |= {"controlnet_cond_embedding.conv_in.weight": torch.zeros(16, 3, 3, 3)}
    control |= {"controlnet_down_blocks.0.weight": torch.zeros(32, 32, 1, 1)}
    save_file(control, tmp_path / "control.safetensors")
    with pytest.raises(UnnoiseError, match="is a control network"):
        open_model(tmp_path / "control.safetensors")
    extra = {"first_stage_model.decoder.mid.block_1.norm1.weight": torch.zeros(32)}
    single_file(tmp_path / "half.safetensors", "sd1", only=("denoiser", "text.clip-l"), extra=extra)
    with pytest.raises(UnnoiseError, match=r"half\.safetensors: the weights are not those of"):
        open_model(tmp_path / "half.safetensors")


def test_a_family_that_is_forced_must_have_such_a_u_net(tmp_path: Path) -> None:
    single_file(tmp_path / "m.safetensors", "sd1", only=("denoiser",), text_width=768)
    with pytest.raises(UnnoiseError, match="has the U-Net of Stable Diffusion 1, not of Stable Diffusion 2"):
        open_model(tmp_path / "m.safetensors", family="sd2")


def test_what_was_matched_is_reported_and_strangers_are_named(tmp_path: Path) -> None:
    extra = {"some.other.weight": torch.zeros(3), "model_ema.decay": torch.zeros(1), "betas": torch.zeros(9)}
    single_file(tmp_path / "m.safetensors", "sd1", extra=extra)
    opened = open_model(tmp_path / "m.safetensors")
    assert opened.total == opened.matched + 3
    assert opened.unknown == ("some.other.weight",)
    assert "some.other.weight" in opened.report()[0]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("model.diffusion_model.out.2.bias"), "the denoiser in .* lacks out.2.bias"),
        (lambda t: t.update({"model.diffusion_model.out.7.bias": torch.zeros(1)}), "has the unknown out.7.bias"),
        (lambda t: t.update({"model.diffusion_model.out.2.bias": torch.zeros(5)}), "out.2.bias has the shape"),
        (lambda t: t.update({"model.diffusion_model.out.2.bias": torch.zeros(4, dtype=torch.int8)}), "is I8, a type"),
        (
            lambda t: t.update({"model.diffusion_model.out.2.bias": torch.zeros(4).to(torch.float8_e4m3fn)}),
            "is F8_E4M3, a type",
        ),
        (lambda t: t.update({"edm_mean": torch.zeros(4)}), "EDM's calibration"),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("first_stage")], "has no autoencoder"),
        (
            lambda t: [t.pop(k) for k in list(t) if k.startswith("model.")],
            "no model known here|cannot be drawn with",
        ),
    ],
)
def test_what_does_not_fit_is_refused_whole(edit: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    single_file(path, "sd1")
    tensors = load_file(path)
    edit(tensors)  # type: ignore[operator]
    save_file(tensors, path)
    with pytest.raises(UnnoiseError, match=message):
        open_model(path)


@pytest.mark.parametrize("channels", [5, 8])
def test_other_uses_of_the_network_are_named(channels: int, tmp_path: Path) -> None:
    single_file(tmp_path / "m.safetensors", "sd1", channels_in=channels)
    with pytest.raises(UnnoiseError, match=r"depth|editing by instruction"):
        open_model(tmp_path / "m.safetensors")


def test_the_order_of_evidence_for_the_prediction(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    single_file(path, "sd2")
    assert open_model(path).undecided
    path.with_suffix(".yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert open_model(path).record["parts"]["denoiser"]["prediction"] == "v"
    assert open_model(path).record["defaults"]["size"] == [768, 768]
    single_file(path, "sd2", metadata={"modelspec.prediction_type": "epsilon"})
    assert open_model(path).record["parts"]["denoiser"]["prediction"] == "noise"
    assert open_model(path, prediction="v").record["parts"]["denoiser"]["prediction"] == "v"
    with pytest.raises(UnnoiseError, match="no prediction 'w'"):
        open_model(path, prediction="w")


def test_marks_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    single_file(path, "sdxl", extra={"v_pred": torch.empty(0), "ztsnr": torch.empty(0)})
    entry = open_model(path).record["parts"]["denoiser"]
    assert (entry["prediction"], entry["path"]) == ("v", "zero-snr(scaled-linear)")


def test_a_scheduler_beside_the_weights_decides(tmp_path: Path) -> None:
    diffusers_folder(tmp_path / "m", "sd2")
    (tmp_path / "m/scheduler").mkdir()
    file = tmp_path / "m/scheduler/scheduler_config.json"
    usual = {"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    file.write_text(json.dumps({**usual, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}))
    entry = open_model(tmp_path / "m").record["parts"]["denoiser"]
    assert (entry["prediction"], entry["path"]) == ("v", "zero-snr(scaled-linear(0.00085, 0.012))")
    file.write_text(json.dumps({**usual, "_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.5}))
    with pytest.raises(UnnoiseError, match="EDM's calibration"):
        open_model(tmp_path / "m")


def test_parts_come_from_elsewhere(tmp_path: Path) -> None:
    own = single_file(tmp_path / "whole.safetensors", "sdxl")
    single_file(tmp_path / "unet.safetensors", "sdxl", only=("denoiser",))
    diffusers_folder(tmp_path / "folder", "sdxl", own)
    with pytest.raises(UnnoiseError, match="has no autoencoder"):
        open_model(tmp_path / "unet.safetensors", family="sdxl")
    parts = {
        "autoencoder": tmp_path / "whole.safetensors",
        "text.clip-l": tmp_path / "folder",
        "text.clip-g": tmp_path / "folder/text_encoder_2",
    }
    opened = open_model(tmp_path / "unet.safetensors", parts, family="sdxl")
    assert_same(own, opened.load())
    found = open_model(tmp_path / "unet.safetensors", family="sdxl", find=lambda family, part: [parts[part]])
    assert_same(own, found.load())
    with pytest.raises(UnnoiseError, match=r"has no part text\.t5"):
        open_model(tmp_path / "unet.safetensors", {"text.t5": tmp_path}, family="sdxl")
    with pytest.raises(UnnoiseError, match="has no autoencoder for Stable Diffusion XL: it is"):
        open_model(tmp_path / "whole.safetensors", {"autoencoder": tmp_path / "unet.safetensors"})


def test_towers_of_another_model_are_refused(tmp_path: Path) -> None:
    single_file(tmp_path / "a.safetensors", "sd1", text_width=96)
    with pytest.raises(UnnoiseError, match="vectors of width 64, the denoiser attends to 96"):
        open_model(tmp_path / "a.safetensors")


def test_shards_and_variants(tmp_path: Path) -> None:
    diffusers_folder(tmp_path / "m", "sd1")
    unet = tmp_path / "m/unet"
    tensors = load_file(unet / "diffusion_pytorch_model.safetensors")
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    names = sorted(tensors)
    files = {f"diffusion_pytorch_model.fp16-0000{n}-of-00002.safetensors": names[n - 1 :: 2] for n in (1, 2)}
    for file, own in files.items():
        save_file({name: tensors[name].half() for name in own}, unet / file)
    table = {name: file for file, own in files.items() for name in own}
    index = unet / "diffusion_pytorch_model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    opened = open_model(tmp_path / "m")
    assert opened.parts["denoiser"].source.places["conv_in.weight"].dtype == "F16"
    for wrong in ("../x.safetensors", "/etc/passwd", "x.bin", "..", ""):
        index.write_text(json.dumps({"weight_map": {**table, "conv_in.weight": wrong}}))
        with pytest.raises(UnnoiseError, match="no file beside it"):
            open_model(tmp_path / "m")
    index.write_text(json.dumps({"weight_map": {**table, "conv_in.weight": "lost.safetensors"}}))
    with pytest.raises(UnnoiseError, match=r"lacks lost\.safetensors"):
        open_model(tmp_path / "m")


def test_pickles_are_for_convert(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "m.ckpt")
    with pytest.raises(UnnoiseError, match="can run code") as caught:
        open_model(tmp_path / "m.ckpt")
    assert "unnoise convert" in str(caught.value.hint)


def test_a_giant_header_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{" + b" " * 100)
    with pytest.raises(UnnoiseError, match=r"no safetensors file, or cut short|claims"):
        open_model(path)


def test_every_family_names_itself() -> None:
    for name, family in families().items():
        assert family.name == name
        assert set(modules(family)) == set(family.pieces)


COMFYUI = {  # the prefixes of single files as ComfyUI writes them
    "text.clip-l": "text_encoders.clip_l.transformer.",
    "text.clip-g": "text_encoders.clip_g.transformer.",
    "autoencoder": "vae.",
    "denoiser": "model.diffusion_model.",
}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_other_prefixes_open(family: str, tmp_path: Path) -> None:
    kind, tensors = families()[family], {}
    parts = modules(kind)
    for name, module in parts.items():
        piece, prefix = kind.pieces[name], COMFYUI[name]
        layout = "transformers" if name.startswith("text") else "original"
        rows = piece.names.table(module.config, layout)
        own = keys.state_to_theirs(rows, module.state_dict())
        tensors |= {prefix + theirs: tensor.contiguous().clone() for theirs, tensor in own.items()}
    save_file(tensors, tmp_path / "m.safetensors")
    opened = open_model(tmp_path / "m.safetensors", family=family)
    assert opened.matched == opened.total
    assert_same(parts, opened.load())


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "unet."])
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_a_denoiser_alone_opens(layout: str, prefix: str, tmp_path: Path) -> None:
    parts = single_file(tmp_path / "rest.safetensors", "sd1", only=("autoencoder", "text.clip-l"))
    piece, module = families()["sd1"].pieces["denoiser"], parts["denoiser"]
    own = keys.state_to_theirs(piece.names.table(module.config, layout), module.state_dict())
    save_file({prefix + name: each.contiguous().clone() for name, each in own.items()}, tmp_path / "m.safetensors")
    rest = dict.fromkeys(("autoencoder", "text.clip-l"), tmp_path / "rest.safetensors")
    assert_same(parts, open_model(tmp_path / "m.safetensors", rest, family="sd1").load())


def test_older_spellings_open(tmp_path: Path) -> None:
    """Towers without ``text_model.``, positions that are no weights, a projection as a convolution of one cell."""
    parts = single_file(tmp_path / "m.safetensors", "sdxl")
    tensors = load_file(tmp_path / "m.safetensors")
    renamed = {name.replace("transformer.text_model.", "transformer."): tensor for name, tensor in tensors.items()}
    assert renamed.keys() != tensors.keys()
    renamed["conditioner.embedders.0.transformer.embeddings.position_ids"] = torch.arange(77)[None]
    renamed["conditioner.embedders.1.model.logit_scale"] = torch.tensor(4.6)
    for name in [each for each in renamed if each.endswith(("proj_in.weight", "proj_out.weight"))]:
        if renamed[name].ndim == 2:
            renamed[name] = renamed[name][:, :, None, None].contiguous()
    save_file(renamed, tmp_path / "m.safetensors")
    opened = open_model(tmp_path / "m.safetensors", family="sdxl")
    assert opened.unknown == ()
    assert_same(parts, opened.load())


def test_a_gguf_file_opens(tmp_path: Path) -> None:
    parts = single_file(tmp_path / "m.safetensors", "sd1", dtype=torch.float16)
    tensors = load_file(tmp_path / "m.safetensors")
    write_gguf(tmp_path / "m.gguf", tensors)
    loaded = open_model(tmp_path / "m.gguf").load()
    for name, module in parts.items():
        own = loaded[name].network if name == "denoiser" else loaded[name]
        assert all(torch.equal(own.state_dict()[key], value.half()) for key, value in module.state_dict().items())


def write_gguf(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Writes float16 tensors as GGUF, version 3, after the format's page."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head, data = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), 0), b""
    for name, tensor in tensors.items():
        data += b"\0" * (-len(data) % 32)
        dims = struct.pack(f"<I{tensor.ndim}Q", tensor.ndim, *reversed(tensor.shape))
        head += text(name) + dims + struct.pack("<IQ", 1, len(data))
        data += tensor.contiguous().numpy().tobytes()
    head += b"\0" * (-len(head) % 32)
    path.write_bytes(head + data)
