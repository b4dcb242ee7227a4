"""Names, types and shapes of tensors, wherever they were read: what recognisers look at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Shapes = Mapping[str, tuple[str, tuple[int, ...] | None]]  # {name: (type, shape)}; no shape where only names are known
MAX_NAME = 1024  # characters of a tensor's name
FLOATS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}  # that networks compute with


class Span(NamedTuple):
    """A tensor of a file, and where its bytes lie in it.

    Attributes:
        dtype: its type as safetensors calls it; of a GGUF file that of a block where it is quantised.
        shape: how many numbers along each axis.
        start: its first byte.
        size: its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


class Place(NamedTuple):
    """Where a tensor lies: a file, and its name, type and shape there; in a GGUF file also its first byte."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int | None = None


class Finding(NamedTuple):
    """What a set of tensors is.

    Attributes:
        what: in a few words, with an article; "unknown".
        facts: more of it, {what: plain value}, in the order in which people should read it.
        note: what a person must know before using it, and how to mend it; "" if nothing.
    """

    what: str
    facts: Mapping[str, Any] = {}
    note: str = ""


def sizes(tensors: Shapes, pattern: str, axis: int) -> Iterator[int]:
    """The sizes along an axis of those tensors whose names hold the pattern, where their shapes are known."""
    expression = re.compile(pattern)
    for name, (_, shape) in tensors.items():
        if shape is not None and -len(shape) <= axis < len(shape) and expression.search(name):
            yield shape[axis]


def size(tensors: Shapes, pattern: str, axis: int) -> int | None:
    """The first of ``sizes``; None if there is none."""
    return next(sizes(tensors, pattern, axis), None)
