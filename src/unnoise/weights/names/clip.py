"""CLIP's text tower: its weights under transformers' names, OpenCLIP's and ours.

Transformers' bare names begin with ``text_model.``, as published files have them; version 5 of that library writes some
without it, which ``tidied`` mends. OpenCLIP's are those of its ``CLIP`` class without the image's half.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unnoise.encoders.clip_text_config import ACTIVATIONS, CLIPTextConfig
from unnoise.errors import UnnoiseError
from unnoise.weights.config import check_extent, check_only, from_json
from unnoise.weights.keys import Row, Shape, count, layers, size

LAYOUTS = ("transformers", "openclip")
PREFIX = "text_model."
IGNORED = {
    "transformers": (r"\.position_ids$", r"^logit_scale$"),  # 0, 1, 2, ... in older files; the pair's temperature
    "openclip": (r"(^|\.)position_ids$", r"^logit_(scale|bias)$", r"^attn_mask$"),
}
TOP = {
    "transformers": {
        "token.weight": f"{PREFIX}embeddings.token_embedding.weight",
        "position": f"{PREFIX}embeddings.position_embedding.weight",
        "norm.weight": f"{PREFIX}final_layer_norm.weight",
        "norm.bias": f"{PREFIX}final_layer_norm.bias",
    },
    "openclip": {
        "token.weight": "token_embedding.weight",
        "position": "positional_embedding",
        "norm.weight": "ln_final.weight",
        "norm.bias": "ln_final.bias",
    },
}
BLOCKS = {"transformers": f"{PREFIX}encoder.layers.", "openclip": "transformer.resblocks."}
BLOCK = {
    "transformers": {
        "norm1": "layer_norm1", "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
        "out": "self_attn.out_proj", "norm2": "layer_norm2", "up": "mlp.fc1", "down": "mlp.fc2",
    },
    "openclip": {
        "norm1": "ln_1", "out": "attn.out_proj", "norm2": "ln_2", "up": "mlp.c_fc", "down": "mlp.c_proj",
    },
}  # fmt: skip
PROJECTION = {  # OpenCLIP multiplies the vector by its matrix from the right
    "transformers": Row(("projection.weight",), "text_projection.weight"),
    "openclip": Row(("projection.weight",), "text_projection", "transposed"),
}
CONFIG = {  # {transformers' field: (ours, its default there)}
    "vocab_size": ("vocabulary", 49_408),
    "max_position_embeddings": ("length", 77),
    "hidden_size": ("width", 512),
    "num_hidden_layers": ("depth", 12),
    "num_attention_heads": ("heads", 8),
    "intermediate_size": ("hidden", 2048),
    "hidden_act": ("activation", "quick_gelu"),
    "eos_token_id": ("end", 49_407),
}
ONLY = {
    "model_type": (("clip_text_model",), "another network than CLIP's text tower"),
    "layer_norm_eps": ((1e-5,), "another epsilon in its norms"),
}
MAX_DEPTH = 128  # published: 32
HEAD_WIDTH = 64  # of every published tower
LEGACY_END = (
    2  # what older configs say of the end; they read the prompt at its largest id, which is the vocabulary's last
)
WHERE = "the text tower's config.json"


def table(config: CLIPTextConfig, layout: str) -> tuple[Row, ...]:
    """Where each weight of a ``CLIPText`` lies in files of a layout."""
    rows = [Row((ours,), theirs) for ours, theirs in TOP[layout].items()]
    for number in range(config.depth):
        ours, theirs = f"blocks.{number}.", f"{BLOCKS[layout]}{number}."
        rows += layers(ours, theirs, BLOCK[layout])
        if layout == "openclip":
            for kind in ("weight", "bias"):
                stacked = tuple(f"{ours}{name}.{kind}" for name in ("query", "key", "value"))
                rows.append(Row(stacked, f"{theirs}attn.in_proj_{kind}", "rows"))
    return (*rows, *([PROJECTION[layout]] if config.projection else []))


def tidied(name: str, layout: str) -> str:
    """Today's spelling of a bare name."""
    if layout == "openclip":
        return name.removeprefix("model.")
    return PREFIX + name if re.match(r"(embeddings|encoder|final_layer_norm)\.", name) else name


def from_shapes(
    shapes: Mapping[str, Shape], layout: str, heads: int | None = None, activation: str = "", **hints: Any
) -> CLIPTextConfig:
    """The config of a tower by the shapes of its weights, under bare and tidied names.

    Args:
        shapes: of all of its weights.
        layout: whose names they are.
        heads: shapes do not show them; of 64 channels each if not given, as all published towers have them.
        activation: shapes do not show it; if not given OpenAI's in a tower as wide as that of CLIP-L (768) under
            transformers' names, else "gelu", as all of OpenCLIP have it.
        hints: other settings that shapes do not show, such as ``layer`` and ``masked``.

    Raises:
        UnnoiseError: a weight is missing or has a strange shape.
    """
    top, first = TOP[layout], f"{BLOCKS[layout]}0.{BLOCK[layout]['up']}.weight"
    width = size(shapes, top["token.weight"], 1)
    vocabulary, projection = size(shapes, top["token.weight"], 0), PROJECTION[layout].theirs
    values = {
        "vocabulary": vocabulary,
        "length": size(shapes, top["position"], 0),
        "width": width,
        "depth": count(shapes, BLOCKS[layout]),
        "heads": heads or max(1, width // HEAD_WIDTH),
        "hidden": size(shapes, first, 0),
        "activation": activation or ("quick_gelu" if width == 768 and layout == "transformers" else "gelu"),
        "end": vocabulary - 1,
        "projection": size(shapes, projection, 0 if layout == "transformers" else 1) if projection in shapes else 0,
    }
    config: CLIPTextConfig = from_json(CLIPTextConfig, values | hints, "the text tower")
    return config


def from_config(values: Mapping[str, Any]) -> CLIPTextConfig:
    """The config of a tower by transformers' ``config.json``, of a tower or of CLIP whole; what is absent has their
    default. What pipelines do with the tower (``layer``, ``masked``, ``pad``, ``cut``) does not stand there.

    Raises:
        UnnoiseError: a setting means something that our tower does not do, or is of a wrong type.
    """
    whole = values.get("text_config")
    if isinstance(whole, Mapping):
        values = {"architectures": ["CLIPModel"], "projection_dim": values.get("projection_dim", 512), **whole}
    check_only(values, ONLY, WHERE)
    named = {ours: values.get(theirs, default) for theirs, (ours, default) in CONFIG.items()}
    classes = str(values.get("architectures"))
    projected = "CLIPTextModelWithProjection" in classes or "CLIPModel" in classes
    named["projection"] = values.get("projection_dim", 512) if projected else 0
    config: CLIPTextConfig = from_json(CLIPTextConfig, named, WHERE)
    check_extent(WHERE, num_hidden_layers=(config.depth, MAX_DEPTH))
    if config.activation not in ACTIVATIONS:
        raise UnnoiseError(f"{WHERE} has the activation {config.activation!r}", f"one of: {', '.join(ACTIVATIONS)}")
    legacy = {"end": config.vocabulary - 1} if config.end == LEGACY_END else {}
    return CLIPTextConfig(**named | legacy)


def to_config(config: CLIPTextConfig) -> dict[str, Any]:
    """Transformers' ``config.json`` of the same tower."""
    return {
        "architectures": ["CLIPTextModelWithProjection" if config.projection else "CLIPTextModel"],
        "model_type": "clip_text_model",
        **{theirs: getattr(config, ours) for theirs, (ours, _) in CONFIG.items()},
        "bos_token_id": config.end - 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1 if config.pad is None else config.pad,
        "projection_dim": config.projection or config.width,
    }
