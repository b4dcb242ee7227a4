"""Key tables: rows in both directions, and for each part the laws of its tables over random small configs."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unnoise.autoencoders.ldm import LDMAutoencoder, LDMConfig
from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.errors import UnnoiseError
from unnoise.networks.sd_unet import SDUNet, SDUNetConfig
from unnoise.weights.keys import (
    Row,
    count,
    match,
    shapes_to_ours,
    shapes_to_theirs,
    size,
    state_to_ours,
    state_to_theirs,
    to_ours,
    to_theirs,
)
from unnoise.weights.names import clip, ldm, sd_unet
from unnoise.weights.parts import Budget

few = settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


# rows

STACKED = Row(("q", "k", "v"), "in_proj", "rows")


@pytest.mark.parametrize(
    ("row", "theirs", "ours"),
    [
        (Row(("a",), "b"), (2, 3, 1, 1), {"a": (2, 3, 1, 1)}),
        (Row(("a",), "b", "conv"), (2, 3, 1, 1), {"a": (2, 3)}),
        (Row(("a",), "b", "linear"), (2, 3), {"a": (2, 3)}),
        (Row(("a",), "b", "transposed"), (2, 3), {"a": (3, 2)}),
        (STACKED, (6, 2), {"q": (2, 2), "k": (2, 2), "v": (2, 2)}),
        (STACKED, (6,), {"q": (2,), "k": (2,), "v": (2,)}),
    ],
)
def test_a_row_is_exact_in_both_directions(row: Row, theirs: tuple[int, ...], ours: dict[str, tuple[int, ...]]) -> None:
    assert shapes_to_ours(row, theirs) == ours
    assert shapes_to_theirs(row, ours) == theirs
    for dtype in DTYPES:
        tensor = torch.randn(theirs).to(dtype)
        found = to_ours(row, tensor)
        assert {name: tuple(each.shape) for name, each in found.items()} == ours
        assert all(each.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() for each in found.values())
        back = to_theirs(row, found)
        assert back.dtype == dtype
        assert torch.equal(back, tensor)


def test_the_stack_is_query_key_value() -> None:
    found = to_ours(STACKED, torch.arange(6.0))
    assert [found[name].tolist() for name in "qkv"] == [[0, 1], [2, 3], [4, 5]]


def test_a_matrix_may_come_as_a_convolution_of_one_cell() -> None:
    """GGUF files of Stable Diffusion XL hold linear layers so, and older files of diffusers hold convolutions flat."""
    matrix = torch.randn(4, 3)
    for change, shape in itertools.product(("linear", "conv"), ((4, 3), (4, 3, 1), (4, 3, 1, 1))):
        row = Row(("a",), "proj_in.weight", change)
        assert torch.equal(to_ours(row, matrix.reshape(shape))["a"], matrix)
    assert to_theirs(Row(("a",), "b", "conv"), {"a": matrix}).shape == (4, 3, 1, 1)
    assert to_theirs(Row(("a",), "b", "linear"), {"a": matrix}).shape == (4, 3)


@pytest.mark.parametrize(
    ("change", "shape"),
    [("conv", (2, 3, 3, 3)), ("linear", (2,)), ("transposed", (2, 3, 1)), ("rows", (7, 2)), ("rows", ())],
)
def test_a_shape_that_a_row_cannot_take_is_refused(change: str, shape: tuple[int, ...]) -> None:
    row = Row(("q", "k", "v") if change == "rows" else ("a",), "there", change)
    with pytest.raises(UnnoiseError, match="the weight 'there' of shape"):
        to_ours(row, torch.zeros(shape))


def test_names_are_matched() -> None:
    rows = (Row(("a",), "x"), Row(("b",), "y"))
    found = match(rows, ["y", "z", "x.position_ids"], (r"\.position_ids$",))
    assert found == ((rows[1],), ("x",), ("z",))
    assert count(["layers.0.a", "layers.0.b", "layers.11.a", "other.5.a", "layers.x.a"], "layers.") == 2
    with pytest.raises(UnnoiseError, match="'w' is missing"):
        size({}, "w", 0)
    with pytest.raises(UnnoiseError, match=r"'w' has the shape \[3\]"):
        size({"w": (3,)}, "w", 1)


# tables


def on_meta(network: type[nn.Module], config: Any) -> dict[str, Tensor]:
    with Budget(10_000), torch.device("meta"):
        return network(config).state_dict()


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def file_of(names: ModuleType, network: type[nn.Module], config: Any, layout: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a file in a layout."""
    ours = shapes(on_meta(network, config))
    return {row.theirs: shapes_to_theirs(row, ours) for row in names.table(config, layout)}


def numbers(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Random weights of these shapes."""
    make = torch.Generator().manual_seed(5)
    return {name: torch.randn(tensor.shape, generator=make).to(dtype) for name, tensor in state.items()}


def laws(
    names: ModuleType, network: type[nn.Module], config: Any, hints: Mapping[str, Any], dtype: torch.dtype
) -> None:
    """What holds for the tables of every part: a bijection, exact around all layouts; shapes give the config back.

    Args:
        names: the part's module in ``weights.names``.
        hints: what of the config shapes do not show.
    """
    weights = numbers(on_meta(network, config), dtype)
    state, ours = weights, shapes(weights)
    for layout in (*names.LAYOUTS, *reversed(names.LAYOUTS)):
        rows = names.table(config, layout)
        assert sorted(name for row in rows for name in row.ours) == sorted(ours)
        assert len({row.theirs for row in rows}) == len(rows)
        theirs = state_to_theirs(rows, state)
        assert all(names.tidied(name, layout) == name for name in theirs)
        assert shapes(theirs) == {row.theirs: shapes_to_theirs(row, ours) for row in rows}
        assert names.from_shapes(shapes(theirs), layout, **hints) == config
        state = state_to_ours(rows, theirs, names.IGNORED[layout])
        assert state.keys() == weights.keys()
        for name, tensor in state.items():
            assert tensor.dtype == dtype
            assert torch.equal(tensor, weights[name]), (layout, name)
    assert names.from_config(names.to_config(config)) == config


@st.composite
def towers(draw: st.DrawFn) -> CLIPTextConfig:
    heads = draw(st.integers(1, 4))
    return CLIPTextConfig(
        vocabulary=draw(st.integers(3, 60)),
        length=draw(st.integers(2, 80)),
        width=heads * draw(st.integers(1, 9)),
        depth=draw(st.integers(1, 12)),
        heads=heads,
        hidden=draw(st.integers(1, 50)),
        activation=draw(st.sampled_from(["gelu", "quick_gelu"])),
        projection=draw(st.integers(0, 20)),
    )


@few
@given(config=towers(), dtype=st.sampled_from(DTYPES))
def test_clip(config: CLIPTextConfig, dtype: torch.dtype) -> None:
    config = CLIPTextConfig(**vars(config) | {"end": config.vocabulary - 1})
    laws(clip, CLIPText, config, {"heads": config.heads, "activation": config.activation}, dtype)


def test_published_towers_are_known_by_their_shapes() -> None:
    """L, H and G as (width, heads, activation) under either layout's names; an L of OpenCLIP has GELU."""
    for layout, width, heads, activation in (
        ("transformers", 768, 12, "quick_gelu"),
        ("transformers", 1024, 16, "gelu"),
        ("transformers", 1280, 20, "gelu"),
        ("openclip", 768, 12, "gelu"),
        ("openclip", 1280, 20, "gelu"),
    ):
        shape = CLIPTextConfig(vocabulary=49_408, length=77, width=width, depth=2, heads=heads, hidden=4 * width)
        found = clip.from_shapes(file_of(clip, CLIPText, shape, layout), layout, layer=2, masked=False)
        assert (found.heads, found.activation, found.end) == (heads, activation, 49_407)
        assert (found.layer, found.masked) == (2, False)


def test_clip_names_of_other_spellings() -> None:
    assert clip.tidied("encoder.layers.0.mlp.fc1.bias", "transformers") == "text_model.encoder.layers.0.mlp.fc1.bias"
    assert clip.tidied("text_projection.weight", "transformers") == "text_projection.weight"
    assert clip.tidied("model.ln_final.bias", "openclip") == "ln_final.bias"
    names = ["text_model.embeddings.position_ids", "logit_scale", "attn_mask", "vision_model.encoder.x"]
    assert match((), names, clip.IGNORED["transformers"]).strange == ("attn_mask", "vision_model.encoder.x")
    assert match((), names, clip.IGNORED["openclip"]).strange == ("vision_model.encoder.x",)


def test_a_config_of_clip_whole_is_read() -> None:
    text = {"hidden_size": 20, "num_attention_heads": 2, "eos_token_id": 2}
    found = clip.from_config({"model_type": "clip", "text_config": text, "projection_dim": 24})
    assert (found.width, found.projection, found.end) == (20, 24, 49_407)
    assert clip.from_config(text).projection == 0


@st.composite
def unets(draw: st.DrawFn) -> SDUNetConfig:
    """Networks that diffusers can have: their middle is as deep as their last level."""
    levels = draw(st.integers(1, 4))
    depth = tuple(draw(st.lists(st.integers(0, 2), min_size=levels, max_size=levels)))
    heads = tuple(draw(st.lists(st.integers(1, 3), min_size=levels, max_size=levels)))
    return SDUNetConfig(
        channels_in=draw(st.integers(1, 9)),
        channels_out=draw(st.integers(1, 8)),
        size=draw(st.integers(1, 128)),
        channels=tuple(2 * each * draw(st.integers(1, 3)) for each in heads),
        blocks=draw(st.integers(1, 3)),
        depth=depth,
        middle=depth[-1] or draw(st.integers(1, 12)),
        heads=heads,
        text_width=draw(st.integers(1, 20)),
        added_width=draw(st.sampled_from([0, 5, 600])),
        guidance_width=draw(st.sampled_from([0, 6])),
        linear=draw(st.booleans()),
        groups=2,
    )


@few
@given(config=unets(), dtype=st.sampled_from(DTYPES))
def test_sd_unet(config: SDUNetConfig, dtype: torch.dtype) -> None:
    laws(sd_unet, SDUNet, config, {"heads": config.heads, "size": config.size, "groups": 2}, dtype)


@st.composite
def autoencoders(draw: st.DrawFn) -> LDMConfig:
    return LDMConfig(
        latent_channels=draw(st.integers(1, 32)),
        channels=tuple(draw(st.lists(st.sampled_from([2, 4, 6]), min_size=1, max_size=5))),
        blocks=draw(st.integers(1, 3)),
        scale=draw(st.sampled_from([0.18215, 0.13025, 1.0])),
        shift=draw(st.sampled_from([0.0, 0.1159])),
        moments=draw(st.booleans()),
        groups=2,
    )


@few
@given(config=autoencoders(), dtype=st.sampled_from(DTYPES))
def test_ldm(config: LDMConfig, dtype: torch.dtype) -> None:
    laws(ldm, LDMAutoencoder, config, {"scale": config.scale, "shift": config.shift, "groups": 2}, dtype)


def test_the_laws_see_a_table_with_a_wrong_row() -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> Any:
            return getattr(sd_unet, name)

    config = SDUNetConfig.tiny()
    hints = {"heads": config.heads, "size": config.size, "groups": config.groups}
    rows = {layout: list(sd_unet.table(config, layout)) for layout in sd_unet.LAYOUTS}
    first, second = (rows["original"][n] for n in (0, 2))
    changes = {
        "missing": rows["original"][1:],
        "twice": [*rows["original"], first],
        "one name of theirs for two": [first._replace(theirs=second.theirs), *rows["original"][1:]],
        "one name of ours for two": [first._replace(ours=second.ours), *rows["original"][1:]],
    }
    for name, change in changes.items():
        broken = Broken(name)
        tables = rows | {"original": change}
        broken.table = lambda _config, layout, tables=tables: tuple(tables[layout])  # type: ignore[attr-defined]
        with pytest.raises((AssertionError, UnnoiseError)):
            laws(broken, SDUNet, config, hints, torch.float32)
    laws(sd_unet, SDUNet, config, hints, torch.float32)


# what shapes and configs of others do not give


@pytest.mark.parametrize("layout", sd_unet.LAYOUTS)
def test_heads_are_hints(layout: str) -> None:
    theirs = file_of(sd_unet, SDUNet, SDUNetConfig(channels=(8, 16), depth=(1, 0), heads=(2, 2), groups=4), layout)
    assert sd_unet.from_shapes(theirs, layout, heads=4).heads == (4, 4)
    assert sd_unet.from_shapes(theirs, layout, head_width=4).heads == (2, 4)
    for hints in ({}, {"heads": 1, "head_width": 4}):
        with pytest.raises(ValueError, match="one of heads and head_width"):
            sd_unet.from_shapes(theirs, layout, **hints)
    with pytest.raises(UnnoiseError, match="3 values of heads"):
        sd_unet.from_shapes(theirs, layout, heads=(1, 2, 3))


@pytest.mark.parametrize("layout", sd_unet.LAYOUTS)
def test_other_networks_are_refused_by_their_shapes(layout: str) -> None:
    config = SDUNetConfig(channels=(8, 16), depth=(2, 1), middle=1, heads=(1, 1), groups=4)
    theirs = file_of(sd_unet, SDUNet, config, layout)
    attention = sd_unet.places(2, config.blocks, layout, config.depth)
    first = next(place.theirs for place in attention if place.ours == "up.0.attention.1")
    cases = {
        "transformers of different depths": f"{first}.transformer_blocks.1.",
        "no transformer in its middle": "middle_block.1." if layout == "original" else "mid_block.attentions.",
        "same number of blocks": "input_blocks.4." if layout == "original" else "down_blocks.",
        "is missing": "out.2." if layout == "original" else "conv_out.",
    }
    for message, prefix in cases.items():
        with pytest.raises(UnnoiseError, match=message):
            sd_unet.from_shapes({n: s for n, s in theirs.items() if not n.startswith(prefix)}, layout, heads=1)
    with pytest.raises(UnnoiseError, match=r"has the shape \[8\]"):
        sd_unet.from_shapes({n: s[:1] for n, s in theirs.items()}, layout, heads=1)
    with pytest.raises(UnnoiseError, match="latent diffusion"):
        ldm.from_shapes(theirs, layout)


def test_a_file_of_xl_with_convolutions_for_matrices() -> None:
    """As stable-diffusion.cpp writes it: its shapes say otherwise than the family, so the family is a hint."""
    config = SDUNetConfig(channels=(8, 16), depth=(0, 2), middle=2, heads=(1, 2), linear=True, groups=4)
    weights = numbers(on_meta(SDUNet, config), torch.float16)
    rows = sd_unet.table(config, "original")
    file = state_to_theirs(rows, weights)
    packed = {n: t[:, :, None, None] if ".proj_" in n and t.ndim == 2 else t for n, t in file.items()}
    assert not sd_unet.from_shapes(shapes(packed), "original", heads=1).linear
    assert sd_unet.from_shapes(shapes(packed), "original", heads=(1, 2), groups=4, linear=True) == config
    found = state_to_ours(rows, packed)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_older_names_of_the_autoencoder() -> None:
    older = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    for half, (old, new) in itertools.product(("encoder", "decoder"), older.items()):
        start = f"{half}.mid_block.attentions.0."
        assert ldm.tidied(f"{start}{old}.bias", "diffusers") == f"{start}{new}.bias"
        assert ldm.tidied(f"{start}{old}.bias", "original") == f"{start}{old}.bias"
    assert ldm.tidied("encoder.mid_block.attentions.0.group_norm.bias", "diffusers").endswith("group_norm.bias")


def test_a_network_that_no_other_program_has_is_not_written() -> None:
    plain = SDUNetConfig(channels=(8,), depth=(1,), heads=(1,), middle=2)
    with pytest.raises(UnnoiseError, match="of one depth, not 2 and 1"):
        sd_unet.to_config(plain)
    for change in ({"text_width": 0}, {"middle": 0}):
        with pytest.raises(UnnoiseError, match="has names elsewhere"):
            sd_unet.table(SDUNetConfig(**vars(plain) | change), "original")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_class_embeds", 1000),
        ("class_embed_type", "projection"),
        ("only_cross_attention", [True, True, True, False]),
        ("dual_cross_attention", True),
        ("addition_embed_type", "text_image"),
        ("addition_time_embed_dim", 128),
        ("resnet_time_scale_shift", "scale_shift"),
        ("reverse_transformer_layers_per_block", [[4, 4, 10], [2, 1, 1], 1]),
        ("mid_block_type", None),
        ("encoder_hid_dim", 1024),
        ("_class_name", "UNet2DModel"),
        ("layers_per_block", [1, 2, 2, 2]),
        ("cross_attention_dim", [768, 768, 768, 1024]),
        ("norm_num_groups", None),
        ("sample_size", [64, 96]),
        ("time_embedding_dim", 512),
        ("attention_head_dim", [5, 10]),
        ("block_out_channels", "320"),
        ("transformer_layers_per_block", [[1, 1], 2, 2, 2]),
        ("transformer_layers_per_block", [0, 1, 1, 1]),
        ("down_block_types", ["DownBlock2D"] * 4),
        ("down_block_types", ["AttnDownBlock2D"] * 4),
        ("in_channels", 10**9),
        ("in_channels", "4"),
    ],
)
def test_a_unet_that_ours_is_not_is_refused_by_name(setting: str, value: Any) -> None:
    good = sd_unet.to_config(SDUNetConfig())
    assert sd_unet.from_config(good) == SDUNetConfig()
    with pytest.raises(UnnoiseError) as error:
        sd_unet.from_config(good | {setting: value})
    field = {"block_out_channels": "block_out_channels", "norm_num_groups": "groups", "in_channels": "channels_in",
             "down_block_types": "blocks of a kind"}.get(setting, setting)  # fmt: skip
    depth = {"[0, 1, 1, 1]": "transformers without blocks", "[[1, 1], 2, 2, 2]": "depth"}
    assert depth.get(str(value), field) in str(error.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("latents_mean", [0.1, 0.2, 0.3, 0.4]),
        ("mid_block_add_attention", False),
        ("use_quant_conv", False),
        ("down_block_types", ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]),
        ("down_block_types", ["DownEncoderBlock2D"]),
        ("in_channels", 4),
        ("scaling_factor", "0.18"),
        ("_class_name", "AutoencoderTiny"),
    ],
)
def test_an_autoencoder_that_ours_is_not_is_refused_by_name(setting: str, value: Any) -> None:
    good = ldm.to_config(LDMConfig(channels=(8, 16)))
    with pytest.raises(UnnoiseError) as error:
        ldm.from_config(good | {setting: value})
    names = {"use_quant_conv": "quant_conv", "scaling_factor": "scale"}
    assert names.get(setting, "one width for each" if value == ["DownEncoderBlock2D"] else setting) in str(error.value)


def test_marks_and_leftovers_are_no_strange_weights() -> None:
    names = ["v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_mean", "v_pred.weight"]
    assert match((), names, sd_unet.IGNORED["original"]).strange == ("v_pred.weight",)
    assert match((), ["loss.logvar", "model_ema.decay", "x"], ldm.IGNORED["original"]).strange == ("x",)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=5,
)
GOOD = {
    sd_unet: sd_unet.to_config(SDUNetConfig.tiny()),
    ldm: ldm.to_config(LDMConfig.tiny()),
    clip: clip.to_config(CLIPTextConfig.tiny()),
}


@pytest.mark.slow
@pytest.mark.parametrize("names", GOOD)
@settings(few, max_examples=60)
@given(data=st.data())
def test_junk_in_a_config_is_refused_in_one_line(names: ModuleType, data: st.DataObject) -> None:
    good = GOOD[names]
    junk = data.draw(st.dictionaries(st.sampled_from(sorted(good)), JUNK, max_size=3))
    with contextlib.suppress(UnnoiseError):
        assert isinstance(names.from_config(good | junk), type(names.from_config(good)))


@pytest.mark.slow
@pytest.mark.parametrize("names", GOOD)
@settings(few, max_examples=40)
@given(data=st.data())
def test_junk_in_a_header_is_refused_in_one_line(names: ModuleType, data: st.DataObject) -> None:
    config, network = {sd_unet: (SDUNetConfig.tiny(), SDUNet), ldm: (LDMConfig.tiny(), LDMAutoencoder),
                       clip: (CLIPTextConfig.tiny(), CLIPText)}[names]  # fmt: skip
    layout = data.draw(st.sampled_from(names.LAYOUTS))
    file = file_of(names, network, config, layout)
    for name in data.draw(st.lists(st.sampled_from(sorted(file)), max_size=30)):
        file.pop(name, None)
    for name in data.draw(st.lists(st.sampled_from(sorted(file)), max_size=30)):
        file[name] = tuple(data.draw(st.lists(st.integers(0, 2**40), max_size=3)))
    hints = {"heads": 1} if names is sd_unet else {}
    with contextlib.suppress(UnnoiseError):
        rows = names.table(names.from_shapes(file, layout, **hints), layout)
        for row in match(rows, file).rows:
            shapes_to_ours(row, file[row.theirs])
