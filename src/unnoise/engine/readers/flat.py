"""Settings in one flat JSON object: Fooocus' in a picture, SD.Next's and A1111's in a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unnoise.core.registry import register
from unnoise.engine.readers.reading import Builder, Reading, json_object

PROMPT = ("prompt", "Prompt", "positive_prompt", "positivePrompt")
NEGATIVE = ("negative_prompt", "negativePrompt", "Negative", "negativeprompt", "Negative Prompt", "uc")
SAMPLER = ("sampler", "sampler_name", "sampler_index", "samplerName", "Sampler", "ksamplerName", "scheduler_name")
SCHEDULE = ("scheduler", "Scheduler", "schedule", "schedule_type")
SCALE = ("cfg_scale", "cfgScale", "guidance_scale", "cfg", "CFG", "cfgscale", "Guidance Scale", "scale")
STEPS, SEED = ("steps", "Steps", "num_inference_steps"), ("seed", "Seed")
STRENGTH = ("denoising_strength", "denoise", "denoise_strength", "strength")
SILENT = (
    "metadata_scheme",
    "version",
    "Version",
    "software",
    "full_prompt",
    "full_negative_prompt",
    "batch_size",
    "n_iter",
)


@register("flat-json")
def read(texts: Mapping[str, str]) -> Reading | None:
    """The settings in a JSON object in ``parameters``: Fooocus', SwarmUI's and others'; None if there is none."""
    values = json_object(texts.get("parameters"))
    if values is None:
        return None
    if isinstance(inner := values.get("sui_image_params"), dict):
        return settings("SwarmUI", inner)
    if "fooocus_scheme" in texts or values.get("metadata_scheme") == "fooocus":
        return settings("Fooocus", values)
    tool = values.get("software")
    return settings(tool[:40] if isinstance(tool, str) and tool else "a tool that wrote JSON", values)


@register("tensor-art")
def read_tensor_art(texts: Mapping[str, str]) -> Reading | None:
    """The settings that Tensor.Art writes beside its graph; the seed is -1 there, and is in the graph."""
    values = json_object(texts.get("generation_data"))
    return None if values is None else settings("Tensor.Art", values)


def settings(tool: str, values: Mapping[str, Any]) -> Reading | None:
    """The record of a flat object; None if it has fewer than two of prompt, steps, sampler and scale."""
    build = Builder(tool, values).size("width", "height")
    build.take(prompt=PROMPT, negative=NEGATIVE, steps=STEPS, seed=SEED, sampler=SAMPLER, schedule=SCHEDULE)
    build.take(cfg_scale=SCALE, strength=STRENGTH, size=("resolution", "Resolution", "size"))
    for name in SILENT:
        build.values.pop(name, None)
    present = [field for field in ("prompt", "steps", "sampler", "cfg_scale") if build.fields.get(field) is not None]
    return build.reading() if len(present) >= 2 else None


def file_settings(values: Mapping[str, Any]) -> Reading | None:
    """The record of a file of settings: flat, or the object ``generate`` of SD.Next's batch script."""
    inner = values.get("generate")
    if not isinstance(inner, dict):
        return settings("a tool that wrote JSON", values)
    values_of = {**{key: value for key, value in values.items() if key not in ("generate", "paths")}, **inner}
    for name in ("upscale", "options"):
        part = values_of.pop(name, None)
        values_of |= (
            {str(k): v for k, v in part.items() if not re.search("None|^0$", str(v))} if isinstance(part, dict) else {}
        )
    return settings("SD.Next", values_of)
