"""How the settings of a request are declared, and read from what people write."""

from __future__ import annotations

import re
from typing import Any

from unnoise.core import checks
from unnoise.errors import UnnoiseError

LARGEST = 4096  # pixels a side


def option(text: str, **more: Any) -> dict[str, Any]:
    """The metadata of a field that the command line offers as an option.

    Args:
        text: the option's help.
        more: ``kind`` of what is typed, where it is not the field's; ``metavar``; ``axis=False`` for what no grid
            varies; ``picture=True`` where a file is named and the request has what identifies the picture in it.
    """
    return {"help": text, "axis": True, "picture": False, **more}


def scaled(scale: float) -> dict[str, str]:
    """What a scale fills in where a guidance leaves it open, as text: its own ``scale``, and what it wraps."""
    short = repr(float(scale)).removesuffix(".0")
    return {"scale": short, "inner": f"cfg({short})"}


def size_of(value: Any) -> tuple[int, int]:
    """(width, height) from two whole numbers, or from text such as "160x96" or "128", which is square.

    Raises:
        UnnoiseError: it is neither, or out of range.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,5})(?:\s*[x×*]\s*(\d{1,5}))?\s*", value)
        if match is None:
            raise UnnoiseError(f"size {value[:40]!r} is no size", "write width and height, such as 160x96")
        value = (int(match[1]), int(match[2] or match[1]))
    width, height = value if isinstance(value, tuple | list) and len(value) == 2 else (value, value)
    return checks.whole("size", width, 1, LARGEST), checks.whole("size", height, 1, LARGEST)
