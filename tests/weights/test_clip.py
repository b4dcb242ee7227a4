"""CLIP's text tower against the transformers library, in both directions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.errors import UnnoiseError
from unnoise.weights.keys import state_to_ours, state_to_theirs
from unnoise.weights.names import clip

SHAPES = {
    "small": {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4},
    "deep": {"num_hidden_layers": 5, "hidden_size": 48, "intermediate_size": 40, "num_attention_heads": 3},
    "wide": {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "max_position_embeddings": 77},
}
BASE = {"vocab_size": 120, "num_hidden_layers": 2, "max_position_embeddings": 20}


def pair(activation: str, end: int, **shape: int) -> tuple[Any, CLIPText]:
    """(their tower with random weights, ours with the same)."""
    from transformers import CLIPTextConfig as TheirConfig
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    config = TheirConfig(**BASE | shape, hidden_act=activation, eos_token_id=end, bos_token_id=0, pad_token_id=1)
    theirs = CLIPTextModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = CLIPText(clip.from_config(config.to_dict())).eval()
    ours.load_state_dict(read(theirs.state_dict(), ours.config.depth))
    return theirs, ours


def read(state: dict[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """Our weights out of a file of transformers' names, for a tower of so many blocks."""
    named = {clip.tidied(name, "transformers"): tensor for name, tensor in state.items()}
    rows = clip.table(CLIPTextConfig(depth=depth), "transformers")
    return state_to_ours(rows, named, clip.IGNORED["transformers"])


def rows(config: CLIPTextConfig, padding: int) -> torch.Tensor:
    """Prompts of several lengths, each with one end, and padding after it."""
    ids = torch.randint(3, config.vocabulary - 1, (4, config.length), generator=torch.Generator().manual_seed(1))
    ids[ids == config.end] = 3
    for row, last in enumerate((1, 5, 9, config.length - 1)):
        ids[row, last] = config.end
        ids[row, last + 1 :] = padding
    return ids


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_says_what_transformers_says(shape: str, activation: str) -> None:
    theirs, ours = pair(activation, 50, **SHAPES[shape])
    for padding in (ours.config.end, 1, 60):
        ids = rows(ours.config, padding)
        with torch.no_grad():
            wanted, found = theirs(input_ids=ids), ours(ids)
        assert torch.allclose(found.tokens, wanted.last_hidden_state, rtol=0, atol=1e-5)
        assert torch.allclose(found.pooled, wanted.pooler_output, rtol=0, atol=1e-5)


def test_reads_older_configs() -> None:
    """An end of 2 stands for the vocabulary's last id there: the prompt's vector is read at the largest."""
    theirs, ours = pair("quick_gelu", 2)
    assert ours.config.end == 119
    for padding in (119, 0, 1):
        ids = rows(ours.config, padding)
        with torch.no_grad():
            assert torch.allclose(ours(ids).pooled, theirs(input_ids=ids).pooler_output, rtol=0, atol=1e-5)


def test_published_names_are_read() -> None:
    """Files on hubs have a prefix, which transformers 5 leaves out, and older ones hold the positions' numbers."""
    theirs, ours = pair("gelu", 50)
    bare = {name.removeprefix(clip.PREFIX): tensor for name, tensor in theirs.state_dict().items()}
    published = {clip.PREFIX + name: tensor for name, tensor in bare.items()}
    published["text_model.embeddings.position_ids"] = torch.arange(20)[None]
    for state in (bare, published):
        found = read(state, 2)
        assert found.keys() == ours.state_dict().keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in ours.state_dict().items())


def test_strange_and_missing_names_are_refused() -> None:
    theirs, ours = pair("gelu", 50)
    state = theirs.state_dict()
    last = next(name for name in state if name.endswith("final_layer_norm.bias"))
    with pytest.raises(UnnoiseError, match=r"unknown weight 'vision_model\.x'"):
        read({**state, "vision_model.x": torch.zeros(1)}, 2)
    with pytest.raises(UnnoiseError, match=r"weight 'text_model\.final_layer_norm\.bias' is missing"):
        read({n: t for n, t in state.items() if n != last}, 2)
    with pytest.raises(UnnoiseError, match="unknown weight"):
        read(state, 1)
    with pytest.raises(UnnoiseError, match="is missing"):
        read(state, 3)
    with pytest.raises(UnnoiseError, match=r"lacks the weight 'blocks\.2"):
        state_to_theirs(clip.table(CLIPTextConfig(depth=3), "transformers"), ours.state_dict())


def test_configs_of_the_wrong_kind_are_refused() -> None:
    values = dict.fromkeys(clip.CONFIG, 8) | {"hidden_act": "gelu"}
    assert clip.from_config(values).width == 8
    with pytest.raises(UnnoiseError, match="width"):
        clip.from_config({**values, "hidden_size": "8"})
    with pytest.raises(UnnoiseError, match="activation 'relu'"):
        clip.from_config({**values, "hidden_act": "relu"})
    with pytest.raises(UnnoiseError, match="model_type 't5'"):
        clip.from_config({**values, "model_type": "t5"})
    with pytest.raises(UnnoiseError, match="layer_norm_eps"):
        clip.from_config({**values, "layer_norm_eps": 1e-6})
