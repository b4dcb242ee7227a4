"""Options on models of other tools, which several verbs take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unnoise.engine.foreign import Choices
from unnoise.errors import UnnoiseError
from unnoise.files import expanded


def choices(part: Sequence[str], family: str | None, prediction: str | None, download: bool = False) -> Choices:
    """What the options ``--part NAME=FILE``, ``--family``, ``--prediction`` and ``--download`` say.

    Raises:
        UnnoiseError: one is no such thing, or a part is given twice.
    """
    parts: dict[str, Path] = {}
    for each in part:
        name, equals, file = each.partition("=")
        if not name or not equals or not file:
            raise UnnoiseError(f"--part {each[:80]!r} is not NAME=FILE", "write --part autoencoder=FILE")
        if name in parts:
            raise UnnoiseError(f"--part {name} is given twice", "leave one of them out")
        parts[name] = expanded(file)
    return Choices(parts, family, prediction, download)
