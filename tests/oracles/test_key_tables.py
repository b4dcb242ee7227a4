"""Key tables against the modules and the converters of diffusers and transformers, and key lists that others published.

The full lists of names and shapes come from there alone: modules are built on the meta device from configs as they were
published, and files in the original layout are opened by diffusers' own converter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unnoise.encoders.clip_text import CLIPText
from unnoise.weights.keys import Row, shapes_to_ours, state_to_theirs
from unnoise.weights.names import clip

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
# SHA-256 of the sorted lines "name [shape]" of the lists that others read from published files
PUBLISHED = {  # of stable-diffusion-webui-model-toolkit (MIT): the tower of Waifu Diffusion 1.4 and 2
    "OpenCLIP-H of 23 blocks": "ad2aa65b2f8e88180147cf83b2ac0aca6992bdcfd96f7fdbd0b49d2666c45b38",
}

Shapes = Mapping[str, tuple[int, ...]]


def meta(make: Any, *args: Any) -> nn.Module:
    with torch.device("meta"):
        module: nn.Module = make(*args)
    return module


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


def digest(state: Mapping[str, Tensor]) -> str:
    """Of names and shapes, as ``PUBLISHED`` has it."""
    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in state.items())
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
    ours = shapes(meta(CLIPText, config).state_dict())
    rows = clip.table(config, "transformers")
    assert faults(rows, theirs, ours) == []
    assert clip.from_shapes(theirs, "transformers") == config
    assert_controls(rows, theirs, ours)
    again = clip.to_config(config)
    assert shapes(tower(again).state_dict()) == shapes(tower(TOWERS[name]).state_dict())


def test_clip_has_the_published_list_of_openclip_s_names() -> None:
    config = clip.from_config(COMMON | TOWERS["OpenCLIP-H of 23 blocks"])
    theirs = state_to_theirs(clip.table(config, "openclip"), meta(CLIPText, config).state_dict())
    assert digest(theirs) == PUBLISHED["OpenCLIP-H of 23 blocks"]
    assert digest(dict(list(theirs.items())[1:])) != PUBLISHED["OpenCLIP-H of 23 blocks"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TOWERS if name.startswith("OpenCLIP")])
def test_diffusers_converter_opens_our_openclip_names(name: str) -> None:
    """Each weight arrives where our table for transformers' names has it, q, k and v in their order."""
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    config = clip.from_config(COMMON | TOWERS[name])
    weights = numbered(meta(CLIPText, config).state_dict())
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
    weights = {n: torch.randn(t.shape) for n, t in meta(CLIPText, config).state_dict().items()}
    prefix = "conditioner.embedders.0.model."
    file = {prefix + n: t for n, t in state_to_theirs(clip.table(config, "openclip"), weights).items()}
    found = convert_open_clip_checkpoint(tower(values), file, prefix)
    wanted = state_to_theirs(clip.table(config, "transformers"), weights)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert not torch.equal(file[f"{prefix}text_projection"], wanted["text_projection.weight"])
