"""Progress of long work, on standard error."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from unnoise.notes import say
from unnoise.training.report import clock

Item = TypeVar("Item")
SECONDS = 10.0  # between two lines, at least


def counted(what: str, items: Iterable[Item], count: int | None = None) -> Iterator[Item]:
    """Yields the items, and every ten seconds prints a line with the number done and the remaining time.

    Args:
        what: a name for the items, in a few words.
        count: their number, if ``items`` has no length.
    """
    count = len(items) if count is None else count  # type: ignore[arg-type]
    began = last = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > SECONDS and number < count:
            last = now
            say(f"{number} of {count} {what}, {clock((now - began) / number * (count - number))} left")
