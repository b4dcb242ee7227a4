"""How far long work has come, on the standard error."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from unnoise.notes import say
from unnoise.training.report import clock

Item = TypeVar("Item")
SECONDS = 10.0  # between two lines, at least


def counted(what: str, items: Iterable[Item], count: int | None = None) -> Iterator[Item]:
    """The items, and every ten seconds a line that tells which is done and how long the others will take.

    Args:
        what: they are, in a few words.
        count: how many there are, where ``items`` has no length.
    """
    count = len(items) if count is None else count  # type: ignore[arg-type]
    began = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said > SECONDS and done < count:
            said = now
            say(f"{done} of {count} {what}, {clock((now - began) / done * (count - done))} left")
