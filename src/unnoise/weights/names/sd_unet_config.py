"""The U-Net of Stable Diffusion 1, 2 and XL: diffusers' config.json of it, and ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unnoise.errors import UnnoiseError
from unnoise.networks.sd_unet_config import SDUNetConfig
from unnoise.weights.config import check_extent, check_only, from_json

WHERE = "the U-Net's config.json"
MAX_LEVELS, MAX_BLOCKS, MAX_DEPTH = 8, 16, 32  # published: 4, 2, 10
NO_FIELD = "which this network does not do"
ONLY = {
    "_class_name": (("UNet2DConditionModel",), "another network"),
    "act_fn": (("silu", "swish"), "another activation"),
    "addition_embed_type": ((None, "text_time"), f"it adds neither pooled vector nor numbers, {NO_FIELD}"),
    "addition_time_embed_dim": ((None, 256), "sinusoids of another width for numbers"),
    "attention_type": (("default",), f"boxes with words of their own (GLIGEN), {NO_FIELD}"),
    "center_input_sample": ((False,), f"it moves what it reads to [-1, 1], {NO_FIELD}"),
    "class_embed_type": ((None,), f"it reads a class or the vector of a picture (unCLIP), {NO_FIELD}"),
    "class_embeddings_concat": ((False,), f"it joins classes to the noise level, {NO_FIELD}"),
    "conv_in_kernel": ((3,), "a first convolution of another size"),
    "conv_out_kernel": ((3,), "a last convolution of another size"),
    "cross_attention_norm": ((None,), f"it normalises the prompt's vectors, {NO_FIELD}"),
    "downsample_padding": ((1,), "other edges where it halves"),
    "dual_cross_attention": ((False,), f"it attends to two prompts at once, {NO_FIELD}"),
    "encoder_hid_dim": ((None,), f"it projects the prompt's vectors first, {NO_FIELD}"),
    "encoder_hid_dim_type": ((None,), f"it projects the prompt's vectors first, {NO_FIELD}"),
    "flip_sin_to_cos": ((True,), "sines before cosines in the noise level"),
    "freq_shift": ((0,), "other frequencies in the noise level"),
    "mid_block_only_cross_attention": ((None, False), f"no self-attention in its middle, {NO_FIELD}"),
    "mid_block_scale_factor": ((1,), f"it scales its middle, {NO_FIELD}"),
    "mid_block_type": (("UNetMidBlock2DCrossAttn",), "a middle without a transformer, as distilled networks have it"),
    "norm_eps": ((1e-5,), "another epsilon in its norms"),
    "num_class_embeds": (
        (None,), f"it reads a class, or how noisy the small picture is (the upscaler), {NO_FIELD}"
    ),
    "only_cross_attention": ((False,), f"blocks without self-attention, as the upscaler has them, {NO_FIELD}"),
    "resnet_out_scale_factor": ((1,), f"it scales its residual blocks, {NO_FIELD}"),
    "resnet_skip_time_act": ((False,), f"no activation on the noise level, {NO_FIELD}"),
    "resnet_time_scale_shift": (("default",), f"the noise level scales as well as shifts, {NO_FIELD}"),
    "reverse_transformer_layers_per_block": (
        (None,), "transformers of other depths on its way up, as distilled networks have them"
    ),
    "time_embedding_act_fn": ((None,), f"one more activation on the noise level, {NO_FIELD}"),
    "time_embedding_type": (("positional",), f"random features for the noise level, {NO_FIELD}"),
    "timestep_post_act": ((None,), f"one more activation on the noise level, {NO_FIELD}"),
}  # fmt: skip


def per_level(value: Any, levels: int, name: str) -> tuple[Any, ...]:
    """One value for each level, of one for all or a list of them.

    Raises:
        UnnoiseError: a list of another length.
    """
    if not isinstance(value, list | tuple):
        return (value,) * levels
    if len(value) != levels:
        raise UnnoiseError(f"{WHERE} has {len(value)} values of {name}, not one for each of {levels} levels", "mend it")
    return tuple(value)


def from_config(values: Mapping[str, Any]) -> SDUNetConfig:
    """The config of a network by diffusers' ``config.json``; what is absent there has diffusers' default.

    Raises:
        UnnoiseError: a setting means something that our network does not do, or is of a wrong type.
    """
    check_only(values, ONLY, WHERE)
    channels = values.get("block_out_channels", (320, 640, 1280, 1280))
    if not isinstance(channels, list | tuple) or not channels or not all(type(each) is int for each in channels):
        raise UnnoiseError(f"{WHERE} has block_out_channels {channels!r}, no list of widths", "copy the model again")
    levels = len(channels)
    check_extent(WHERE, levels=(levels, MAX_LEVELS))
    named: dict[str, Any] = {"channels": channels}
    depth = per_level(values.get("transformer_layers_per_block", 1), levels, "transformer_layers_per_block")
    kinds = per_level(
        values.get("down_block_types", ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)), levels, "down_block_types"
    )
    ups = values.get("up_block_types", ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3)
    mirrored = [str(kind).replace("Down", "Up") for kind in reversed(kinds)]
    known = all(kind in ("DownBlock2D", "CrossAttnDownBlock2D") for kind in kinds)
    if not known or not isinstance(ups, list | tuple) or list(ups) != mirrored:
        raise UnnoiseError(
            f"{WHERE} has blocks of a kind that this network has not, or others on its way up than down",
            "use a model of Stable Diffusion 1, 2 or XL",
        )
    if values.get("time_embedding_dim") not in (None, 4 * channels[0]):
        raise UnnoiseError(f"{WHERE} has time_embedding_dim {values['time_embedding_dim']}", "use another model")
    heads = values.get("num_attention_heads") or values.get("attention_head_dim", 8)  # which means a number of heads
    named |= {
        "channels_in": values.get("in_channels", 4),
        "channels_out": values.get("out_channels", 4),
        "size": _one(values.get("sample_size") or SDUNetConfig.size, "sample_size"),
        "blocks": _one(values.get("layers_per_block", 2), "layers_per_block"),
        "depth": tuple(n if kind.startswith("Cross") else 0 for n, kind in zip(depth, kinds, strict=True)),
        "middle": depth[-1] if depth else 0,
        "heads": per_level(heads, levels, "attention_head_dim"),
        "text_width": _one(values.get("cross_attention_dim", 1280), "cross_attention_dim"),
        "added_width": values.get("projection_class_embeddings_input_dim") if values.get("addition_embed_type") else 0,
        "guidance_width": values.get("time_cond_proj_dim") or 0,
        "linear": values.get("use_linear_projection", False),
        "groups": values.get("norm_num_groups", 32),
    }
    config: SDUNetConfig = from_json(SDUNetConfig, named, WHERE)
    check_extent(
        WHERE,
        layers_per_block=(config.blocks, MAX_BLOCKS),
        transformer_layers_per_block=(max(*config.depth, config.middle), MAX_DEPTH),
    )
    if not config.middle or any(kind.startswith("Cross") and n == 0 for n, kind in zip(depth, kinds, strict=True)):
        raise UnnoiseError(f"{WHERE} has transformers without blocks", "use a model of Stable Diffusion 1, 2 or XL")
    return config


def _one(value: Any, name: str) -> Any:
    """The one value that a list of equal values repeats."""
    if not isinstance(value, list | tuple):
        return value
    if len(set(map(repr, value))) != 1:
        raise UnnoiseError(
            f"{WHERE} has {name} {list(value)}: this network has one for all levels", "use another model"
        )
    return value[0]


def to_config(config: SDUNetConfig) -> dict[str, Any]:
    """Diffusers' ``config.json`` of the same network.

    Raises:
        UnnoiseError: diffusers has no such network: there the middle is as deep as the last level.
    """
    if config.depth[-1] not in (0, config.middle):
        raise UnnoiseError(
            f"diffusers' U-Nets have middle and last level of one depth, not {config.middle} and {config.depth[-1]}",
            "save it in another layout",
        )
    depth = [n or 1 for n in config.depth[:-1]] + [config.middle]
    kinds = ["CrossAttnDownBlock2D" if n else "DownBlock2D" for n in config.depth]
    added: dict[str, Any] = {}
    if config.added_width:
        added = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": config.added_width,
        }
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": list(config.heads) if len(set(config.heads)) > 1 else config.heads[0],
        "block_out_channels": list(config.channels),
        "cross_attention_dim": config.text_width,
        "down_block_types": kinds,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": config.channels_in,
        "layers_per_block": config.blocks,
        "norm_eps": 1e-5,
        "norm_num_groups": config.groups,
        "out_channels": config.channels_out,
        "sample_size": config.size,
        "time_cond_proj_dim": config.guidance_width or None,
        "transformer_layers_per_block": depth if len(set(depth)) > 1 else depth[0],
        "up_block_types": [kind.replace("Down", "Up") for kind in reversed(kinds)],
        "use_linear_projection": config.linear,
        **added,
    }
