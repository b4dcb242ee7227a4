"""The standard streams, which may be closed when the program starts."""

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
    """Opens those of the three that are closed, on the null device.

    Otherwise the next opened file would get a closed one's number, and libraries would print into
    it. Standard input then cannot be read, nor standard output written, which gives an error if they are needed;
    standard error is discarded.
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
    """Ensures at the end that all printed text has been written.

    Raises:
        BrokenPipeError: the reader has exited on purpose.
        UnnoiseError: standard output is closed or cannot be written.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without Unicode shows what it can
    try:
        yield
    except (OSError, SystemExit):  # an OSError may come from a print, and then comes again
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
    """Redirects standard error to nowhere if it cannot be written, so that it does not change the exit status."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        hush(sys.stderr)
