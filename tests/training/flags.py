"""The flags of every recipe, as they are; run this file to freeze them in flags.txt."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unnoise.cli.train import _with_options
from unnoise.core.registry import find, index

FROZEN = Path(__file__).with_suffix(".txt")


def leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """(flag, default) of every setting below one argument of a recipe."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), f"{where}.{field.name}")
    else:
        yield f"--{where.replace('_', '-')}", value


def settings(function: Any) -> Iterator[tuple[str, Any]]:
    """(flag, default) of every setting of a recipe."""
    for parameter in inspect.signature(function).parameters.values():
        yield from leaves(parameter.default, parameter.name)


def flags(recipe: str) -> list[str]:
    """The options of ``unnoise train RECIPE``."""
    return [flag for flag, _ in settings(_with_options(find("recipes", recipe), recipe, []))]


def listing() -> str:
    """All recipes with their flags."""
    return "".join("\n".join([recipe, *(f"  {flag}" for flag in flags(recipe))]) + "\n" for recipe in index("recipes"))


def read(text: str) -> dict[str, list[str]]:
    """{recipe: flags} of a listing."""
    found: dict[str, list[str]] = {}
    recipe = ""
    for line in text.splitlines():
        if line.startswith("  "):
            found[recipe].append(line.strip())
        else:
            recipe = line
            found[recipe] = []
    return found


if __name__ == "__main__":
    FROZEN.write_text(listing(), "utf-8")
