"""What is said beside the work: notes, how far it is, where its results lie. A listener who is gone never ends it.

A terminal may be closed, a reader may have seen enough, a log's disk may be full. Results that are themselves the
answer (`unnoise list`, ``--json``) do not come here: they are printed, and it is an error if they cannot be.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

NARROWEST, WIDEST = 60, 240  # columns that help and tables are laid out for, whatever the terminal says


class Aside(io.TextIOBase):
    """A text stream that drops what cannot be written, and tries no more once its listener is gone.

    Args:
        stream: what it writes to; None drops everything.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        if self.stream is not None:
            try:
                self.stream.write(text)
            except BlockingIOError:  # a full pipe, which may be read again
                pass
            except (OSError, ValueError):
                self.stream = None
        return len(text)

    def flush(self) -> None:
        if self.stream is not None:
            try:
                self.stream.flush()
            except BlockingIOError:
                pass
            except (OSError, ValueError):
                self.stream = None

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self.stream is not None and self.stream.isatty()
        return False

    def fileno(self) -> int:
        if self.stream is None:
            raise io.UnsupportedOperation("there is no stream")
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.stream, "encoding", None) or "utf-8"


def say(text: str) -> None:
    """A line on the standard error, or nowhere if that cannot be written."""
    aside = Aside(sys.stderr)
    aside.write(f"{text}\n")
    aside.flush()


def tell(text: str) -> None:
    """Lines on the standard output about what is made already. If they cannot be written, a note says so, once."""
    try:
        print(text, flush=True)
    except (OSError, ValueError) as error:
        hush(sys.stdout)
        if not isinstance(error, BrokenPipeError):  # whoever read has seen enough
            closed = getattr(error, "errno", errno.EBADF) == errno.EBADF
            why = "it is closed" if closed else getattr(error, "strerror", None) or error
            say(f"note: the standard output cannot be written ({why})")


def hush(stream: TextIO) -> None:
    """Lets a stream that cannot be written lead nowhere: what it still holds would be tried again at the exit."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


def width() -> int:
    """The columns of the terminal, within bounds: in one column help would have no end, in a billion no beginning."""
    return min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)


def console() -> Console:
    """A console on the standard error."""
    from rich.console import Console

    usable = NARROWEST <= shutil.get_terminal_size().columns <= WIDEST
    return Console(file=Aside(sys.stderr), width=None if usable else width())  # type: ignore[arg-type]


def progress(what: str, unit: str, **more: Any) -> Progress:
    """A line of what is done and how long the rest takes, on the standard error; hidden where that is no terminal.

    Args:
        what: "drawing".
        unit: of what is counted: "steps".
        more: as ``rich.progress.Progress`` takes it.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(None), TextColumn(f"{{task.completed}}/{{task.total}} {unit}  ETA"))
    err = console()
    return Progress(*columns, TimeRemainingColumn(), console=err, transient=True, disable=not err.is_terminal, **more)
