"""NovelAI: JSON in the text ``Comment``, beside ``Description`` (the prompt) and ``Software``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unnoise.core.registry import register
from unnoise.engine.readers.reading import Builder, Reading, json_object

SILENT = {  # fields that do not affect the picture
    "signed_hash", "stream", "request_type", "version", "n_samples", "legacy_v3_extend", "extra_passthrough_testing",
    "uncond_per_vibe", "wonky_vibe_correlation", "cfg_sched_eligibility", "explike_fine_detail",
    "dynamic_thresholding_percentile", "dynamic_thresholding_mimic_scale", "prefer_brownian",
}  # fmt: skip


@register("novelai")
def read(texts: Mapping[str, str]) -> Reading | None:
    """The settings in NovelAI's texts; None if there are none."""
    values = json_object(texts.get("Comment"))
    if values is None or not ("uc" in values or "NovelAI" in texts.get("Software", "")):
        return None
    build = Builder("NovelAI", {k: v for k, v in values.items() if k not in SILENT}, literal=True)
    build.size("width", "height")
    if texts.get("Source"):
        build.more["Source"] = texts["Source"]
    for field, name in (("prompt", "v4_prompt"), ("negative", "v4_negative_prompt")):
        caption = _caption(build.values.pop(name, None), build)
        build.put(field, caption)
    build.take(prompt="prompt", negative="uc", steps="steps", seed="seed", cfg_scale="scale", sampler="sampler")
    build.take(schedule="noise_schedule")
    build.values.pop("prompt", None), build.values.pop("uc", None)
    build.put("prompt", texts.get("Description", "").strip("\0") or None)
    if values.get("image") or values.get("request_type") == "Img2ImgRequest":
        build.take(strength="strength")
    if build.fields.get("prompt") and ("{" in build.fields["prompt"] or "::" in build.fields["prompt"]):
        build.note("NovelAI's weights, {word} and 1.2::word::, stay in the prompt as text")
    return build.reading()


def _caption(prompt: Any, build: Builder) -> str | None:
    """The base caption of a version 4 prompt; captions of characters are listed as left out."""
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    if not isinstance(caption, dict):
        return None
    if caption.get("char_captions"):
        build.more["captions of characters"] = caption["char_captions"]
    base = caption.get("base_caption")
    return base if isinstance(base, str) else None
