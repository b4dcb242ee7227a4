"""How a training receives a request to stop, and how to go on with it."""

from __future__ import annotations

import math
import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from unnoise.errors import UnnoiseError

TIME_LIMIT = "the time limit"
TOGETHER = 0.5  # seconds within which signals are one request


class Stopped(UnnoiseError):
    """A training that was asked to stop, and did so after saving.

    Args:
        what, hint: as of any ``UnnoiseError``.
        by: a signal's name, or ``TIME_LIMIT``.
    """

    def __init__(self, what: str, hint: str, by: str) -> None:
        super().__init__(what, hint)
        self.by = by


@contextmanager
def stop_flag() -> Iterator[list[str]]:
    """A list that gets the signal's name when the process is asked to stop: by Ctrl-C or Ctrl-\\, by `kill`, by a
    terminal that is closed, by the end of its processor time, by a queue of jobs (SIGUSR1, SIGUSR2).

    A second Ctrl-C, Ctrl-\\ or `kill` stops it at once. Not so what follows within half a second, since `timeout` sends
    its signal twice, nor a terminal that is closed, which the shell and the system both report.
    """
    flag: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    since = -math.inf

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal since
        if not flag:
            since = time.monotonic()
            flag.append(signal.Signals(number).name)
        elif number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT) and time.monotonic() - since > TOGETHER:
            if callable(at_once := before[signal.SIGINT]):
                at_once(signal.SIGINT, frame)
            raise KeyboardInterrupt

    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGXCPU]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signals.append(signal.SIGHUP)
    others = (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)  # unless the program that we are in has a use for them
    signals += [each for each in others if signal.getsignal(each) == signal.SIG_DFL]
    before = {each: signal.signal(each, note) for each in signals}
    try:
        yield flag
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def go_on(folder: Path) -> str:
    """The command that goes on with the training in a folder, from wherever it is typed."""
    return f"unnoise train --resume {shlex.quote(os.path.abspath(folder))}"
