"""Notes, progress and the paths of results: output beside the work. A closed or full stream never ends the work.

A terminal may be closed, a pipe's reader may have exited, a log's disk may be full. Output that is itself the
answer (`unnoise list`, ``--json``) does not come here: it is printed, and it is an error if that fails.
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

NARROWEST, WIDEST = 60, 240  # columns that help and tables are laid out for, whatever the terminal's width


class Aside(io.TextIOBase):
    """A text stream that drops text that cannot be written, and stops trying once the other end is closed.

    Args:
        stream: the stream to write to; None drops everything.
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
    """Writes a line to standard error, or drops it if that cannot be written."""
    aside = Aside(sys.stderr)
    aside.write(f"{text}\n")
    aside.flush()


def tell(text: str) -> None:
    """Writes lines about finished work to standard output. If that fails, a note says so, once."""
    try:
        print(text, flush=True)
    except (OSError, ValueError) as error:
        hush(sys.stdout)
        if not isinstance(error, BrokenPipeError):  # the reader has exited on purpose
            closed = getattr(error, "errno", errno.EBADF) == errno.EBADF
            why = "it is closed" if closed else getattr(error, "strerror", None) or error
            say(f"note: the standard output cannot be written ({why})")


def hush(stream: TextIO) -> None:
    """Redirects a stream that cannot be written to nowhere: its buffer would be written again at the exit."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


def size_text(count: int) -> str:
    """Bytes for people: 6.94 GB."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count} B"


def width() -> int:
    """The columns of the terminal, within bounds that keep help readable."""
    return min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)


def console() -> Console:
    """A console on standard error."""
    from rich.console import Console

    usable = NARROWEST <= shutil.get_terminal_size().columns <= WIDEST
    return Console(file=Aside(sys.stderr), width=None if usable else width())  # type: ignore[arg-type]


def progress(what: str, unit: str, **more: Any) -> Progress:
    """A line with progress and remaining time on standard error; hidden if that is no terminal.

    Args:
        what: the activity: "drawing".
        unit: the unit of the count: "steps".
        more: arguments of ``rich.progress.Progress``.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(None), TextColumn(f"{{task.completed}}/{{task.total}} {unit}  ETA"))
    err = console()
    return Progress(*columns, TimeRemainingColumn(), console=err, transient=True, disable=not err.is_terminal, **more)
