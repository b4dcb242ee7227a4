"""CLIP's text tower against the transformers library, in both directions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.errors import UnnoiseError
from unnoise.weights.families import clip

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
    ours = CLIPText(clip.config_from(config.to_dict())).eval()
    ours.load_state_dict(clip.from_transformers(theirs.state_dict(), ours.config.depth))
    return theirs, ours


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


def test_round_trip_is_exact() -> None:
    theirs, ours = pair("gelu", 50)
    state = theirs.state_dict()
    back = clip.to_transformers(ours.state_dict(), 2)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    again = clip.from_transformers(back, 2)
    assert again.keys() == ours.state_dict().keys()


def test_the_table_is_a_bijection() -> None:
    table = clip.table(12)
    assert len(set(table.values())) == len(table) == 4 + 12 * 16
    assert table.keys() == CLIPText(CLIPTextConfig(depth=12, width=8, heads=2, hidden=8)).state_dict().keys()


def test_published_names_are_read() -> None:
    """Files on hubs have a prefix, and older ones hold the positions' numbers."""
    theirs, ours = pair("gelu", 50)
    published = {f"text_model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    published["text_model.embeddings.position_ids"] = torch.arange(20)[None]
    found = clip.from_transformers(published, 2)
    assert all(torch.equal(found[name], tensor) for name, tensor in ours.state_dict().items())


def test_strange_and_missing_names_are_refused() -> None:
    state = pair("gelu", 50)[0].state_dict()
    with pytest.raises(UnnoiseError, match=r"unknown weight 'vision_model\.x'"):
        clip.from_transformers({**state, "vision_model.x": torch.zeros(1)}, 2)
    with pytest.raises(UnnoiseError, match=r"lacks the weight 'final_layer_norm\.bias'"):
        clip.from_transformers({n: t for n, t in state.items() if n != "final_layer_norm.bias"}, 2)
    with pytest.raises(UnnoiseError, match="unknown weight"):
        clip.from_transformers(state, 1)
    with pytest.raises(UnnoiseError, match="lacks the weight"):
        clip.from_transformers(state, 3)


def test_configs_of_the_wrong_kind_are_refused() -> None:
    values = dict.fromkeys(clip.CONFIG, 8) | {"hidden_act": "gelu"}
    assert clip.config_from(values).width == 8
    with pytest.raises(UnnoiseError, match="no hidden_act"):
        clip.config_from({n: v for n, v in values.items() if n != "hidden_act"})
    with pytest.raises(UnnoiseError, match="width"):
        clip.config_from({**values, "hidden_size": "8"})
    with pytest.raises(UnnoiseError, match="activation 'relu'"):
        clip.config_from({**values, "hidden_act": "relu"})
