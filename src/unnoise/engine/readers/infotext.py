"""The text format of AUTOMATIC1111's web interface; Forge, SD.Next, stable-diffusion.cpp and others write it too.

The prompt; the negative prompt after "Negative prompt:"; and in the last line ``Steps: 20, Sampler: Euler a, ...``,
values with commas, colons or line breaks as JSON strings. Some add JSON objects and lists as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from unnoise.core.registry import register
from unnoise.engine.readers.reading import Builder, Reading, json_object

NEGATIVE = "Negative prompt:"
SEARCHED = 1000  # lines from the end that are searched for the settings: some tools write templates after them
FIELDS = {"Steps", "Sampler", "CFG scale", "Seed", "Size", "Schedule type"}
_KEY = re.compile(r"\s*(\w[\w \-/]{0,80}):\s*")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])*"')
TOOLS = (  # beginnings of the field "Version", and their tools
    ("stable-diffusion.cpp", "stable-diffusion.cpp"),
    ("unnoise", "unnoise"),
    ("ComfyUI", "ComfyUI"),
    ("Fooocus", "Fooocus"),
    ("f", "Forge"),
    ("neo", "Forge"),
    ("v", "AUTOMATIC1111"),
)
OTHER = "AUTOMATIC1111 or a tool that writes as it does"


@register("infotext")
def read(texts: Mapping[str, str]) -> Reading | None:
    """The settings in the text ``parameters`` of AUTOMATIC1111 and similar tools; None if there are none."""
    text = texts.get("parameters", "")
    if not text or json_object(text) is not None:
        return None
    lines = text.replace("\r\n", "\n").split("\n")
    last = range(len(lines) - 1, max(-1, len(lines) - 1 - SEARCHED), -1)
    place = next((i for i in last if len(FIELDS & set(settings(lines[i]))) >= 2), None)
    if place is None:
        return None
    prompt, negative = prompts(lines[:place])
    values: dict[str, Any] = settings(lines[place])
    build = Builder(tool_of(values), values)
    values = build.values
    for name in ("SDCPP", "Hashes", "Version", "App"):
        values.pop(name, None)
    build.put("prompt", prompt)
    build.put("negative", negative)
    build.fields["literal"] = values.pop("Emphasis", "") == "None"
    build.take(steps="Steps", sampler="Sampler", cfg_scale="CFG scale", seed="Seed", size="Size")
    build.take(
        schedule=("Schedule type", "Sampler sigma", "Sampler spacing"), eta=("Eta", "Eta DDIM"), clip_skip="Clip skip"
    )
    if not any(name.startswith("Hires") for name in build.values):  # else it is the strength of the second pass
        build.take(strength=("Denoising strength", "Denoise"))
    if build.tool == "SD.Next" and build.fields.get("schedule") == "beta":
        build.fields["schedule"] = "beta-sigma"  # diffusers' "beta" differs from all others
    return build.reading()


def settings(line: str) -> dict[str, str]:
    """The fields of a line of settings; few or none for other lines."""
    fields: dict[str, str] = {}
    place, whole = 0, True
    while place < len(line):
        key = _KEY.match(line, place)
        if key is None:
            place = _after_comma(line, place)
            continue
        place = key.end()
        end = None
        if quoted := _QUOTED.match(line, place):
            value, end = _unquoted(quoted[0]), quoted.end()
        elif whole and line[place : place + 1] in ("{", "["):
            try:
                end = json.JSONDecoder().raw_decode(line, place)[1]
                value = line[place:end]
            except (ValueError, RecursionError):
                whole = False  # a second try would make the time grow with the square of the line
        if end is None:
            end = _after_comma(line, place)
            value = line[place:end].rstrip(", ")
            place = end
        else:
            place = _after_comma(line, end)
        fields.setdefault(key[1].strip(), value)
    return fields


def _after_comma(line: str, place: int) -> int:
    comma = line.find(",", place)
    return len(line) if comma < 0 else comma + 1


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return text[1:-1]


def prompts(lines: list[str]) -> tuple[str, str]:
    """(prompt, negative prompt) of the lines before the settings."""
    place = next((i for i, line in enumerate(lines) if line.strip().startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[place:]).strip().removeprefix(NEGATIVE)
    return "\n".join(lines[:place]).strip(), negative.strip()


def tool_of(values: Mapping[str, str]) -> str:
    """The tool that wrote the settings."""
    if "SDCPP" in values:
        return "stable-diffusion.cpp"
    if values.get("App"):
        return "SD.Next" if values["App"] == "SD.Next" else OTHER
    version = values.get("Version", "")
    if "Civitai resources" in values and not version:
        return "Civitai"
    return next((tool for start, tool in TOOLS if re.match(re.escape(start) + r"(?:\b|\d)", version)), OTHER)
