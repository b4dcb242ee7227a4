"""The record of how a picture was made, by any tool, and the conversion of values into its fields.

Nothing in such a file is trusted. A value that does not fit its field is never guessed: it is left out and listed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from unnoise.errors import UnnoiseError

MAX_TEXT = 2**23  # bytes of one text, unpacked: the largest workflows have about one million
MAX_LEFT_OUT = 200  # names of unused values; a hostile file has more
MAX_SHOWN = 200  # characters of a value that are kept to be shown
EXTRA = re.compile(r"<(lora|lyco|hypernet):([^<>:]{1,200})(?::([^<>]{0,200}))?>")
MAX_DIGITS = 300  # of a whole number in JSON; a longer one is infinite
MAX_STEPS, MAX_SCALE = 10_000, 100.0  # as ``Request`` has them


@dataclass(frozen=True)
class Reading:
    """How a picture was made, according to its file. A field that is missing or invalid in the file is None.

    Attributes:
        tool: the common name of the tool that wrote it: "AUTOMATIC1111", "ComfyUI"; "unnoise" for our own.
        prompt, negative: as in the file, with line breaks.
        steps: 1 to 10,000.
        sampler, schedule: in the tool's spelling; ``names`` has ours.
        cfg_scale: in our convention: 1 is no guidance. -100 to 100.
        seed: 0 to 2^63 - 1.
        size: (width, height) in pixels.
        strength: the strength of a start picture, above 0 to 1; None if there was none.
        eta: of samplers that have one.
        clip_skip: the layer of the text tower, counted from the end; 1 is the last.
        literal: brackets in the prompt are text, or have another meaning than here.
        left_out: {name: value, shortened} of everything in the file that has no field above.
        notes: notes for the user, a sentence each: several samplers, invalid values.
        record: of unnoise's own pictures, the whole record; of a grid the first cell's.
    """

    tool: str
    prompt: str | None = None
    negative: str | None = None
    steps: int | None = None
    sampler: str | None = None
    schedule: str | None = None
    cfg_scale: float | None = None
    seed: int | None = None
    size: tuple[int, int] | None = None
    strength: float | None = None
    eta: float | None = None
    clip_skip: int | None = None
    literal: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    record: Mapping[str, Any] | None = None


def whole(value: Any) -> int | None:
    """A value as a whole number, from 7, 7.0 or "7"; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r" *[+-]?[0-9]{1,20} *", value):
        return int(value)
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value if type(value) is int else None


def real(value: Any) -> float | None:
    """A value as a finite number, also from a string; None for anything else."""
    if isinstance(value, str):
        if len(value) > 40 or not re.fullmatch(r" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})? *", value):
            return None
        value = float(value)
    if type(value) is int and abs(value) < 2**64:
        return float(value)
    return value if isinstance(value, float) and math.isfinite(value) else None


def short(value: Any) -> str:
    """A value in a few words, to be shown; not yet escaped for a terminal."""
    if isinstance(value, str):
        return value[:MAX_SHOWN]
    if isinstance(value, int | float | bool) or value is None:
        return str(value)[:MAX_SHOWN] if not isinstance(value, int) or abs(value) < 2**200 else "a huge number"
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{len(value):,} entries" if isinstance(value, list | dict) else type(value).__name__


def empty(value: Any) -> bool:
    """Whether a value is that of an unused option."""
    return value is None or value is False or value in ("", "None", "none") or value in ([], {})


def read_json(text: str) -> Any:
    """A JSON value.

    Raises:
        ValueError: it is no JSON, too long, or nested too deeply.
    """
    if len(text) > MAX_TEXT:
        raise ValueError("too long")
    try:
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < MAX_DIGITS else math.inf)
    except RecursionError:
        raise ValueError("too deep") from None


def json_object(text: Any) -> dict[str, Any] | None:
    """The JSON object that a text holds; None for everything else."""
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return None
    try:
        value = read_json(text.strip().strip("\0"))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class Builder:
    """Builds a record from values, and lists the values that do not fit.

    >>> Builder("A tool", {"steps": "20", "seed": -1, "hat": "red"}).take(steps="steps", seed="seed").reading().left_out
    {'seed': '-1', 'hat': 'red'}
    """

    def __init__(self, tool: str, values: Mapping[str, Any], **fields: Any) -> None:
        self.tool, self.values, self.fields = tool, dict(values), fields
        self.notes: list[str] = []
        self.more: dict[str, Any] = {}

    def take(self, **names: str | Iterable[str]) -> Builder:
        """Fills each field from the first of its names that exists; for ``size`` the value holds both sides."""
        for field_name, keys in names.items():
            for key in (keys,) if isinstance(keys, str) else keys:
                if key in self.values:
                    self.put(field_name, self.values.pop(key), key)
                    break
        return self

    def put(self, name: str, value: Any, key: str = "") -> None:
        """Sets one field; a value that does not fit is listed as left out, under its name in the file."""
        if self.fields.get(name) is not None:
            return
        fitted = FIT[name](value)
        if fitted is not None:
            self.fields[name] = fitted
        elif not empty(value):
            self.more[key or name] = value

    def size(self, width: str, height: str) -> Builder:
        """Fills the size from two values."""
        pair = (whole(self.values.get(width)), whole(self.values.get(height)))
        if all(side is not None and 0 < side < 2**31 for side in pair):
            self.fields["size"] = pair
            del self.values[width], self.values[height]
        return self

    def note(self, text: str) -> None:
        """Adds a note for the user, once."""
        if text not in self.notes:
            self.notes.append(text)

    def reading(self) -> Reading:
        """The record; it lists unused values, and the LoRAs and hypernetworks in the prompts."""
        for name in ("prompt", "negative"):
            if tags := EXTRA.findall(self.fields.get(name) or ""):
                self.more |= {f"{kind} {what}": weight or "1" for kind, what, weight in tags}
                self.fields[name] = EXTRA.sub("", self.fields[name]).strip(" ,")
        rest = {str(k): short(v) for k, v in {**self.more, **self.values}.items() if not empty(v)}
        left_out = {key[:80]: rest[key] for key in list(rest)[:MAX_LEFT_OUT]}
        if len(rest) > len(left_out):
            self.note(f"it has {len(rest) - len(left_out):,} more entries")
        return Reading(self.tool, **self.fields, left_out=left_out, notes=tuple(self.notes))


def _between(kind: Any, low: float, high: float) -> Any:
    def fit(value: Any) -> Any:
        number = kind(value)
        return number if number is not None and low <= number <= high else None

    return fit


def _size(value: Any) -> tuple[int, int] | None:
    """The two numbers of "512x400", "(768, 1280)" or a pair."""
    match = re.fullmatch(r"\(? *([0-9]{1,9}) *[x×,] *([0-9]{1,9}) *\)?", value) if isinstance(value, str) else None
    pair = tuple(map(int, match.groups())) if match else value
    if isinstance(pair, tuple) and len(pair) == 2 and all(type(side) is int and side > 0 for side in pair):
        return pair
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


FIT = {
    "prompt": _text,
    "negative": _text,
    "sampler": _text,
    "schedule": _text,
    "steps": _between(whole, 1, MAX_STEPS),
    "cfg_scale": _between(real, -MAX_SCALE, MAX_SCALE),
    "seed": _between(whole, 0, 2**63 - 1),
    "strength": _between(real, 1e-9, 1),
    "eta": _between(real, 0, 100),
    "clip_skip": _between(whole, 1, 100),
    "size": _size,
}


def agreed(tool: str, several: list[Reading], what: str, names: list[str] | None = None) -> Reading:
    """One record of several: the values that all of them share, with a note that lists the differences."""
    fields = ("prompt", "negative", "steps", "sampler", "schedule", "cfg_scale", "seed", "size", "strength", "eta",
              "clip_skip")  # fmt: skip
    same: dict[str, Any] = {}
    differ: dict[str, str] = {}
    for name in fields:
        values = list(dict.fromkeys(getattr(each, name) for each in several))
        if len(values) == 1:
            same[name] = values[0]
        else:
            differ[name] = " | ".join(short(value)[:60] for value in values)
    members = f" ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})" if names else ""
    notes = [
        f"it holds {len(several)} {what}{members}: there is no single answer, and the values that all share are taken"
    ]
    left_out = {f"{name} of {len(several)} {what}": value for name, value in differ.items()}
    for each in several:
        notes += [note for note in each.notes if note not in notes]
        left_out |= each.left_out
    literal = any(each.literal for each in several)
    return Reading(tool, **same, literal=literal, left_out=left_out, notes=tuple(notes))


def unreadable(path: Any, why: str) -> UnnoiseError:
    """A file that cannot be opened, in one line."""
    return UnnoiseError(f"{path} cannot be read: {why}", "name a picture, or a .json file of settings")
