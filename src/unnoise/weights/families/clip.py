"""CLIP's text tower: its weights under the names of the transformers library, and under ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unnoise.encoders.clip_text import ACTIVATIONS, CLIPTextConfig
from unnoise.errors import UnnoiseError
from unnoise.weights.config import from_json

TOP = {
    "token.weight": "embeddings.token_embedding.weight",
    "position": "embeddings.position_embedding.weight",
    "norm.weight": "final_layer_norm.weight",
    "norm.bias": "final_layer_norm.bias",
}
BLOCK = {
    "norm1": "layer_norm1",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
CONFIG = {
    "vocab_size": "vocabulary",
    "max_position_embeddings": "length",
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "intermediate_size": "hidden",
    "hidden_act": "activation",
    "eos_token_id": "end",
}
PREFIX = "text_model."  # of every name in published files; transformers 5 writes none
POSITIONS = "embeddings.position_ids"  # 0, 1, 2, ... in older files: no weight
LEGACY_END = (
    2  # what older configs say of the end; they read the prompt at its largest id, which is the vocabulary's last
)


def table(depth: int) -> dict[str, str]:
    """Our name -> theirs, for a tower of so many blocks."""
    blocks = {
        f"blocks.{number}.{ours}.{kind}": f"encoder.layers.{number}.{theirs}.{kind}"
        for number in range(depth)
        for ours, theirs in BLOCK.items()
        for kind in ("weight", "bias")
    }
    return TOP | blocks


def config_from(values: Mapping[str, Any]) -> CLIPTextConfig:
    """Our config from their ``config.json``; entries on other things than the tower's shape are passed over.

    Raises:
        UnnoiseError: a value is missing, of the wrong type, or an activation that ours has not.
    """
    missing = CONFIG.keys() - values.keys()
    if missing:
        raise UnnoiseError(f"the CLIP config has no {sorted(missing)[0]}", "use the text tower's own config.json")
    named = {ours: values[theirs] for theirs, ours in CONFIG.items()}
    config: CLIPTextConfig = from_json(CLIPTextConfig, named, "config.json")
    if config.activation not in ACTIVATIONS:
        raise UnnoiseError(f"config.json has the activation {config.activation!r}", f"one of: {', '.join(ACTIVATIONS)}")
    legacy = {"end": config.vocabulary - 1} if config.end == LEGACY_END else {}
    return CLIPTextConfig(**named | legacy)


def from_transformers(state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """A ``CLIPTextModel``'s weights under our names.

    Raises:
        UnnoiseError: a key is unknown or missing.
    """
    bare = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    bare.pop(POSITIONS, None)
    return _renamed(bare, {theirs: ours for ours, theirs in table(depth).items()})


def to_transformers(state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Our ``CLIPText``'s weights under the names of a ``CLIPTextModel``.

    Raises:
        UnnoiseError: a key is unknown or missing.
    """
    return _renamed(state, table(depth))


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    strange, missing = sorted(state.keys() - names.keys()), sorted(names.keys() - state.keys())
    if strange:
        raise UnnoiseError(f"the CLIP text tower has the unknown weight {strange[0]!r}", "check the number of blocks")
    if missing:
        raise UnnoiseError(f"the CLIP text tower lacks the weight {missing[0]!r}", "copy the model again")
    return {names[name]: tensor for name, tensor in state.items()}
