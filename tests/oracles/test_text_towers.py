"""The text tower against those of the transformers library, as Stable Diffusion 1, 2 and XL read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.errors import UnnoiseError

CLOSE = 1e-5  # of the largest difference over the largest value
BLOCK = {"norm1": "layer_norm1", "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
         "out": "self_attn.out_proj", "norm2": "layer_norm2", "up": "mlp.fc1", "down": "mlp.fc2"}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A tower as one family has it, at a small odd shape.

    Attributes:
        shape: its config in their names.
        ours: of our config, what is no part of that shape.
        end: the id in their config; 2 in old files, which stands for the largest id of a row.
        lengths: of the prompts in a batch, start and end included.
    """

    shape: dict[str, int]
    ours: dict[str, Any] = field(default_factory=dict)
    end: int = 2
    activation: str = "quick_gelu"
    projection: int = 0
    pad: int = -1
    lengths: tuple[int, ...] = (2, 77, 9)


SMALL = {"vocab_size": 101, "max_position_embeddings": 77, "num_hidden_layers": 4}
CASES = {
    "Stable Diffusion 1": Case({"hidden_size": 48, "intermediate_size": 192, "num_attention_heads": 3}),
    "of 1, with an end of today": Case({"hidden_size": 40, "intermediate_size": 72, "num_attention_heads": 5}, end=100),
    "Stable Diffusion 2": Case(
        {"hidden_size": 32, "intermediate_size": 100, "num_attention_heads": 2},
        {"layer": 2},
        activation="gelu",
        pad=0,
        lengths=(3, 30, 77, 2, 50),
    ),
    "L of XL": Case(
        {"hidden_size": 36, "intermediate_size": 60, "num_attention_heads": 3},
        {"layer": 2, "final_norm": False},
        lengths=(77,),
    ),
    "G of XL": Case(
        {"hidden_size": 56, "intermediate_size": 96, "num_attention_heads": 7, "num_hidden_layers": 5},
        {"layer": 2, "final_norm": False},
        activation="gelu",
        projection=44,
        pad=0,
        lengths=(5, 2, 61),
    ),
    "short rows, square projection": Case(
        {"hidden_size": 24, "intermediate_size": 25, "num_attention_heads": 1, "max_position_embeddings": 21},
        {"final_norm": False},
        activation="gelu",
        projection=24,
        lengths=(21, 4),
    ),
}


def pair(case: Case) -> tuple[Any, CLIPText]:
    """(their tower with random weights, ours with the same); no weight is zero, and no norm is 1."""
    from transformers import CLIPTextConfig as TheirConfig
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(11)
    shape = SMALL | case.shape
    config = TheirConfig(
        **shape, hidden_act=case.activation, projection_dim=case.projection, eos_token_id=case.end, bos_token_id=99
    )
    theirs = (CLIPTextModelWithProjection if case.projection else CLIPTextModel)(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    top = getattr(theirs, "text_model", theirs)
    ours = CLIPText(
        CLIPTextConfig(
            shape["vocab_size"],
            shape["max_position_embeddings"],
            shape["hidden_size"],
            shape["num_hidden_layers"],
            shape["num_attention_heads"],
            shape["intermediate_size"],
            case.activation,
            end=shape["vocab_size"] - 1,
            projection=case.projection,
            **{"masked": False} | case.ours,
        )
    ).eval()
    with torch.no_grad():
        ours.position.copy_(top.embeddings.position_embedding.weight)
        ours.token.load_state_dict(top.embeddings.token_embedding.state_dict())
        ours.norm.load_state_dict(top.final_layer_norm.state_dict())
        for block, layer in zip(ours.blocks, top.encoder.layers, strict=True):
            for name, path in BLOCK.items():
                block.get_submodule(name).load_state_dict(layer.get_submodule(path).state_dict())
        if ours.projection is not None:
            ours.projection.load_state_dict(theirs.text_projection.state_dict())
    return theirs, ours


def rows(case: Case, length: int) -> Tensor:
    """(B, length) ids: start, a random prompt, the end, and padding with the end or another id."""
    ids = torch.randint(1, 99, (len(case.lengths), length), generator=torch.Generator().manual_seed(3))
    ids[:, 0] = 99
    for row, count in enumerate(case.lengths):
        ids[row, count - 1] = 100
        ids[row, count:] = 100 if case.pad < 0 else case.pad
    return ids


def far(found: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest value."""
    return float(((found - wanted).abs().max() / wanted.abs().max()).detach())


@pytest.mark.parametrize("name", CASES)
def test_every_layer_and_the_prompt_s_vector_are_transformers_s(name: str) -> None:
    case = CASES[name]
    theirs, ours = pair(case)
    ids = rows(case, ours.config.length)
    with torch.no_grad():
        wanted = theirs(input_ids=ids, output_hidden_states=True)
        for layer in range(1, ours.config.depth + 1):
            found = ours(ids, layer=layer)
            hidden = wanted.hidden_states[-layer]
            norm = getattr(theirs, "text_model", theirs).final_layer_norm
            hidden = norm(hidden) if ours.config.final_norm else hidden
            assert far(found.tokens, hidden) < CLOSE, layer
            pooled = wanted.text_embeds if case.projection else wanted.pooler_output
            assert far(found.pooled, pooled) < CLOSE, "of the last layer, whatever the tokens are of"
            assert found.token_mask is None
        own = ours(ids)
    assert torch.equal(own.tokens, ours(ids, layer=ours.config.layer).tokens)
    other = ours.config.layer % ours.config.depth + 1
    assert far(ours(ids, layer=other).tokens, own.tokens) > 100 * CLOSE, "the control: layers differ"


def test_a_tower_without_its_end_reads_as_the_whole_one() -> None:
    """Diffusers' folders of Stable Diffusion 2 lack the last block, which its network does not read."""
    _, whole = pair(CASES["Stable Diffusion 2"])
    config = whole.config
    short = CLIPText(CLIPTextConfig(**vars(config) | {"depth": config.depth - 1, "cut": 1})).eval()
    short.load_state_dict(
        {n: t for n, t in whole.state_dict().items() if not n.startswith(f"blocks.{config.depth - 1}.")}
    )
    ids = rows(CASES["Stable Diffusion 2"], config.length)
    for layer in (None, 2, 3):
        assert torch.equal(short(ids, layer=layer).tokens, whole(ids, layer=layer).tokens)
    assert short(ids).pooled is None
    for tower, wrong in ((short, (1, 5, 0)), (whole, (0, 5, -1))):
        for layer in wrong:
            with pytest.raises(UnnoiseError, match=f"no layer {layer}, counted from its end"):
                tower(ids, layer=layer)
    with pytest.raises(UnnoiseError, match="no layer 1"):
        CLIPText(CLIPTextConfig(**vars(config) | {"depth": 3, "cut": 1, "layer": 1}))


@pytest.mark.parametrize("name", ["Stable Diffusion 1", "G of XL"])
def test_the_control_another_activation_or_end_is_seen(name: str) -> None:
    case = CASES[name]
    theirs, ours = pair(case)
    ids = rows(case, 77)
    with torch.no_grad():
        wanted = theirs(input_ids=ids)
    pooled = wanted.text_embeds if case.projection else wanted.pooler_output
    other = "gelu" if case.activation == "quick_gelu" else "quick_gelu"
    for change in ({"activation": other}, {"end": 99}):
        wrong = CLIPText(CLIPTextConfig(**vars(ours.config) | change)).eval()
        wrong.load_state_dict(ours.state_dict())
        assert far(wrong(ids).pooled, pooled) > 100 * CLOSE
