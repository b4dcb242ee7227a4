"""Key tables against the modules and the converters of diffusers and transformers, and key lists that others published.

The full lists of names and shapes come from there alone: modules are built on the meta device from configs as they were
published, and files in the original layout are opened by diffusers' own converter.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unnoise.autoencoders.ldm import LDMAutoencoder
from unnoise.encoders.clip_text import CLIPText
from unnoise.networks.sd_unet import SDUNet
from unnoise.weights.keys import Row, shapes_to_ours, shapes_to_theirs, state_to_ours, state_to_theirs
from unnoise.weights.names import clip, ldm, sd_unet, sd_unet_config
from unnoise.weights.parts import Budget

L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
COMMON = {"vocab_size": 49_408, "max_position_embeddings": 77, "eos_token_id": 2, "pad_token_id": 1, "bos_token_id": 0}
GELU = {"hidden_act": "gelu"}
PROJECTED = {"architectures": ["CLIPTextModelWithProjection"]}
TOWERS: dict[str, dict[str, Any]] = {  # as in their config.json
    "CLIP-L": L | {"projection_dim": 768},
    "CLIP-L with projection": L | {"projection_dim": 768} | PROJECTED,
    "OpenCLIP-H of 23 blocks": H | GELU | {"projection_dim": 512, "num_hidden_layers": 23},
    "OpenCLIP-H": H | GELU | {"projection_dim": 1024},
    "OpenCLIP-H with projection": H | GELU | {"projection_dim": 1024} | PROJECTED,
    "OpenCLIP-G": G | GELU | {"projection_dim": 1280} | PROJECTED,
}
SD1 = {
    "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "in_channels": 4, "layers_per_block": 2,
    "out_channels": 4, "sample_size": 64, "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
XL = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "sample_size": 128, "layers_per_block": 2,
    "use_linear_projection": True, "upcast_attention": None, "num_class_embeds": None, "class_embed_type": None,
}  # fmt: skip
UNETS: dict[str, dict[str, Any]] = {  # as in their config.json
    "SD 1": SD1,
    "SD 1 for inpainting": SD1 | {"in_channels": 9},
    "SD 1 for instructions": SD1 | {"in_channels": 8},
    "LCM of SD 1": SD1 | {"time_cond_proj_dim": 256},
    "SD 2": SD1 | {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True},
    "SD XL": XL | {
        "attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "projection_class_embeddings_input_dim": 2816, "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    },
    "SD XL's refiner": XL | {
        "attention_head_dim": [6, 12, 24, 24], "block_out_channels": [384, 768, 1536, 1536],
        "cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560, "transformer_layers_per_block": 4,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    },
}  # fmt: skip
UNETS["SD XL for inpainting"] = UNETS["SD XL"] | {"in_channels": 9}
SMALL_UNETS: dict[str, dict[str, Any]] = {  # with something odd in each
    "small": {"block_out_channels": [8, 16], "attention_head_dim": [1, 2], "cross_attention_dim": 12,
              "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "layers_per_block": 1,
              "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "in_channels": 9, "norm_num_groups": 4},
    "small like XL": XL | {
        "block_out_channels": [8, 16, 24], "attention_head_dim": [1, 2, 3], "cross_attention_dim": 20,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "layers_per_block": 3,
        "projection_class_embeddings_input_dim": 700, "transformer_layers_per_block": [1, 2, 3], "norm_num_groups": 4,
        "out_channels": 5,
    },
}  # fmt: skip
VAE = {
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3,
    "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
VAES: dict[str, dict[str, Any]] = {
    "SD 1": VAE,
    "SD XL": VAE | {"scaling_factor": 0.13025, "force_upcast": True},
    "of 16 channels": VAE | {"latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159,
                             "use_quant_conv": False, "use_post_quant_conv": False},
}  # fmt: skip
SMALL_VAES: dict[str, dict[str, Any]] = {
    "small": VAE | {"block_out_channels": [4, 8, 12, 4], "norm_num_groups": 4, "layers_per_block": 1},
    "small, no moments": VAE | {"block_out_channels": [4, 4], "norm_num_groups": 2, "use_quant_conv": False,
                                "use_post_quant_conv": False, "down_block_types": ["DownEncoderBlock2D"] * 2,
                                "up_block_types": ["UpDecoderBlock2D"] * 2},
}  # fmt: skip
# SHA-256 of the sorted lines "name [shape]" of the lists that others read from published files
PUBLISHED = {
    # of stable-diffusion-webui-model-toolkit (MIT): the tower of Waifu Diffusion 1.4, the networks of SD 1 and SD XL
    "OpenCLIP-H of 23 blocks": "ad2aa65b2f8e88180147cf83b2ac0aca6992bdcfd96f7fdbd0b49d2666c45b38",
    "SD 1, original": "b0828585f6719ebf3393cd4f537c8b83e90dbddbb12e34b197798bc05c43a9ca",
    "SD XL, original": "b968733410df414ef289a735d89e235ee69ca18ba9a61e6885067e2e34545600",
    # of InvokeAI (Apache-2.0): the network of Juggernaut XL 9
    "SD XL, diffusers": "1252d970e55232bbd2526e7f7f8116e2bd481ea0e8be98a3e70edeb3fc5e22ac",
}

Shapes = Mapping[str, tuple[int, ...]]


def meta(make: Any, *args: Any) -> nn.Module:
    with torch.device("meta"):
        module: nn.Module = make(*args)
    return module


def on_meta(network: type[nn.Module], config: Any) -> dict[str, Tensor]:
    """The weights of ours on the meta device."""
    with Budget(10_000), torch.device("meta"):
        return network(config).state_dict()


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def faults(rows: Sequence[Row], theirs: Shapes, ours: Shapes) -> list[str]:
    """Where a table is no bijection between two lists of names and shapes."""
    names = [row.theirs for row in rows]
    found = sorted(set(names) ^ theirs.keys()) + [name for name in names if names.count(name) > 1]
    seen: dict[str, tuple[int, ...]] = {}
    for row in rows:
        if row.theirs in theirs:
            new = shapes_to_ours(row, theirs[row.theirs])
            found += [name for name in new if name in seen or new[name] != ours.get(name)]
            seen |= new
    return found + sorted(ours.keys() - seen.keys())


def digest(theirs: Shapes) -> str:
    """Of names and shapes, as ``PUBLISHED`` has it."""
    lines = sorted(f"{name} {list(shape)}" for name, shape in theirs.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def numbered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of these shapes, each of one number of its own, which take no memory."""
    return {name: torch.tensor(float(n)).expand(tensor.shape) for n, (name, tensor) in enumerate(state.items())}


def assert_controls(rows: Sequence[Row], theirs: Shapes, ours: Shapes) -> None:
    """Two rows that change places are seen, and a row that is missing."""
    assert faults(swapped(rows, "norm1.weight", "up.weight"), theirs, ours)
    assert faults(rows[1:], theirs, ours)


def swapped(rows: Sequence[Row], one: str, other: str) -> list[Row]:
    """The table with two of their names exchanged: of the first rows whose names of ours end so."""
    changed = list(rows)
    a, b = (next(n for n, row in enumerate(rows) if row.ours[0].endswith(each)) for each in (one, other))
    changed[a], changed[b] = rows[a]._replace(theirs=rows[b].theirs), rows[b]._replace(theirs=rows[a].theirs)
    return changed


def same_numbers(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether names, shapes and the numbers of ``numbered`` agree; of what is stacked or cut, first and last row."""
    return found.keys() == wanted.keys() and all(
        found[name].shape == each.shape
        and found[name].flatten()[0] == each.flatten()[0]
        and found[name].flatten()[-1] == each.flatten()[-1]
        for name, each in wanted.items()
    )


# CLIP


def tower(values: Mapping[str, Any]) -> nn.Module:
    """Theirs on the meta device."""
    import transformers

    config = transformers.CLIPTextConfig(**COMMON | values)
    name = (values.get("architectures") or ["CLIPTextModel"])[0]
    return meta(getattr(transformers, name), config)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOWERS)
def test_clip_has_every_name_and_shape_of_transformers(name: str) -> None:
    config = clip.from_config(COMMON | TOWERS[name])
    theirs = {clip.tidied(each, "transformers"): s for each, s in shapes(tower(TOWERS[name]).state_dict()).items()}
    ours = shapes(on_meta(CLIPText, config))
    rows = clip.table(config, "transformers")
    assert faults(rows, theirs, ours) == []
    assert clip.from_shapes(theirs, "transformers") == config
    assert_controls(rows, theirs, ours)
    again = clip.to_config(config)
    assert shapes(tower(again).state_dict()) == shapes(tower(TOWERS[name]).state_dict())


def listed(rows: Sequence[Row], ours: Shapes) -> dict[str, tuple[int, ...]]:
    """The list of names and shapes that a table makes of ours."""
    return {row.theirs: shapes_to_theirs(row, ours) for row in rows}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_table_makes_the_list_that_others_published(name: str) -> None:
    names: ModuleType = clip if name.startswith("OpenCLIP") else sd_unet
    values = COMMON | TOWERS[name] if names is clip else UNETS[name.partition(",")[0]]
    layout = "openclip" if names is clip else name.rpartition(" ")[2]
    config = names.from_config(values)
    rows, ours = names.table(config, layout), shapes(on_meta(CLIPText if names is clip else SDUNet, config))
    assert digest(listed(rows, ours)) == PUBLISHED[name]
    for wrong in (rows[1:], swapped(rows, "norm1.weight", "conv1.weight" if names is sd_unet else "up.weight")):
        assert digest(listed(wrong, ours)) != PUBLISHED[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TOWERS if name.startswith("OpenCLIP")])
def test_diffusers_converter_opens_our_openclip_names(name: str) -> None:
    """Each weight arrives where our table for transformers' names has it, q, k and v in their order."""
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    config = clip.from_config(COMMON | TOWERS[name])
    weights = numbered(on_meta(CLIPText, config))
    prefix = "conditioner.embedders.1.model."
    rows, wanted = clip.table(config, "openclip"), state_to_theirs(clip.table(config, "transformers"), weights)
    for table, right in ((rows, True), (swapped(rows, "norm1.weight", "norm2.weight"), False)):
        file = {prefix + n: t for n, t in state_to_theirs(table, weights).items()}
        found = convert_open_clip_checkpoint(tower(TOWERS[name]), file, prefix)
        assert same_numbers(found, wanted) == right


def test_diffusers_converter_transposes_as_we_do() -> None:
    """All numbers of a small tower, the projection's among them."""
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    small = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    values = COMMON | small | GELU | PROJECTED | {"projection_dim": 24, "vocab_size": 50}
    config = clip.from_config(values)
    weights = {n: torch.randn(t.shape) for n, t in on_meta(CLIPText, config).items()}
    prefix = "conditioner.embedders.0.model."
    file = {prefix + n: t for n, t in state_to_theirs(clip.table(config, "openclip"), weights).items()}
    found = convert_open_clip_checkpoint(tower(values), file, prefix)
    wanted = state_to_theirs(clip.table(config, "transformers"), weights)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert not torch.equal(file[f"{prefix}text_projection"], wanted["text_projection.weight"])


# the U-Net and the autoencoder

KINDS: dict[str, tuple[ModuleType, type[nn.Module], str, str]] = {
    "U-Net": (sd_unet, SDUNet, "UNet2DConditionModel", "model.diffusion_model."),
    "autoencoder": (ldm, LDMAutoencoder, "AutoencoderKL", "first_stage_model."),
}
TRUE = [("U-Net", name) for name in UNETS] + [("autoencoder", name) for name in VAES]
SMALL = [("U-Net", name) for name in SMALL_UNETS] + [("autoencoder", name) for name in SMALL_VAES]


def values_of(kind: str, name: str) -> dict[str, Any]:
    return ((UNETS | SMALL_UNETS) if kind == "U-Net" else (VAES | SMALL_VAES))[name]


def diffusers_class(kind: str) -> Any:
    import diffusers

    return getattr(diffusers, KINDS[kind][2])


def convert(kind: str, file: dict[str, Tensor], values: Mapping[str, Any]) -> dict[str, Tensor]:
    """What diffusers makes of a file in the original layout."""
    from diffusers.loaders import single_file_utils as utils

    call = utils.convert_ldm_unet_checkpoint if kind == "U-Net" else utils.convert_ldm_vae_checkpoint
    found: dict[str, Tensor] = call(file, dict(values))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), TRUE + SMALL)
def test_a_table_has_every_name_and_shape_of_diffusers(kind: str, name: str) -> None:
    names, network, _, _ = KINDS[kind]
    config = names.from_config(values_of(kind, name))
    make = diffusers_class(kind).from_config
    theirs, ours = shapes(meta(make, values_of(kind, name)).state_dict()), shapes(on_meta(network, config))
    rows = names.table(config, "diffusers")
    assert faults(rows, theirs, ours) == []
    hidden = ("heads", "size", "groups") if kind == "U-Net" else ("scale", "shift", "groups")
    assert names.from_shapes(theirs, "diffusers", **{each: getattr(config, each) for each in hidden}) == config
    assert shapes(meta(make, names.to_config(config)).state_dict()) == theirs
    assert faults(swapped(rows, "norm1.weight", "conv1.weight"), theirs, ours)
    assert faults(rows[1:], theirs, ours)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), TRUE)
def test_diffusers_converter_opens_our_original_names(kind: str, name: str) -> None:
    """Every weight arrives where our table for diffusers' names has it; a file of ours with two exchanged does not."""
    names, network, _, prefix = KINDS[kind]
    config = names.from_config(values_of(kind, name))
    weights = numbered(on_meta(network, config))
    rows, wanted = names.table(config, "original"), state_to_theirs(names.table(config, "diffusers"), weights)
    wanted.pop("time_embedding.cond_proj.weight", None)  # the converter does not know what LCM adds
    for table, right in ((rows, True), (swapped(rows, "norm1.weight", "norm2.weight"), False)):
        file = {prefix + each: tensor for each, tensor in state_to_theirs(table, weights).items()}
        found = convert(kind, file, values_of(kind, name))
        assert same_numbers(found, wanted) == right


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), SMALL)
def test_diffusers_loads_what_we_save_and_we_what_it_holds(kind: str, name: str, tmp_path: Path) -> None:
    """One file through ``from_single_file`` with our config.json, all numbers equal, of theirs under our names."""
    from safetensors.torch import save_file

    names, network, _, prefix = KINDS[kind]
    theirs = diffusers_class(kind).from_config(values_of(kind, name))
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    config = names.from_config(dict(theirs.config))
    weights = state_to_ours(names.table(config, "diffusers"), theirs.state_dict())
    assert shapes(weights) == shapes(on_meta(network, config))
    file = {prefix + n: t.contiguous() for n, t in state_to_theirs(names.table(config, "original"), weights).items()}
    save_file(file, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(names.to_config(config)))
    again = type(theirs).from_single_file(
        str(tmp_path / "model.safetensors"), config=str(tmp_path), local_files_only=True
    )
    found = again.state_dict()
    assert found.keys() == theirs.state_dict().keys()
    assert all(torch.equal(found[each], tensor) for each, tensor in theirs.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_of_diffusers_is_read_or_refused(kind: str) -> None:
    """What is refused has their default as its good value; what is passed over is named here."""
    module = sd_unet_config if kind == "U-Net" else ldm
    passed = {"dropout", "upcast_attention", "addition_embed_type_num_heads", "force_upcast"}
    passed |= {"sample_size"} if kind == "autoencoder" else set()
    parameters = dict(list(inspect.signature(diffusers_class(kind).__init__).parameters.items())[1:])
    source = inspect.getsource(module)
    for name, parameter in parameters.items():
        if name in module.ONLY:
            default = parameter.default if isinstance(parameter.default, tuple) else (parameter.default,)
            assert default[0] == module.ONLY[name][0][0], name
        elif name not in passed:
            assert f'"{name}"' in source, f"{name} is neither read nor refused"
    assert not module.ONLY.keys() - parameters.keys() - {"_class_name"}


# text towers where they lie: in single files and in folders

SMALL_L = COMMON | L | {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
                        "vocab_size": 50, "projection_dim": 24}  # fmt: skip
SMALL_G = SMALL_L | GELU | PROJECTED | {"hidden_size": 36, "num_hidden_layers": 3, "projection_dim": 36}
WHOLE: dict[str, list[tuple[str, dict[str, Any], str]]] = {  # {file: [(prefix, tower, layout)]}
    "SD 1": [("cond_stage_model.transformer.", SMALL_L, "transformers")],
    "SD 2": [("cond_stage_model.model.", SMALL_G | {"architectures": ["CLIPTextModel"]}, "openclip")],
    "SD XL": [
        ("conditioner.embedders.0.transformer.", SMALL_L, "transformers"),
        ("conditioner.embedders.1.model.", SMALL_G, "openclip"),
    ],
    "SD XL's refiner": [("conditioner.embedders.0.model.", SMALL_G, "openclip")],
}


def random_tower(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """Random weights of ours."""
    return {n: torch.randn(t.shape) for n, t in on_meta(CLIPText, clip.from_config(values)).items()}


def tidy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {clip.tidied(name, "transformers"): tensor for name, tensor in state.items()}


@pytest.mark.slow
@pytest.mark.parametrize("file", WHOLE)
def test_diffusers_finds_our_towers_in_a_single_file(file: str, tmp_path: Path) -> None:
    import transformers
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

    towers = [(prefix, values, layout, random_tower(values)) for prefix, values, layout in WHOLE[file]]
    whole: dict[str, Tensor] = {}
    for prefix, values, layout, weights in towers:
        rows = clip.table(clip.from_config(values), layout)
        whole |= {prefix + each: tensor for each, tensor in state_to_theirs(rows, weights).items()}
    for _, values, _, weights in towers:
        config = clip.from_config(values)
        written = clip.to_config(config)
        (tmp_path / "config.json").write_text(json.dumps(written))
        cls = getattr(transformers, written["architectures"][0])
        model = create_diffusers_clip_model_from_ldm(cls, dict(whole), config=str(tmp_path), local_files_only=True)
        found = state_to_ours(clip.table(config, "transformers"), tidy(model.state_dict()))
        assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


@pytest.mark.slow
@pytest.mark.parametrize("values", [SMALL_L, SMALL_G], ids=["L", "G"])
def test_transformers_opens_our_folders_and_we_its(values: dict[str, Any], tmp_path: Path) -> None:
    """With ``text_model.`` before the names, as published, and however this version of transformers writes them."""
    import transformers
    from safetensors.torch import load_file, save_file

    config, weights = clip.from_config(values), random_tower(values)
    rows, written = clip.table(config, "transformers"), clip.to_config(config)
    save_file(state_to_theirs(rows, weights), tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(written))
    cls = getattr(transformers, written["architectures"][0])
    model, report = cls.from_pretrained(tmp_path, local_files_only=True, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    model.save_pretrained(tmp_path / "again")
    theirs = tidy(load_file(tmp_path / "again" / "model.safetensors"))
    found = state_to_ours(rows, theirs, clip.IGNORED["transformers"])
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert clip.from_config(json.loads((tmp_path / "again" / "config.json").read_text())) == config
