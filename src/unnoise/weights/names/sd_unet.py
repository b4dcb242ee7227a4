"""The U-Net of Stable Diffusion 1, 2 and XL: its weights under the original names, diffusers' and ours.

The original names are those of CompVis' ``openaimodel.py`` without the prefix ``model.diffusion_model.``; diffusers'
are those of ``UNet2DConditionModel``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from unnoise.errors import UnnoiseError
from unnoise.networks.sd_unet_config import SDUNetConfig
from unnoise.weights.config import check_extent, from_json
from unnoise.weights.keys import Row, Shape, count, layers, matrices, size
from unnoise.weights.names.sd_unet_config import MAX_BLOCKS, MAX_LEVELS, per_level
from unnoise.weights.names.sd_unet_config import from_config as from_config
from unnoise.weights.names.sd_unet_config import to_config as to_config

LAYOUTS = ("original", "diffusers")
IGNORED = {
    "original": (r"^(v_pred|ztsnr)$", r"^edm_(vpred|mean|std)"),  # marks of the prediction, beside the weights
    "diffusers": (),
}
TOP = {
    "original": {
        "time.0": "time_embed.0", "time.2": "time_embed.2", "enter": "input_blocks.0.0",
        "leave.norm": "out.0", "leave.conv": "out.2",
    },
    "diffusers": {
        "time.0": "time_embedding.linear_1", "time.2": "time_embedding.linear_2", "enter": "conv_in",
        "leave.norm": "conv_norm_out", "leave.conv": "conv_out",
    },
}  # fmt: skip
ADDED = {
    "original": {"added.0": "label_emb.0.0", "added.2": "label_emb.0.2"},
    "diffusers": {"added.0": "add_embedding.linear_1", "added.2": "add_embedding.linear_2"},
}
GUIDED = {"original": {"guided": "time_embed.cond_proj"}, "diffusers": {"guided": "time_embedding.cond_proj"}}
RESIDUAL = {
    "original": {
        "norm1": "in_layers.0", "conv1": "in_layers.2", "level": "emb_layers.1",
        "norm2": "out_layers.0", "conv2": "out_layers.3",
    },
    "diffusers": {
        "norm1": "norm1", "conv1": "conv1", "level": "time_emb_proj", "norm2": "norm2", "conv2": "conv2",
    },
}  # fmt: skip
SKIP = {"original": {"skip": "skip_connection"}, "diffusers": {"skip": "conv_shortcut"}}
ENDS = {"enter": "proj_in", "leave": "proj_out"}  # around the blocks of a transformer, in both layouts
BLOCK = {
    "norm1": "norm1", "self_attention.out": "attn1.to_out.0",
    "norm2": "norm2", "cross_attention.out": "attn2.to_out.0",
    "norm3": "norm3", "mlp.up": "ff.net.0.proj", "mlp.down": "ff.net.2",
}  # fmt: skip
PROJECTIONS = {  # without biases
    f"{ours}.{name}": f"{theirs}.to_{name[0]}"
    for ours, theirs in (("self_attention", "attn1"), ("cross_attention", "attn2"))
    for name in ("query", "key", "value")
}


class Place(NamedTuple):
    """A module of the network: its kind, the level that it is on, our prefix and theirs."""

    kind: str
    level: int
    ours: str
    theirs: str


def places(levels: int, blocks: int, layout: str, depth: Sequence[int]) -> Iterator[Place]:
    """The modules between the first and the last convolution: residual blocks, transformers, ``shrink`` and ``grow``.

    Levels count resolutions, 0 at full size. On the way up there is one more residual block on each, and the lists of
    others begin at the smallest. A transformer is listed where it would be, also on levels of depth 0.
    """
    original = layout == "original"
    for level in range(levels):
        for i in range(blocks):
            n = level * (blocks + 1) + i + 1  # in the list of original names, which has one entry for each skip
            residual, attention = f"input_blocks.{n}.0", f"input_blocks.{n}.1"
            if not original:
                residual, attention = f"down_blocks.{level}.resnets.{i}", f"down_blocks.{level}.attentions.{i}"
            yield Place("residual", level, f"down.{level}.residual.{i}", residual)
            yield Place("attention", level, f"down.{level}.attention.{i}", attention)
        if level < levels - 1:
            n = (level + 1) * (blocks + 1)
            shrink = f"input_blocks.{n}.0.op" if original else f"down_blocks.{level}.downsamplers.0.conv"
            yield Place("shrink", level, f"down.{level}.shrink", shrink)
    for i in (0, 1):
        yield Place(
            "mid", levels - 1, f"mid.residual.{i}", f"middle_block.{2 * i}" if original else f"mid_block.resnets.{i}"
        )
    yield Place("middle", levels - 1, "mid.attention", "middle_block.1" if original else "mid_block.attentions.0")
    for turn, level in enumerate(reversed(range(levels))):
        for i in range(blocks + 1):
            n = turn * (blocks + 1) + i
            residual, attention = f"output_blocks.{n}.0", f"output_blocks.{n}.1"
            if not original:
                residual, attention = f"up_blocks.{turn}.resnets.{i}", f"up_blocks.{turn}.attentions.{i}"
            yield Place("residual", level, f"up.{level}.residual.{i}", residual)
            yield Place("attention", level, f"up.{level}.attention.{i}", attention)
        if level:
            n = turn * (blocks + 1) + blocks
            grow = f"output_blocks.{n}.{2 if depth[level] else 1}.conv"
            yield Place("grow", level, f"up.{level}.grow", grow if original else f"up_blocks.{turn}.upsamplers.0.conv")


def table(config: SDUNetConfig, layout: str) -> tuple[Row, ...]:
    """Where each weight of an ``SDUNet`` lies in files of a layout.

    Raises:
        UnnoiseError: the network reads no prompt, or has no transformer in its middle: no other program has such.
    """
    if not config.text_width or not config.middle:
        raise UnnoiseError(
            "only a U-Net with a prompt and a transformer in its middle has names elsewhere", "keep it as it is"
        )
    rows = layers("", "", TOP[layout])
    if config.added_width:
        rows += layers("", "", ADDED[layout])
    if config.guidance_width:
        rows += layers("", "", GUIDED[layout], ("weight",))
    for place in places(len(config.channels), config.blocks, layout, config.depth):
        ours, theirs = f"{place.ours}.", f"{place.theirs}."
        if place.kind in ("residual", "mid"):
            skip = SKIP[layout] if _widens(config, place) else {}
            rows += layers(ours, theirs, RESIDUAL[layout] | skip)
        elif place.kind in ("attention", "middle"):
            depth = config.middle if place.kind == "middle" else config.depth[place.level]
            rows += transformer(ours, theirs, depth, config.linear) if depth else []
        else:
            rows += layers("", "", {place.ours: place.theirs})
    return tuple(rows)


def transformer(ours: str, theirs: str, depth: int, linear: bool) -> list[Row]:
    """The rows of one transformer, of so many blocks."""
    rows = layers(ours, theirs, {"norm": "norm"}) + matrices(ours, theirs, ENDS, "linear" if linear else "conv")
    for number in range(depth):
        a, b = f"{ours}blocks.{number}.", f"{theirs}transformer_blocks.{number}."
        rows += layers(a, b, BLOCK) + layers(a, b, PROJECTIONS, ("weight",))
    return rows


def _widens(config: SDUNetConfig, place: Place) -> bool:
    """Whether a residual block changes the number of channels: all on the way up do, since skips are joined to them."""
    if place.ours.startswith("up."):
        return True
    first = place.kind == "residual" and place.ours.endswith(".residual.0")
    return first and config.channels[max(0, place.level - 1)] != config.channels[place.level]


def tidied(name: str, layout: str) -> str:
    """Today's spelling of a bare name; the U-Net's have not changed."""
    return name


def from_shapes(
    shapes: Mapping[str, Shape],
    layout: str,
    heads: int | Sequence[int] | None = None,
    head_width: int | None = None,
    **hints: Any,
) -> SDUNetConfig:
    """The config of a network by the shapes of its weights, under bare names.

    Args:
        shapes: of all of its weights.
        layout: whose names they are.
        heads: on every level, or on each; shapes do not show them. Published: 8 in Stable Diffusion 1.
        head_width: instead of ``heads``: channels of a head. Published: 64 in Stable Diffusion 2 and XL.
        hints: other settings that shapes do not show (``size``, ``groups``), or that the file is known to show wrongly
            (``linear``, where a GGUF file keeps matrices as convolutions).

    Raises:
        UnnoiseError: a weight is missing or has a strange shape, or the network has a form that ours has not.
    """
    if (heads is None) == (head_width is None):
        raise ValueError("one of heads and head_width is needed")
    levels, blocks = extent(shapes, layout)
    residual, ends = RESIDUAL[layout], TOP[layout]
    channels, depths = [0] * levels, [set[int]() for _ in range(levels)]
    middle = ""
    for place in places(levels, blocks, layout, [1] * levels):
        if place.kind == "residual":
            channels[place.level] = size(shapes, f"{place.theirs}.{residual['conv1']}.weight", 0)
        elif place.kind == "attention":
            depths[place.level].add(count(shapes, f"{place.theirs}.transformer_blocks."))
        elif place.kind == "middle":
            middle = place.theirs
    if any(len(each) > 1 for each in depths):
        raise UnnoiseError(
            "the U-Net has transformers of different depths at one resolution, as the distilled SSD-1B has them",
            "use the model that it was made of",
        )
    if not count(shapes, f"{middle}.transformer_blocks."):
        raise UnnoiseError("the U-Net has no transformer in its middle", "use a model of Stable Diffusion 1, 2 or XL")
    added, guided = ADDED[layout]["added.0"] + ".weight", GUIDED[layout]["guided"] + ".weight"
    values: dict[str, Any] = {
        "channels_in": size(shapes, f"{ends['enter']}.weight", 1),
        "channels_out": size(shapes, f"{ends['leave.conv']}.weight", 0),
        "channels": tuple(channels),
        "blocks": blocks,
        "depth": tuple(each.pop() for each in depths),
        "middle": count(shapes, f"{middle}.transformer_blocks."),
        "heads": per_level([max(1, c // head_width) for c in channels] if head_width else heads, levels, "heads"),
        "text_width": size(shapes, f"{middle}.transformer_blocks.0.attn2.to_k.weight", 1),
        "added_width": size(shapes, added, 1) if added in shapes else 0,
        "guidance_width": size(shapes, guided, 1) if guided in shapes else 0,
        "linear": len(shapes.get(f"{middle}.proj_in.weight", ())) == 2,
    }
    config: SDUNetConfig = from_json(SDUNetConfig, values | hints, "the U-Net")
    return config


def extent(shapes: Mapping[str, Shape], layout: str) -> tuple[int, int]:
    """(levels, residual blocks on each on the way down)."""
    if layout == "diffusers":
        levels, blocks = count(shapes, "down_blocks."), count(shapes, "down_blocks.0.resnets.")
    else:
        levels = 1 + sum(name.startswith("input_blocks.") and name.endswith(".0.op.weight") for name in shapes)
        entries = count(shapes, "input_blocks.")
        blocks = entries // levels - 1 if entries % levels == 0 else 0
    if not levels or blocks < 1:
        raise UnnoiseError(
            "the weights are not those of a U-Net with the same number of blocks at each resolution",
            "use a model of Stable Diffusion 1, 2 or XL",
        )
    check_extent("the U-Net", levels=(levels, MAX_LEVELS), blocks=(blocks, MAX_BLOCKS))
    return levels, blocks
