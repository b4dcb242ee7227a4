"""unnoise's own pictures: by their record alone, whatever their prompts look like to others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unnoise.engine.readers.reading import FIT, Reading, shown

RECORD, GRID = "unnoise", "unnoise-grid"
OLDER = "an earlier unnoise drew it, and today's may draw it otherwise; `unnoise replay` draws as it did"


def read(texts: Mapping[str, str], path: Path) -> Reading | None:
    """What our own record says; None where there is none.

    Raises:
        UnnoiseError: the record is damaged, or of a newer unnoise.
    """
    if RECORD not in texts and GRID not in texts:
        return None
    from unnoise.engine.metadata import parse, parse_grid  # imports torch

    if GRID not in texts:
        return reading(parse(texts[RECORD], path))
    records = [record for _, record in parse_grid(texts[GRID], path, (2**31, 2**31))]
    same = {key: value for key, value in records[0].items() if all(each.get(key) == value for each in records)}
    found = reading(same)
    differ = {
        f"{name} of {len(records)} pictures": " | ".join(dict.fromkeys(shown(each.get(name)) for each in records))[:200]
        for name in records[0]
        if name not in same and name != "start"
    }
    note = f"it is a grid of {len(records)} pictures, and what all of them have alike is taken"
    return replace(found, left_out={**found.left_out, **differ}, notes=(*found.notes, *(note,) * (len(records) > 1)))


def reading(record: Mapping[str, Any]) -> Reading:
    """The common form of a record, or of what the records of a grid have alike; it keeps the whole."""
    from unnoise.engine.settings import RULES  # imports torch

    start = record.get("start") or {}
    left = {"start picture": "name it with --start"} if start else {}
    for name in ("mask", "outpaint", "invert"):
        if start.get(name):
            left[name] = "name it with --mask" if name == "mask" else shown(str(start[name]))
    older = record.get("format", RULES) < RULES
    return Reading(
        "unnoise",
        prompt=record.get("prompt"),
        negative=record.get("negative"),
        steps=record.get("steps"),
        sampler=record.get("solver"),
        schedule=record.get("spacing"),
        cfg_scale=_scale(record),
        seed=record.get("seed"),
        size=FIT["size"](tuple(record.get("size", ()))),
        strength=start.get("strength"),
        literal=not record.get("weights", True),
        left_out=left,
        notes=(OLDER,) * older,
        record=record,
    )


def _scale(record: Mapping[str, Any]) -> float | None:
    """The scale that was used: older records have the one of the option, whatever the guidance said."""
    from unnoise.engine.settings import Settings  # imports torch

    if record.get("guidance") is None:
        return record.get("cfg_scale")
    scale = {} if record.get("cfg_scale") is None else {"cfg_scale": record["cfg_scale"]}
    found = Settings(guidance=record["guidance"], **scale).scale
    return found if scale or found is None or "(" in record["guidance"] else None
