"""Tiny autoencoders: their weights under the names of TAESD's files, diffusers', ComfyUI's, stable-diffusion.cpp's.

TAESD's own files hold one half each, named by the numbers of its layers. ComfyUI joins both under prefixes of its own,
stable-diffusion.cpp under ``encoder.`` and ``decoder.``, as we do. Diffusers counts the decoder's layers from the one
behind the clamp. Files name no activation and no norm's groups: all that is published has the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unnoise.autoencoders.taesd import TAESDConfig, decoder_layers, encoder_layers
from unnoise.errors import UnnoiseError
from unnoise.weights.config import check_only, from_json
from unnoise.weights.keys import Row, Shape, size

LAYOUTS = ("taesd", "diffusers", "comfyui", "sd.cpp")
IGNORED: dict[str, tuple[str, ...]] = {
    "taesd": (),
    "diffusers": (),
    "comfyui": (r"^vae_(scale|shift)$",),  # constants that its tiny decoders carry with them
    "sd.cpp": (),
}
PREFIX = {
    "taesd": {"encoder": "", "decoder": ""},
    "diffusers": {"encoder": "encoder.layers.", "decoder": "decoder.layers."},
    "comfyui": {"encoder": "taesd_encoder.", "decoder": "taesd_decoder."},
    "sd.cpp": {"encoder": "encoder.", "decoder": "decoder."},
}
CONVOLUTION = ("weight", "bias")
BLOCK = tuple(f"conv.{number}.{kind}" for number in (0, 2, 4) for kind in CONVOLUTION)
POOL = ("pool.0.weight", "pool.1.weight", "pool.1.bias", "pool.3.weight")
WEIGHTS = {  # of each kind of layer
    "enter": CONVOLUTION,
    "leave": CONVOLUTION,
    "shrink": ("weight",),
    "grow": ("weight",),
    "block": BLOCK,
    "pooled": BLOCK + POOL,
    "clamp": (),
    "relu": (),
    "double": (),
}
LIMIT = 64  # layers of a half
ONLY = {
    "_class_name": (("AutoencoderTiny",), "another autoencoder"),
    "act_fn": (("relu",), "another activation"),
    "in_channels": ((3,), "something else than pictures"),
    "out_channels": ((3,), "something else than pictures"),
    "scaling_factor": ((1.0,), "latents in another scale than its own"),
    "shift_factor": ((0.0,), "latents in another scale than its own"),
    "upsample_fn": (("nearest",), "another way to enlarge"),
    "upsampling_scaling_factor": ((2,), "another step between levels"),
}
WHERE = "the tiny autoencoder's config.json"


def halves(config: TAESDConfig) -> dict[str, list[str]]:
    """{half: the kinds of its layers} of those that it has."""
    names = {}
    if config.encoder:
        names["encoder"] = list(encoder_layers(config))
    if config.decoder:
        names["decoder"] = list(decoder_layers(config))
    return names


def table(config: TAESDConfig, layout: str) -> tuple[Row, ...]:
    """Where each weight of a ``TinyAutoencoder`` lies in files of a layout.

    Raises:
        UnnoiseError: TAESD's own files hold one half, and this one has both.
    """
    present = halves(config)
    if layout == "taesd" and len(present) > 1:
        raise UnnoiseError("TAESD's own layout has a file for each half", "name one half, or another layout")
    rows = []
    for half, kinds in present.items():
        first = 1 if (layout, half) == ("diffusers", "decoder") else 0
        for number, kind in enumerate(kinds):
            for name in WEIGHTS[kind]:
                rows.append(Row((f"{half}.{number}.{name}",), f"{PREFIX[layout][half]}{number - first}.{name}"))
    return tuple(rows)


def tidied(name: str, layout: str) -> str:
    """Today's spelling of a bare name: older files of stable-diffusion.cpp have one word more."""
    return re.sub(r"^(encoder|decoder)\.layers\.", r"\1.", name) if layout == "sd.cpp" else name


def from_shapes(shapes: Mapping[str, Shape], layout: str, **hints: Any) -> TAESDConfig:
    """The config of a tiny autoencoder by the shapes of its weights, under bare and tidied names.

    Args:
        shapes: of all of its weights.
        layout: whose names they are.
        hints: settings that override what the shapes show.

    Raises:
        UnnoiseError: a weight is missing or has a strange shape.
    """
    encoder_at, decoder_at = PREFIX[layout]["encoder"], PREFIX[layout]["decoder"]
    first = 0 if layout == "diffusers" else 1
    values: dict[str, Any] = {"encoder": (), "decoder": ()}
    if f"{encoder_at}0.bias" in shapes:
        blocks, pooled, end = levels(shapes, encoder_at, 1)
        values |= {"encoder": blocks, "pooled": pooled, "width": size(shapes, f"{encoder_at}0.weight", 0)}
        values["latent_channels"] = size(shapes, f"{encoder_at}{end}.weight", 0)
    if f"{decoder_at}{first}.bias" in shapes and (layout != "taesd" or not values["encoder"]):
        blocks, pooled, _ = levels(shapes, decoder_at, first + 2)
        values |= {"decoder": blocks, "pooled": pooled, "width": size(shapes, f"{decoder_at}{first}.weight", 0)}
        values["latent_channels"] = size(shapes, f"{decoder_at}{first}.weight", 1)
    if not values["encoder"] and not values["decoder"]:
        raise UnnoiseError("neither half of a tiny autoencoder is there", "name a file of TAESD or its kin")
    config: TAESDConfig = from_json(TAESDConfig, values | hints, "the tiny autoencoder")
    return config


def levels(shapes: Mapping[str, Shape], prefix: str, number: int) -> tuple[tuple[int, ...], bool, int]:
    """(blocks of each level, whether any is pooled, the number of the last layer) of a half from a layer on.

    Raises:
        UnnoiseError: it has no end.
    """
    blocks, pooled = [0], False
    for at in range(number, LIMIT):
        here = f"{prefix}{at}."
        if f"{here}conv.0.weight" in shapes:
            blocks[-1] += 1
            pooled |= f"{here}pool.0.weight" in shapes
        elif f"{here}bias" in shapes:
            return tuple(blocks), pooled, at
        elif f"{here}weight" in shapes:
            blocks.append(0)
    raise UnnoiseError(f"the last layer of {prefix or 'the half'} is missing", "copy or download the file again")


def from_config(values: Mapping[str, Any]) -> TAESDConfig:
    """The config of a tiny autoencoder by diffusers' ``config.json``; what is absent has their default.

    Raises:
        UnnoiseError: a setting means something that our autoencoder does not do, or is of a wrong type.
    """
    check_only(values, ONLY, WHERE)
    widths = {
        width
        for half in ("encoder", "decoder")
        for width in values.get(f"{half}_block_out_channels") or (TAESDConfig.width,)
    }
    if len(widths) != 1:
        raise UnnoiseError(f"{WHERE} has levels of different widths", "its levels must have one")
    named = {
        "latent_channels": values.get("latent_channels", TAESDConfig.latent_channels),
        "width": widths.pop(),
        "encoder": values.get("num_encoder_blocks", TAESDConfig.encoder),
        "decoder": values.get("num_decoder_blocks", TAESDConfig.decoder),
    }
    config: TAESDConfig = from_json(TAESDConfig, named, WHERE)
    return config


def to_config(config: TAESDConfig) -> dict[str, Any]:
    """Diffusers' ``config.json`` of the same autoencoder.

    Raises:
        UnnoiseError: it has blocks that diffusers' has not, or one half alone.
    """
    if config.pooled or not config.encoder or not config.decoder:
        raise UnnoiseError(
            "diffusers' AutoencoderTiny has both halves, and no normed branch as TAEF2's", "choose another layout"
        )
    return {
        "_class_name": "AutoencoderTiny",
        "act_fn": "relu",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": config.latent_channels,
        "encoder_block_out_channels": [config.width] * len(config.encoder),
        "decoder_block_out_channels": [config.width] * len(config.decoder),
        "num_encoder_blocks": list(config.encoder),
        "num_decoder_blocks": list(config.decoder),
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
        "upsample_fn": "nearest",
        "upsampling_scaling_factor": 2,
    }
