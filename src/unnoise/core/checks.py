"""Settings that make no sense are refused by name, where they are given and not where they are used."""

from __future__ import annotations

import math

from unnoise.errors import UnnoiseError


def check_finite(**settings: float) -> None:
    """Refuses a setting that is infinite or not a number.

    Raises:
        UnnoiseError: with the setting's name.
    """
    for name, value in settings.items():
        if not math.isfinite(value):
            raise UnnoiseError(f"{name} {value:g} is not a finite number", "give it a number, or leave it out")


def check_between(low: float, high: float, **settings: float) -> None:
    """Refuses a setting that does not lie strictly between two numbers.

    Raises:
        UnnoiseError: with the setting's name.
    """
    for name, value in settings.items():
        if not low < value < high:
            wanted = f"above {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
            raise UnnoiseError(f"{name} {value:g} makes no sense", f"choose it {wanted}")


def check_whole(least: int, **settings: int) -> None:
    """Refuses a setting that is not a whole number, or below the least.

    Raises:
        UnnoiseError: with the setting's name.
    """
    for name, value in settings.items():
        if not isinstance(value, int) or value < least:
            raise UnnoiseError(f"{name} {value:g} makes no sense", f"choose a whole number, {least} or more")
