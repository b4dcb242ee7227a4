"""unnoise's own pictures: read only from their record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.engine.readers.reading import FIT, Reading, short

if TYPE_CHECKING:
    from unnoise.engine.metadata import Record

CHANGED = 2  # rules since which pictures stay, but for the start noise of torch's generator
RECORD, GRID = "unnoise", "unnoise-grid"
OLDER = "an earlier unnoise drew it, and today's may draw it otherwise; `unnoise replay` draws as it did"


def read(texts: Mapping[str, str], path: Path) -> Reading | None:
    """The settings in our own record; None if there is none.

    Raises:
        UnnoiseError: the record is damaged, or of a newer unnoise.
    """
    if RECORD not in texts and GRID not in texts:
        return None
    from unnoise.engine.metadata import parse, parse_grid  # imports torch

    if GRID not in texts:
        return reading(_values(parse(texts[RECORD], path)))
    records = [_values(record) for _, record in parse_grid(texts[GRID], path, (2**31, 2**31))]
    same = {key: value for key, value in records[0].items() if all(each.get(key) == value for each in records)}
    shared = reading(same)
    differ = {
        f"{name} of {len(records)} pictures": " | ".join(dict.fromkeys(short(each.get(name)) for each in records))[:200]
        for name in records[0]
        if name not in same and name != "start"
    }
    note = f"it is a grid of {len(records)} pictures, and the settings that all of them share are taken"
    return replace(shared, left_out={**shared.left_out, **differ}, notes=(*shared.notes, *(note,) * (len(records) > 1)))


def _values(record: Record) -> dict[str, Any]:
    """A record's JSON, with the guidance as it is written and its scale beside it, as options have them."""
    return {**record.to_json(), "guidance": record.request.way, "cfg_scale": record.request.scale}


def reading(values: Mapping[str, Any]) -> Reading:
    """The common form of a record, or of the values that the records of a grid share, with the whole record."""
    left_out = {"start picture": "name it with --start"} if values.get("start") else {}
    for name in ("mask", "outpaint", "invert"):
        if values.get(name):
            left_out[name] = "name it with --mask" if name == "mask" else short(str(values[name]))
    rules = values.get("rules", CHANGED)
    older = rules < CHANGED or (rules == CHANGED and values.get("noise") == "torch")
    return Reading(
        "unnoise",
        prompt=values.get("prompt"),
        negative=values.get("negative"),
        steps=values.get("steps"),
        sampler=values.get("solver"),
        schedule=values.get("spacing"),
        cfg_scale=values.get("cfg_scale"),
        seed=values.get("seed"),
        size=FIT["size"](tuple(values.get("size", ()))),
        strength=values.get("strength"),
        clip_skip=values.get("clip_skip"),
        literal=not values.get("weights", True),
        left_out=left_out,
        notes=(OLDER,) * older,
        record=values,
    )
