"""Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Lets Ctrl-C end what runs within as ``KeyboardInterrupt``, whatever a library makes of it.

    Python raises the interrupt wherever it happens to be. In the middle of a library's compiled code (torch,
    safetensors) it may be dropped, and come out as a ``ValueError`` about something else.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed, and anything was raised after it.
    """
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    ours = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # nobody else has a use for it
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception:
        if pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
