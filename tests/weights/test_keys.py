"""Key tables: rows in both directions, and for each part the laws of its tables over random small configs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.errors import UnnoiseError
from unnoise.weights.keys import (
    Row,
    count,
    match,
    shapes_to_ours,
    size,
    state_to_ours,
    state_to_theirs,
    to_ours,
    to_theirs,
)
from unnoise.weights.names import clip

few = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
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
    with torch.device("meta"):
        return network(config).state_dict()


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


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
    state, layout = weights, "ours"
    for layout in (*names.LAYOUTS, *reversed(names.LAYOUTS)):
        rows = names.table(config, layout)
        ours = [name for row in rows for name in row.ours]
        assert len(set(ours)) == len(ours)
        assert len({row.theirs for row in rows}) == len(rows)
        assert set(ours) == weights.keys()
        theirs = state_to_theirs(rows, state)
        assert all(names.tidied(name, layout) == name for name in theirs)
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
        theirs = state_to_theirs(clip.table(shape, layout), on_meta(CLIPText, shape))
        found = clip.from_shapes(shapes(theirs), layout, layer=2, masked=False)
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
