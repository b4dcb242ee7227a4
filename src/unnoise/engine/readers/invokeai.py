"""InvokeAI: ``invokeai_metadata`` (from 3 on), ``sd-metadata`` (2) and the command line in ``Dream`` (1 and 2)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from unnoise.core.registry import register
from unnoise.engine.readers.reading import Builder, Reading, json_object

TOOL = "InvokeAI"
OPTIONS = {"-s": "steps", "-S": "seed", "-C": "cfg_scale", "-A": "sampler", "-f": "strength",
           "-W": "width", "-H": "height"}  # fmt: skip


@register("invokeai")
def read(texts: Mapping[str, str]) -> Reading | None:
    """The settings in InvokeAI's texts; None if there are none."""
    if (new := json_object(texts.get("invokeai_metadata"))) is not None:
        return _new(new)
    if (old := json_object(texts.get("sd-metadata"))) is not None:
        return _old(old)
    if '"' in texts.get("Dream", ""):
        return _dream(texts["Dream"])
    return None


def _new(values: dict[str, Any]) -> Reading:
    build = Builder(TOOL, values).size("width", "height")
    for name in ("app_version", "rand_device", "generation_mode"):
        build.values.pop(name, None)
    build.take(prompt="positive_prompt", negative="negative_prompt", steps="steps", cfg_scale="cfg_scale", seed="seed")
    build.take(sampler="scheduler", strength="strength")
    sampler = build.fields.get("sampler") or ""
    if sampler.endswith("_k"):  # "dpmpp_2m_k" and "euler_k": on Karras' levels
        build.fields |= {"sampler": sampler.removesuffix("_k"), "schedule": "karras"}
    model = build.values.get("model")
    if isinstance(model, dict):
        build.values["model"] = str(model.get("name") or model.get("model_name") or "of another kind")
    return build.reading()


def _old(values: dict[str, Any]) -> Reading:
    image = values.pop("image", None)
    build = Builder(TOOL, {**(image if isinstance(image, dict) else {}), **values}).size("width", "height")
    for name in ("app_id", "app_version", "type"):
        build.values.pop(name, None)
    prompt = build.values.pop("prompt", None)
    parts = [part.get("prompt") for part in prompt if isinstance(part, dict)] if isinstance(prompt, list) else [prompt]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) > 1:
        build.note("several prompts with separate weights are joined")
    _prompts(build, ", ".join(texts) if texts else None)
    return build.take(
        steps="steps", cfg_scale="cfg_scale", seed="seed", sampler="sampler", strength="strength"
    ).reading()


def _prompts(build: Builder, text: str | None) -> None:
    """The prompt, and the negative prompt in square brackets in it."""
    if text is None:
        return
    build.put("negative", ", ".join(re.findall(r"\[([^\[\]]*)\]", text)))
    build.put("prompt", " ".join(part.strip() for part in re.split(r"\[[^\[\]]*\]", text)).strip())


def _dream(text: str) -> Reading:
    """``"a cat [a dog]" -s 50 -S 7 -W 512 -H 768 -C 5 -A k_lms``."""
    try:
        words = shlex.split(text[:100_000])
    except ValueError:
        words = text[:100_000].split()
    values: dict[str, Any] = {}
    for word, after in zip(words[1:], [*words[2:], ""], strict=True):
        if re.fullmatch(r"--?[A-Za-z_]+", word):
            values[OPTIONS.get(word, word)] = after
        elif match := re.fullmatch(r"(-[A-Za-z])([\d.]+)", word):  # "-s50"
            values[OPTIONS.get(match[1], match[1])] = match[2]
    build = Builder(TOOL, values).size("width", "height")
    _prompts(build, words[0] if words else None)
    return build.take(
        steps="steps", cfg_scale="cfg_scale", seed="seed", sampler="sampler", strength="strength"
    ).reading()
