"""The standard streams, which a program may be started without."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator

from unnoise.errors import UnnoiseError
from unnoise.notes import hush


def open_closed() -> None:
    """Opens those of the three that are closed, on nothing.

    Else the next file that is opened would get a closed one's number, and what libraries print would be written into
    it. The standard input cannot be read then, nor the standard output be written, so that whoever wants them is told;
    what goes to the standard error is lost.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (open to the end, as the others)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


@contextlib.contextmanager
def printed() -> Iterator[None]:
    """Sees at the end that all that was printed has been delivered.

    Raises:
        BrokenPipeError: whoever read it has seen enough.
        UnnoiseError: the standard output is closed or cannot be written.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without Unicode shows what it can
    try:
        yield
    except (OSError, SystemExit):  # the first may be of a print, and then comes again
        _flush()
        raise
    _flush()


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        hush(sys.stdout)
        raise
    except (OSError, ValueError) as error:
        hush(sys.stdout)
        if getattr(error, "errno", errno.EBADF) == errno.EBADF:
            raise UnnoiseError("the standard output is closed, nobody gets the answer", "leave it open") from None
        why = getattr(error, "strerror", None) or error
        raise UnnoiseError(f"the standard output cannot be written ({why})", "send it elsewhere") from None


def settle() -> None:
    """Lets a standard error that cannot be written lead nowhere, so that it changes no status at the exit."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        hush(sys.stderr)
