"""``unnoise generate --grid``: one picture for each combination of one or two settings, side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from unnoise.cli.options import request_fields
from unnoise.core import checks
from unnoise.errors import UnnoiseError

MAX_CELLS = 400


def kinds() -> dict[str, Callable[[str], Any]]:
    """{setting: what its values are}: the fields of a request that a grid can vary, as options are written."""
    fields = request_fields().items()
    return {
        name.replace("_", "-"): about["kind"] if about["kind"] in (int, float) else str
        for name, about in fields
        if about["axis"]
    }


class Axis(NamedTuple):
    """A setting and the values that it takes, as they were written."""

    name: str
    values: tuple[str, ...]

    @property
    def field(self) -> str:
        """The field of a request."""
        return self.name.replace("-", "_")

    @property
    def labels(self) -> list[str]:
        """What is written beside the pictures."""
        return [f"{self.name} {value}" for value in self.values]


def parse(texts: Sequence[str]) -> list[Axis]:
    """The axes of ``steps=5,10,20`` and the like, across first and down second; commas in brackets belong to a value.

    Raises:
        UnnoiseError: more than two, an unknown or repeated setting, no values, or too many pictures.
    """
    axes: list[Axis] = []
    for text in texts:
        name, sign, listed = text.partition("=")
        if name not in kinds():
            raise UnnoiseError(
                f"--grid has no setting {name[:40]!r}", f"one of: {', '.join(kinds())}; as steps=5,10,20"
            )
        values = tuple(value.strip() for value in split(listed))
        if not sign or not all(values):
            raise UnnoiseError(f"--grid {text[:80]!r} lacks a value", f"write it like {name}=FIRST,SECOND")
        for value in values:
            _value(name, value)
        if len(set(values)) < len(values):
            raise UnnoiseError(f"--grid {text[:80]!r} has a value twice", "say it once")
        axes.append(Axis(name, values))
    if len(axes) > 2:
        raise UnnoiseError(f"{len(axes)} settings make no grid", "give --grid once or twice")
    if len({axis.name for axis in axes}) < len(axes):
        raise UnnoiseError(f"both axes of the grid are {axes[0].name}", "give all its values in one --grid")
    pictures = len(axes[0].values) * (len(axes[1].values) if len(axes) == 2 else 1) if axes else 0
    if pictures > MAX_CELLS:
        raise UnnoiseError(f"a grid of {pictures} pictures is too large", f"choose at most {MAX_CELLS}")
    return axes


def split(text: str) -> list[str]:
    """The parts between commas that stand outside of all brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _value(name: str, text: str) -> Any:
    """A value as the kind that the setting takes.

    Raises:
        UnnoiseError: it is no number where the setting takes numbers, or a seed out of range.
    """
    kind = kinds()[name]
    noun = {int: "whole numbers", float: "numbers"}.get(kind, "")  # type: ignore[call-overload]
    if noun and not re.fullmatch(r"[+-]?\d{1,19}" if kind is int else r"[+-]?(\d+\.?\d*|\.\d+)", text):
        raise UnnoiseError(f"--grid {name} wants {noun}, not {text[:40]!r}", f"write it like {name}=1,2,3")
    if name == "seed":
        checks.seed("--grid seed", int(text))
    return kind(text)


def check(axes: Sequence[Axis], settings: Mapping[str, Any], count: int, beside: Mapping[str, bool]) -> None:
    """Refuses what makes no sense together with the grid's axes.

    Args:
        settings: what other options give, by the fields of a request.
        count: how many pictures of each prompt.
        beside: {option: whether it is on} of what is written beside single pictures.

    Raises:
        UnnoiseError: an option and an axis both give a setting, or one is for single pictures.
    """
    for axis in axes:
        if settings.get(axis.field) is not None:
            raise UnnoiseError(f"--{axis.name} and --grid {axis.name} do not agree", "leave one of them out")
        if axis.name == "seed" and count != 1:
            raise UnnoiseError("--count and --grid seed both say how many seeds", "leave one of them out")
    for option, on in beside.items():
        if axes and on:
            raise UnnoiseError(
                f"{option} is for single pictures, and --grid draws many in one", "leave one of them out"
            )


def cells(axes: Sequence[Axis], seed: int) -> list[list[dict[str, Any]]]:
    """The grid's rows: in each cell {field: value}, its ``seed`` among them; without axes a single cell."""
    rows: list[list[dict[str, Any]]] = [[{"seed": seed}]]
    if axes:
        rows = [[{"seed": seed, axes[0].field: _value(axes[0].name, value)} for value in axes[0].values]]
    if len(axes) == 2:
        rows = [[cell | {axes[1].field: _value(axes[1].name, low)} for cell in rows[0]] for low in axes[1].values]
    return rows
