"""``unnoise generate --grid``: one picture for each combination of one or two settings, side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from unnoise.core import checks
from unnoise.errors import UnnoiseError

KINDS: dict[str, Callable[[str], Any]] = {
    "steps": int,
    "cfg-scale": float,
    "solver": str,
    "spacing": str,
    "guidance": str,
    "noise": str,
    "strength": float,
    "seed": int,
}
SETTINGS = ("steps", "cfg-scale", "solver", "spacing", "guidance", "noise")  # those of a run
MAX_CELLS = 400


class Axis(NamedTuple):
    """A setting and the values that it takes, as they were written."""

    name: str
    values: tuple[str, ...]

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
        if name not in KINDS:
            raise UnnoiseError(f"--grid has no setting {name[:40]!r}", f"one of: {', '.join(KINDS)}; as steps=5,10,20")
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
    """A value as the setting wants it.

    Raises:
        UnnoiseError: it is no number where one is wanted, or a seed out of range.
    """
    kind = KINDS[name]
    wanted = {int: "whole numbers", float: "numbers"}.get(kind, "")  # type: ignore[call-overload]
    if wanted and not re.fullmatch(r"[+-]?\d{1,19}" if kind is int else r"[+-]?(\d+\.?\d*|\.\d+)", text):
        raise UnnoiseError(f"--grid {name} wants {wanted}, not {text[:40]!r}", f"write it like {name}=1,2,3")
    if name == "seed":
        checks.seed("--grid seed", int(text))
    return kind(text)


def check(axes: Sequence[Axis], said: Mapping[str, Any], beside: Mapping[str, bool]) -> None:
    """Refuses what makes no sense together with the grid's axes.

    Args:
        said: what other options say of each setting; None where they do not.
        beside: {option: whether it is on} of what is written beside single pictures.

    Raises:
        UnnoiseError: an option and an axis both say a setting, or one is for single pictures.
    """
    for axis in axes:
        if said[axis.name] is not None:
            raise UnnoiseError(f"--{axis.name} and --grid {axis.name} do not agree", "leave one of them out")
        if axis.name == "seed" and said["count"] is not None:
            raise UnnoiseError("--count and --grid seed both say how many seeds", "leave one of them out")
    for option, on in beside.items():
        if axes and on:
            raise UnnoiseError(
                f"{option} is for single pictures, and --grid draws many in one", "leave one of them out"
            )


def cells(axes: Sequence[Axis], seed: int) -> list[list[dict[str, Any]]]:
    """The grid's rows: in each cell {setting: value}, its ``seed`` among them."""
    across, down = axes[0], axes[1] if len(axes) == 2 else None
    return [
        [
            {"seed": seed}
            | {across.name: _value(across.name, value)}
            | ({down.name: _value(down.name, low)} if down else {})
            for value in across.values
        ]
        for low in (down.values if down else ("",))
    ]
