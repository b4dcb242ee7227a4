"""unnoise's own pictures: by their record alone, whatever their prompts look like to others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unnoise.pipelines.readers.reading import Reading, agreed

RECORD, GRID = "unnoise", "unnoise-grid"


def read(texts: Mapping[str, str], path: Path) -> Reading | None:
    """What our own record says; None where there is none.

    Raises:
        UnnoiseError: the record is damaged, or of a newer unnoise.
    """
    if RECORD not in texts and GRID not in texts:
        return None
    from unnoise.pipelines.metadata import parse, parse_grid  # imports torch

    if GRID in texts:
        cells = [reading(record) for _, record in parse_grid(texts[GRID], path, (2**31, 2**31))]
        return cells[0] if len(cells) == 1 else agreed("unnoise", cells, "pictures of a grid")
    return reading(parse(texts[RECORD], path))


def reading(record: Mapping[str, Any]) -> Reading:
    """The common form of a record, which keeps the whole."""
    start = record.get("start") or {}
    size = record["size"]
    left = {"start picture": "it was drawn from one"} if start else {}
    if start.get("mask"):
        left["mask"] = "it was drawn with one"
    for name in ("outpaint", "invert"):
        if start.get(name):
            left[name] = str(start[name])[:200]
    return Reading(
        "unnoise",
        prompt=record["prompt"],
        negative=record["negative"],
        steps=record["steps"],
        sampler=record["solver"],
        schedule=record["spacing"],
        cfg_scale=record["cfg_scale"],
        seed=record["seed"],
        size=(size[0], size[1]) if len(size) == 2 else None,
        strength=start.get("strength"),
        literal=not record["weights"],
        left_out=left,
        record=record,
    )
