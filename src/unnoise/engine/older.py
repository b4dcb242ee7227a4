"""Requests as earlier versions wrote them, brought to today's form: one step for each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from unnoise.engine.request import FORMAT
from unnoise.engine.settings import scaled
from unnoise.errors import UnnoiseError


def upgraded(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values in today's format.

    Raises:
        UnnoiseError: they are of a newer format, or were tampered with.
    """
    damaged = UnnoiseError(f"{where} is damaged", "it is no request of unnoise")
    if not isinstance(values, Mapping):
        raise damaged
    version = values.get("format", FORMAT)
    if type(version) is not int or version < 1:
        raise damaged
    if version > FORMAT:
        raise UnnoiseError(f"{where} was made by a newer unnoise", "update unnoise")
    fields = dict(values)
    try:
        for number in range(version, FORMAT):
            fields = UPGRADES[number](fields)
    except (AttributeError, LookupError, TypeError, ValueError):
        raise damaged from None
    return fields | {"format": FORMAT}


def _from_1(values: dict[str, Any]) -> dict[str, Any]:
    """Format 1 had no weights in prompts before they came, and no rules but the first."""
    return {"weights": False, **values, "rules": 1}


def _from_2(values: dict[str, Any]) -> dict[str, Any]:
    """Formats 1 and 2 had the scale beside the guidance, an object for the start, and a grown picture's whole size."""
    fields = {"weights": False, "rules": 2, **values}
    scale, start = fields.pop("cfg_scale", None), fields.pop("start", None)
    if scale is not None and type(scale) not in (int, float):
        raise ValueError("no scale")
    if scale is not None:
        from unnoise.core.notation import complete

        fields["guidance"] = complete("guidances", fields["guidance"], scaled(scale))
    if start is not None:
        fields |= {"start": start["sha256"], "mask": start.get("mask"), "invert": start.get("invert")}
        if "outpaint" in start:
            from unnoise.engine.outpaint import Margins, written

            by = Margins(**start["outpaint"])
            fields["outpaint"] = written(by)
            width, height = fields["size"]
            fields["size"] = [width - by.left - by.right, height - by.top - by.bottom]
        else:
            fields["strength"] = start["strength"]
    return fields


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}
