"""Options on a model, of other tools above all, which several verbs take."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import exists
from pathlib import Path

from unnoise.engine.foreign import Choices
from unnoise.errors import UnnoiseError
from unnoise.files import expanded


def choices(
    part: Sequence[str],
    family: str | None,
    prediction: str | None,
    download: bool = False,
    decoder: str | None = None,
) -> Choices:
    """What the options ``--part NAME=FILE``, ``--family``, ``--prediction``, ``--download`` and ``--decoder`` say.

    Raises:
        UnnoiseError: one is no such thing, a part is given twice, or there is no file of that name.
    """
    parts: dict[str, Path] = {}
    for each in part:
        name, equals, file = each.partition("=")
        if not name or not equals or not file:
            raise UnnoiseError(f"--part {each[:80]!r} is not NAME=FILE", "write --part autoencoder=FILE")
        if name in parts:
            raise UnnoiseError(f"--part {name} is given twice", "leave one of them out")
        parts[name] = path if exists(path := expanded(file)) else named(name, file, download)
    return Choices(parts, family, prediction, download, decoder)


def named(part: str, file: str, download: bool) -> Path:
    """The file of a part that is named as models are: in the list of models, or on a hub.

    Raises:
        UnnoiseError: there is none.
    """
    from unnoise.weights.lookup import part_file  # large tables, which paths do without

    return part_file(part, file, download)
