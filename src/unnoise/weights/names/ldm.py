"""The autoencoder of latent diffusion: its weights under the original names, diffusers' and ours.

The original names are those of CompVis' ``autoencoder.py`` without the prefix ``first_stage_model.``; diffusers' are
those of ``AutoencoderKL``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from unnoise.autoencoders.ldm_config import LDMConfig
from unnoise.errors import UnnoiseError
from unnoise.weights.config import check_extent, check_only, from_json
from unnoise.weights.keys import Row, Shape, count, layers, matrices, size

LAYOUTS = ("original", "diffusers")
IGNORED = {"original": (r"^loss\.", r"^model_ema\."), "diffusers": ()}  # the judge it was trained with; its averages
TOP = {
    "original": {
        "encoder.enter": "encoder.conv_in", "encoder.norm": "encoder.norm_out", "encoder.leave": "encoder.conv_out",
        "decoder.enter": "decoder.conv_in", "decoder.norm": "decoder.norm_out", "decoder.leave": "decoder.conv_out",
    },
    "diffusers": {
        "encoder.enter": "encoder.conv_in", "encoder.norm": "encoder.conv_norm_out",
        "encoder.leave": "encoder.conv_out",
        "decoder.enter": "decoder.conv_in", "decoder.norm": "decoder.conv_norm_out",
        "decoder.leave": "decoder.conv_out",
    },
}  # fmt: skip
MOMENTS = {"moments": "quant_conv", "latent": "post_quant_conv"}  # in both layouts
RESIDUAL = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2"}  # in both layouts
SKIP = {"original": {"skip": "nin_shortcut"}, "diffusers": {"skip": "conv_shortcut"}}
MIDDLE = {
    "original": {"residual.0": "block_1", "attention": "attn_1", "residual.1": "block_2"},
    "diffusers": {"residual.0": "resnets.0", "attention": "attentions.0", "residual.1": "resnets.1"},
}
NORM = {"original": {"norm": "norm"}, "diffusers": {"norm": "group_norm"}}
ATTENTION = {
    "original": {"query": "q", "key": "k", "value": "v", "out": "proj_out"},
    "diffusers": {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"},
}
OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # diffusers' names before 0.17
NO_FIELD = "which this autoencoder does not do"
ONLY = {
    "_class_name": (("AutoencoderKL",), "another autoencoder"),
    "act_fn": (("silu", "swish"), "another activation"),
    "down_block_types": (("DownEncoderBlock2D",), f"blocks of another kind, {NO_FIELD}"),
    "in_channels": ((3,), "something else than pictures"),
    "latents_mean": ((None,), f"a mean for each channel, as Playground 2.5 has it, {NO_FIELD}"),
    "latents_std": ((None,), f"a spread for each channel, as Playground 2.5 has it, {NO_FIELD}"),
    "mid_block_add_attention": ((True,), "a middle without attention"),
    "out_channels": ((3,), "something else than pictures"),
    "up_block_types": (("UpDecoderBlock2D",), f"blocks of another kind, {NO_FIELD}"),
}
WHERE = "the autoencoder's config.json"
MAX_LEVELS, MAX_BLOCKS = 8, 16  # published: 4, 2


def places(levels: int, blocks: int, layout: str) -> Iterator[tuple[str, int, str, str]]:
    """The modules on the two ways, as (kind, level, our prefix, theirs): residual blocks, ``shrink`` and ``grow``.

    Levels count resolutions, 0 at full size. Diffusers' list of the decoder begins at the smallest.
    """
    original = layout == "original"
    for level in range(levels):
        theirs = f"encoder.down.{level}." if original else f"encoder.down_blocks.{level}."
        for i in range(blocks):
            block = f"{theirs}block.{i}" if original else f"{theirs}resnets.{i}"
            yield "residual", level, f"encoder.down.{level}.residual.{i}", block
        if level < levels - 1:
            shrink = "downsample.conv" if original else "downsamplers.0.conv"
            yield "shrink", level, f"encoder.down.{level}.shrink", theirs + shrink
    for level in reversed(range(levels)):
        theirs = f"decoder.up.{level}." if original else f"decoder.up_blocks.{levels - 1 - level}."
        for i in range(blocks + 1):
            block = f"{theirs}block.{i}" if original else f"{theirs}resnets.{i}"
            yield "residual", level, f"decoder.up.{level}.residual.{i}", block
        if level:
            grow = "upsample.conv" if original else "upsamplers.0.conv"
            yield "grow", level, f"decoder.up.{level}.grow", theirs + grow


def table(config: LDMConfig, layout: str) -> tuple[Row, ...]:
    """Where each weight of an ``LDMAutoencoder`` lies in files of a layout."""
    rows = layers("", "", TOP[layout] | (MOMENTS if config.moments else {}))
    for kind, level, ours, theirs in places(len(config.channels), config.blocks, layout):
        if kind == "residual":
            skip = SKIP[layout] if _widens(config, level, ours) else {}
            rows += layers(f"{ours}.", f"{theirs}.", RESIDUAL | skip)
        else:
            rows += layers("", "", {ours: theirs})
    for half in ("encoder", "decoder"):
        below = f"{half}.mid." if layout == "original" else f"{half}.mid_block."
        for ours, theirs in MIDDLE[layout].items():
            a, b = f"{half}.mid.{ours}.", f"{below}{theirs}."
            if ours == "attention":
                rows += layers(a, b, NORM[layout])
                rows += matrices(a, b, ATTENTION[layout], "conv" if layout == "original" else "linear")
            else:
                rows += layers(a, b, RESIDUAL)
    return tuple(rows)


def _widens(config: LDMConfig, level: int, ours: str) -> bool:
    """Whether a residual block changes the number of channels: the first of a level may."""
    before = level - 1 if ours.startswith("encoder.") else level + 1
    first = ours.endswith(".residual.0") and 0 <= before < len(config.channels)
    return first and config.channels[before] != config.channels[level]


def tidied(name: str, layout: str) -> str:
    """Today's spelling of a bare name."""
    before, dot, last = name.rpartition(".")
    above, between, kind = before.rpartition(".")
    if layout == "diffusers" and kind in OLDER and above.endswith("mid_block.attentions.0"):
        return above + between + OLDER[kind] + dot + last
    return name


def from_shapes(shapes: Mapping[str, Shape], layout: str, **hints: Any) -> LDMConfig:
    """The config of an autoencoder by the shapes of its weights, under bare and tidied names.

    Args:
        shapes: of all of its weights.
        layout: whose names they are.
        hints: settings that shapes do not show: ``scale``, ``shift``, ``groups``.

    Raises:
        UnnoiseError: a weight is missing or has a strange shape.
    """
    below = "encoder.down." if layout == "original" else "encoder.down_blocks."
    levels = count(shapes, below)
    blocks = count(shapes, f"{below}0.block." if layout == "original" else f"{below}0.resnets.")
    if not levels or not blocks:
        raise UnnoiseError("the weights are not those of an autoencoder of latent diffusion", "use another file")
    check_extent("the autoencoder", levels=(levels, MAX_LEVELS), blocks=(blocks, MAX_BLOCKS))
    channels = [0] * levels
    for kind, level, _, theirs in places(levels, blocks, layout):
        if kind == "residual":
            channels[level] = size(shapes, f"{theirs}.conv1.weight", 0)
    values = {
        "latent_channels": size(shapes, "decoder.conv_in.weight", 1),
        "channels": tuple(channels),
        "blocks": blocks,
        "moments": "quant_conv.weight" in shapes,
    }
    config: LDMConfig = from_json(LDMConfig, values | hints, "the autoencoder")
    return config


def from_config(values: Mapping[str, Any]) -> LDMConfig:
    """The config of an autoencoder by diffusers' ``config.json``; what is absent there has diffusers' default.

    Raises:
        UnnoiseError: a setting means something that our autoencoder does not do, or is of a wrong type.
    """
    check_only(values, ONLY, WHERE)
    channels = values.get("block_out_channels", (64,))
    kinds = values.get("down_block_types", ("DownEncoderBlock2D",))
    if not isinstance(channels, list | tuple) or not isinstance(kinds, list | tuple) or len(kinds) != len(channels):
        raise UnnoiseError(f"{WHERE} has not one width for each of its blocks", "copy the model again")
    moments = values.get("use_quant_conv", True)
    if values.get("use_post_quant_conv", True) != moments:
        raise UnnoiseError(f"{WHERE} has one of quant_conv and post_quant_conv alone", "use another model")
    named = {
        "latent_channels": values.get("latent_channels", 4),
        "channels": channels,
        "blocks": values.get("layers_per_block", 1),
        "scale": values.get("scaling_factor", 0.18215),
        "shift": values.get("shift_factor") or 0.0,
        "moments": moments,
        "groups": values.get("norm_num_groups", 32),
    }
    config: LDMConfig = from_json(LDMConfig, named, WHERE)
    check_extent(WHERE, levels=(len(config.channels), MAX_LEVELS), layers_per_block=(config.blocks, MAX_BLOCKS))
    if not (math.isfinite(config.scale) and config.scale > 0 and math.isfinite(config.shift)):
        what = f"{WHERE} has the scaling_factor {config.scale:g} and the shift_factor {config.shift:g}"
        raise UnnoiseError(what, "a scale is positive, and both are finite: copy the model again")
    return config


def to_config(config: LDMConfig) -> dict[str, Any]:
    """Diffusers' ``config.json`` of the same autoencoder."""
    levels = len(config.channels)
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": list(config.channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "in_channels": 3,
        "latent_channels": config.latent_channels,
        "layers_per_block": config.blocks,
        "norm_num_groups": config.groups,
        "out_channels": 3,
        "scaling_factor": config.scale,
        "shift_factor": config.shift or None,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "use_post_quant_conv": config.moments,
        "use_quant_conv": config.moments,
    }
