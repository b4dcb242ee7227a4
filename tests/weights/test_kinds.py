"""What tensors are, by names and shapes: one row for each kind, and files of the formats that hold them."""

# ruff: noqa: E501
from __future__ import annotations

import io
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from unnoise.errors import UnnoiseError
from unnoise.weights.gguf import read_gguf
from unnoise.weights.kinds import MAX_TENSORS, MODELS, kind_of_tensors
from unnoise.weights.pickles import MAX_STEPS, disassemble
from unnoise.weights.torch_files import read_pickle, read_zip

Row = tuple[dict[str, tuple[int, ...] | None], str]
KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
DOT = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
IN = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
ADAPTERS: dict[str, tuple[dict[str, tuple[int, ...] | None], str, str, str]] = {  # tensors, what, whose names, alpha
    "kohya SD1": ({f"{KOHYA}.lora_down.weight": (4, 768), f"{KOHYA}.lora_up.weight": (320, 4), f"{KOHYA}.alpha": ()}, "(LoRA) for Stable Diffusion 1", "kohya's", "with each module"),
    "kohya SD2": ({f"{KOHYA}.lora_down.weight": (4, 1024), f"{KOHYA}.lora_up.weight": (320, 4)}, "for Stable Diffusion 2", "kohya's", "its scale is 1"),
    "kohya SDXL": ({f"{KOHYA}.lora_down.weight": (4, 2048), f"{KOHYA}.lora_up.weight": (640, 4)}, "for Stable Diffusion XL", "kohya's", "its scale is 1"),
    "kohya SDXL text": ({"lora_te2_a.lora_down.weight": (4, 1280), "lora_te2_a.lora_up.weight": (9, 4)}, "for Stable Diffusion XL", "kohya's", "1"),
    "kohya Flux": ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072), "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": (9, 4)}, "for Flux.1", "kohya's", "1"),
    "OneTrainer DoRA": ({"lora_transformer_single_transformer_blocks_0_attn_to_k.lora_down.weight": (4, 9), "lora_transformer_single_transformer_blocks_0_attn_to_k.dora_scale": (1, 9), "lora_transformer_single_transformer_blocks_0_attn_to_k.lora_up.weight": (9, 4)}, "(LoRA, DoRA) for Flux.1", "OneTrainer's", "1"),
    "LoKr": ({f"{KOHYA}.lokr_w1_b": (4, 32), f"{KOHYA}.lokr_w2_b": (4, 24), f"{KOHYA}.lokr_w1_a": (9, 4), f"{KOHYA}.alpha": ()}, "(LoKr) for Stable Diffusion 1", "kohya's", "with each module"),
    "LoKr whole": ({"diffusion_model.double_blocks.0.img_attn.qkv.lokr_w1": (4, 4), "diffusion_model.double_blocks.0.img_attn.qkv.lokr_w2": (4, 4)}, "(LoKr) for Flux.1", "ComfyUI's", "not used"),
    "LoHa": ({f"{KOHYA}.hada_w1_a": (9, 4), f"{KOHYA}.hada_w1_b": (4, 768)}, "(LoHa) for Stable Diffusion 1", "kohya's", "1"),
    "OFT": ({"oft_unet_a.oft_blocks": (4, 9, 9)}, "(OFT)", "kohya's", "1"),
    "GLoRA": ({f"lora_unet_x.{n}.weight": (4, 4) for n in ("a1", "a2", "b1", "b2")}, "(GLoRA)", "kohya's", "1"),
    "diffusers": ({f"unet.{DOT}.to_k.lora_A.weight": (4, 768), f"unet.{DOT}.to_k.lora_B.weight": (320, 4)}, "for Stable Diffusion 1", "diffusers' and PEFT's", "1"),
    "PEFT": ({f"base_model.model.{DOT}.to_k.lora_A.default.weight": (4, 768), f"base_model.model.{DOT}.to_k.lora_B.default.weight": (320, 4)}, "for Stable Diffusion 1", "PEFT's", "adapter_config.json"),
    "old processors": ({f"{DOT}.processor.to_k_lora.down.weight": (4, 768), f"{DOT}.processor.to_k_lora.up.weight": (320, 4)}, "for Stable Diffusion 1", "old attention processors", "1"),
    "cloneofsimo": ({"unet:0:down": (4, 768), "unet:0:up": (320, 4), "<s1>": (768,)}, "for Stable Diffusion 1", "by number", "1"),
    "XLabs": ({"double_blocks.0.processor.qkv_lora1.down.weight": (4, 9), "double_blocks.0.processor.qkv_lora1.up.weight": (9, 4)}, "for Flux.1", "XLabs'", "1"),
    "SimpleTuner": ({"lycoris_transformer_blocks_0_attn_add_k_proj.lokr_w1": (4, 4), "lycoris_transformer_blocks_0_attn_add_k_proj.lokr_w2": (4, 4)}, "for Stable Diffusion 3", "SimpleTuner's", "not used"),
    "broken": ({"lora_unet_unet_mid_attn1_to_k_lora_down.weight": (4, 9), "lora_unet_unet_mid_attn1_to_k_lora_up.weight": (9, 4)}, "(LoRA)", "broken", "1"),
}  # fmt: skip


def of(tensors: dict[str, tuple[int, ...] | None]) -> Any:
    return kind_of_tensors({name: ("F32", shape) for name, shape in tensors.items()}, {})


@pytest.mark.parametrize("case", ADAPTERS)
def test_adapters(case: str) -> None:
    tensors, what, names, alpha = ADAPTERS[case]
    found = of(tensors)
    assert found.what.startswith("an adapter (")
    assert what in found.what
    assert names in found.facts["names"]
    assert alpha in found.facts["alpha"]


def test_what_a_person_must_know_of_an_adapter() -> None:
    assert "no program matches 2 of its names" in of(ADAPTERS["broken"][0]).note
    assert "order in which the trainer walked" in of(ADAPTERS["cloneofsimo"][0]).note
    assert of(ADAPTERS["cloneofsimo"][0]).facts["textual inversions in it"] == "<s1>"
    assert "lack the other" in of({"lora_unet_a.lora_down.weight": (4, 4), "lora_unet_a.alpha": ()}).note
    assert not of(ADAPTERS["kohya SD1"][0]).note


PARTS: dict[str, Row] = {
    "SD1": ({IN: (320, 768), "cond_stage_model.transformer.a": (1,)}, "Stable Diffusion 1, one file"),
    "SD1 for inpainting": ({IN: (320, 768), "model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3), "cond_stage_model.a": (1,)}, "Stable Diffusion 1, for inpainting, one file"),
    "SD2": ({IN: (320, 1024), "cond_stage_model.model.a": (1,)}, "Stable Diffusion 2, one file"),
    "SDXL": ({IN: (640, 2048), "conditioner.embedders.1.model.a": (1,)}, "Stable Diffusion XL, one file"),
    "SDXL's U-Net": ({"down_blocks.0.a": (1,), "time_embedding.a": (1,), "x.attn2.to_k.weight": (640, 2048)}, "Stable Diffusion XL, the U-Net alone, diffusers' names"),
    "a merge": ({**{f"{IN}.{n}": (1, 768) for n in range(50)}, IN: (1, 768), "cond_stage_model.a": (1,), "lora_unet_x.alpha": ()}, "Stable Diffusion 1, one file"),
    "Flux": ({"double_blocks.0.a": (1,), "single_blocks.0.a": (1,)}, "the denoiser of Flux.1"),
    "SD3": ({"joint_blocks.0.a": (1,)}, "the denoiser of Stable Diffusion 3"),
    "CLIP": ({"text_model.encoder.layers.0.mlp.fc1.weight": (1,)}, "a CLIP text encoder"),
    "T5": ({"encoder.block.0.layer.0.SelfAttention.k.weight": (1,)}, "a T5 text encoder"),
    "control": ({"control_model.zero_convs.0.0.weight": (1,), "control_model.input_blocks.1.0.a": (1,)}, "a control network (ControlNet)"),
    "IP": ({"image_proj.proj.weight": (1,), "ip_adapter.1.to_k_ip.weight": (1,)}, "an IP-Adapter"),
    "VAE": ({"decoder.up_blocks.0.a": (1,), "encoder.down_blocks.0.a": (1,)}, "an autoencoder, diffusers' names"),
    "TAESD": ({"1.conv.0.weight": (64, 64, 3, 3), "1.conv.4.weight": (64, 64, 3, 3), "0.weight": (64, 3, 3, 3)}, "a tiny autoencoder of the TAESD family: one half, named by numbers"),
    "A1111's words": ({"string_to_param.*": (2, 768)}, "a textual inversion for Stable Diffusion 1"),
    "SDXL's words": ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "a textual inversion for Stable Diffusion XL"),
    "a table of 768": ({"layers.0.weight": (768, 768)}, "unknown"),
    "anything": ({"something.else": (1,)}, "unknown"),
    "nothing": ({}, "no tensors: an empty file of weights"),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTS)
def test_models_and_parts(case: str) -> None:
    tensors, what = PARTS[case]
    assert of(tensors).what == what


def test_an_encoder_tells_whose_latents_it_makes() -> None:
    half = {"0.weight": (64, 3, 3, 3), "1.conv.0.weight": (64, 64, 3, 3), "1.conv.4.weight": (64, 64, 3, 3)}
    found = of({**half, "14.weight": (32, 64, 3, 3)})
    assert (found.facts["half"], found.facts["latent channels"], found.facts["for"]) == ("encoder", 32, "Flux.2")


def test_every_row_has_a_pattern_that_compiles() -> None:
    import re

    assert all(re.compile(pattern) for _, patterns in MODELS for pattern in patterns)
    assert len({what for what, _ in MODELS}) >= len(MODELS) - 1


def test_of_very_many_tensors_some_are_looked_at() -> None:
    found = of({f"lora_unet_a_{n}.lora_down.weight": (4, 4) for n in range(MAX_TENSORS + 1)})
    assert (found.what, found.facts["looked at"]) == ("an adapter (LoRA)", "one in 2 of its tensors")


def test_long_names_do_not_take_time_in_their_square() -> None:
    """Work is bounded by the length of names: the pattern for what attends to the prompt looks at each once."""
    tensors = {"attn2.to_k" * 100 + str(n): (1,) for n in range(20)}
    assert of(tensors).what == "unknown"


# GGUF


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def gguf(
    *tensors: tuple[str, tuple[int, ...], int, int], keys: bytes = b"", num_keys: int = 0, version: int = 3
) -> bytes:
    data = b"GGUF" + struct.pack("<IQQ", version, len(tensors), num_keys) + keys
    for name, shape, kind, start in tensors:
        data += (
            string(name)
            + struct.pack("<I", len(shape))
            + struct.pack(f"<{len(shape)}Q", *shape)
            + struct.pack("<IQ", kind, start)
        )
    return data + bytes(-len(data) % 32)


def test_gguf(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    keys = string("general.architecture") + struct.pack("<I", 8) + string("flux")
    keys += string("tokens") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("b")
    keys += string("scores") + struct.pack("<IIQ", 9, 6, 3) + bytes(12) + string("n") + struct.pack("<Iq", 11, -5)
    rows = (("double_blocks.0.img_attn.weight", (256, 2), 12, 0), ("single_blocks.0.b", (3,), 0, 288))
    path.write_bytes(gguf(*rows, keys=keys, num_keys=4) + bytes(300))
    header = read_gguf(path)
    assert header.metadata == {
        "GGUF version": "3",
        "general.architecture": "flux",
        "tokens": "2 values",
        "scores": "3 values",
        "n": "-5",
    }
    assert header.tensors == {rows[0][0]: ("Q4_K", (2, 256)), rows[1][0]: ("F32", (3,))}
    assert header.kind() == "the denoiser of Flux.1"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnnoiseError, match="cut short"):
        read_gguf(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GGUF", "ends in its header"),
        (gguf(version=4), "version 4 is not known"),
        (b"GGUF\0\0\0\x03" + bytes(16), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0), "1,099,511,627,776 tensors"),
        (gguf(keys=string("a") + struct.pack("<I", 99), num_keys=1), "unknown type 99"),
        (gguf(keys=string("a") + struct.pack("<IIQ", 9, 9, 5), num_keys=1), "an array holds arrays"),
        (gguf(keys=string("a") + struct.pack("<IIQ", 9, 8, 2**50), num_keys=1), "strings"),
        (gguf(("a", (2**60,), 0, 0)), "has no shape"),
        (gguf(("a", (), 0, 2**60)), "has no shape"),
        (gguf(("a", (1,) * 9, 0, 0)), "9 dimensions"),
        (b"<html>", "a web page"),
        (b"\x01\x02", "no GGUF file"),
    ],
)
def test_a_gguf_that_lies_is_refused(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(UnnoiseError, match=said):
        read_gguf(tmp_path / "a")


# pickles


class Trap:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.made


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_what_torch_saves_is_told(new: bool, tmp_path: Path) -> None:
    state = OrderedDict(
        a=torch.zeros(3, 4, dtype=torch.float16),
        b=torch.nn.Parameter(torch.zeros(2)),
        c=torch.zeros((), dtype=torch.int64),
    )
    torch.save(
        {"state_dict": state, "epoch": 3, "more": [torch.zeros(5)]},
        tmp_path / "a.pt",
        _use_new_zipfile_serialization=new,
    )
    file = read_zip(tmp_path / "a.pt")[0] if new else read_pickle(tmp_path / "a.pt")
    assert file is not None
    assert dict(file.tensors) == {
        "state_dict.a": ("F16", (3, 4)),
        "state_dict.b": ("F32", (2,)),
        "state_dict.c": ("I64", ()),
        "more.0": ("F32", (5,)),
    }
    assert file.top == ("state_dict", "epoch", "more")
    assert (file.traps, file.foreign, file.fault, file.places) == ([], [], "", ("cpu",))


def test_a_zip_that_lacks_numbers_is_damaged(tmp_path: Path) -> None:
    import zipfile

    torch.save({"a": torch.zeros(30)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry)[: 10 if "/data/" in entry.filename else None])
    file = read_zip(tmp_path / "b.pt")[0]
    assert file is not None
    assert file.fault == "the numbers of a are not all in it"


TRAPS = {
    "a command": Trap(os.system, "true"),
    "text that is run": Trap(eval, "1"),
    "an attribute by its name": Trap(getattr, "a", "b"),
    "in a dictionary": {"weights": [1, 2, {"deep": Trap(os.popen, "true")}]},
    "torch that opens another": Trap(torch.load, "a"),
    "in bytes": {"a": pickle.dumps(Trap(os.system, "true"))},
    "in bytes in bytes": {"a": pickle.dumps({"b": pickle.dumps(Trap(os.system, "true"))})},
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("case", TRAPS)
def test_traps_are_named_and_not_sprung(case: str, protocol: int) -> None:
    opened = disassemble(pickle.dumps(TRAPS[case], protocol))
    if protocol < 3 and "bytes" in case:  # old protocols spell bytes as text, which a call turns back
        return
    assert opened.traps, opened
    assert not opened.fault


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"a": [1, 2.5, None, True, b"x", (1,), {2}, frozenset([3])]},
        2**100,
        "x",
        complex(1, 2),
        OrderedDict(a=1),
    ],
)
@pytest.mark.parametrize("protocol", range(6))
def test_harmless_pickles_are_harmless(value: Any, protocol: int) -> None:
    opened = disassemble(pickle.dumps(value, protocol))
    assert (opened.traps, opened.foreign, opened.fault) == ([], [], "")


@pytest.mark.parametrize(
    "name",
    ["collections\n_sys.modules", "torch._utils\nos.system", "torch\nSize.__init__", "os\nsystem", "torch\nload"],
)
def test_a_detour_is_a_trap(name: str) -> None:
    assert disassemble(f"c{name}\n.".encode()).traps == [name.replace("\n", ".")]


def test_classes_of_other_programs_are_told_apart() -> None:
    opened = disassemble(b"cpytorch_lightning.callbacks\nModelCheckpoint\n.")
    assert (opened.traps, opened.foreign) == ([], ["pytorch_lightning.callbacks.ModelCheckpoint"])


def test_a_pickle_without_end_ends() -> None:
    assert MAX_STEPS <= 300_000, "about a second"
    assert "more than 1,000 instructions" in disassemble(b"\x80\x02" + b"N0" * 1000 + b"N.", budget=1000).fault
    assert disassemble(b"\x80\x02" + b"N0" * 400 + b"N.", budget=1000).fault == ""
    many = pickle.dumps([pickle.dumps(list(range(100))) for _ in range(20)])
    assert disassemble(many, budget=1000).fault == "it holds more than is looked at"
    assert disassemble(many).fault == ""
    shared = b"\x80\x02]q\0" + b"".join(b"](" + b"h\0" * 50 + b"eq\0" for _ in range(8)) + b"."  # 50^8 if followed
    assert disassemble(shared).fault == ""


def test_a_list_that_holds_itself_many_times_is_walked_briefly(tmp_path: Path) -> None:
    layers = b"".join(b"](" + b"h\0" * 50 + b"eq\0" for _ in range(8))
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02]q\0" + layers + b".")
    assert read_pickle(tmp_path / "a.pkl").tensors == {}
    own = io.BytesIO()
    held: list[Any] = []
    held.append(held)
    pickle.dump(held, own)
    (tmp_path / "b.pkl").write_bytes(own.getvalue())
    assert read_pickle(tmp_path / "b.pkl").tensors == {}
