"""Settings as JSON and back, by a closed list of types."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from unnoise.errors import UnnoiseError


def to_json(config: Any) -> dict[str, Any]:
    """A config dataclass as plain JSON values."""
    return dataclasses.asdict(config)


def from_json(cls: type, values: Any, where: str) -> Any:
    """The config dataclass that the values describe.

    Raises:
        UnnoiseError: an unknown or missing key, or a value of the wrong type; nothing is guessed.
    """
    if not isinstance(values, dict):
        raise UnnoiseError(f"{where} is no record of settings", "the model is damaged or made by another program")
    hints = typing.get_type_hints(cls)
    unknown = sorted(values.keys() - hints.keys())
    if unknown:
        raise UnnoiseError(f"{where} has the unknown setting {unknown[0]!r}", "update unnoise, or use another model")
    return cls(**{key: _value(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    wrong = UnnoiseError(f"{where} is {value!r}, not {hint}", "the model is damaged or made by another program")
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):
            return None
        return _value(next(a for a in typing.get_args(hint) if a is not type(None)), value, where)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise wrong
        return value
    if origin is tuple:
        inner = typing.get_args(hint)
        if not isinstance(value, list | tuple) or len(value) > 64:
            raise wrong
        kinds = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is Ellipsis else list(inner)
        if len(kinds) != len(value):
            raise wrong
        return tuple(_value(kind, each, where) for kind, each in zip(kinds, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool) and not -1 <= value <= 1_000_000:
        raise wrong  # a limit before anything of that size is allocated
    if hint in (int, float, str, bool) and type(value) is hint:
        return value
    raise wrong


def check_extent(where: str, **counts: tuple[int, int]) -> None:
    """Ensures that counts of others' settings are small enough to make a table of, before one is made.

    Args:
        counts: {what is counted: (how many, how many at most)}.

    Raises:
        UnnoiseError: one is below 0 or too large; no published model has as many.
    """
    for name, (value, most) in counts.items():
        if not 0 <= value <= most:
            raise UnnoiseError(f"{where} has {value} {name}, out of range: 0 to {most}", "it is damaged; copy it again")


def check_only(values: Mapping[str, Any], only: Mapping[str, tuple[tuple[Any, ...], str]], where: str) -> None:
    """Ensures that others' settings which ours have no field for have values that ours can stand for.

    Args:
        values: another program's settings; those that are absent have its defaults, which ours share.
        only: {setting: (its good values, what any other would mean)}; of a list, each element is looked at.

    Raises:
        UnnoiseError: a setting has another value; named with what it means.
    """
    for name, (good, meaning) in only.items():
        value = values.get(name, good[0])
        if any(each not in good for each in (value if isinstance(value, list | tuple) else [value])):
            raise UnnoiseError(f"{where} has {name} {value!r}: {meaning}", "use a model without that")
