"""What is said beside the work never ends it: streams that are closed, full or without a reader."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable

import pytest

from unnoise import notes
from unnoise.notes import Aside

Said = pytest.CaptureFixture[str]


class Broken(io.StringIO):
    """A stream whose every write or flush fails with this number."""

    def __init__(self, number: int, at: str = "write") -> None:
        super().__init__()
        self.number, self.at, self.tries = number, at, 0

    def _fail(self) -> None:
        self.tries += 1
        raise OSError(self.number, os.strerror(self.number))

    def write(self, text: str) -> int:
        return self._fail() if self.at == "write" else super().write(text)  # type: ignore[return-value]

    def flush(self) -> None:
        if self.at == "flush":
            self._fail()

    def isatty(self) -> bool:
        return True


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


BROKEN: dict[str, Callable[[], io.StringIO | None]] = {
    "a reader that is gone": lambda: Broken(errno.EPIPE),
    "a full disk, found when flushed": lambda: Broken(errno.ENOSPC, "flush"),
    "a terminal that was closed": lambda: Broken(errno.EIO),
    "a closed number": lambda: Broken(errno.EBADF, "flush"),
    "a closed stream": closed,
    "no stream at all": lambda: None,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_note_that_nobody_can_hear(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", BROKEN[kind]())
    notes.say("note: something")


@pytest.mark.parametrize("kind", BROKEN)
def test_progress_that_nobody_can_see(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On what claims to be a terminal, so that it is drawn."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", BROKEN[kind]())
    with notes.progress("drawing", "steps") as line:
        task = line.add_task("", total=3)
        for _ in range(3):
            line.advance(task)
            line.refresh()
        notes.say("note: above the line")
    assert line.finished


def test_the_control_a_plain_console_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setattr(sys, "stderr", Broken(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        Console(stderr=True).print("loss 0.5")


def test_a_stream_that_is_gone_is_not_tried_again_and_a_full_pipe_is() -> None:
    gone, full = Broken(errno.EPIPE), Broken(errno.EAGAIN)
    for stream, tries in ((gone, 1), (full, 3)):
        aside = Aside(stream)
        for _ in range(3):
            assert aside.write("loss") == 4
        assert stream.tries == tries


def test_a_note_goes_above_the_line_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with notes.progress("drawing", "steps") as line:
        line.add_task("", total=3)
        notes.say("note: heard")
    assert terminal.getvalue().count("note: heard\n") == 1


@pytest.mark.parametrize(("number", "why"), [(errno.ENOSPC, "No space left on device"), (errno.EBADF, "it is closed")])
def test_what_is_told_of_finished_work(number: int, why: str, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(number))
    notes.tell("pictures/red-apple-1.png")
    assert capsys.readouterr().err == f"note: the standard output cannot be written ({why})\n"


def test_a_reader_that_has_seen_enough_is_not_talked_about(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(errno.EPIPE))
    notes.tell("pictures/red-apple-1.png")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [("0", None), ("1", 60), ("4", 60), ("-3", None), ("61", 61), ("1000000000", 240), ("a", None), ("", None)],
)
def test_the_width_is_bounded(columns: str, wanted: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no width leaves the terminal's own, which a test has or has not."""
    monkeypatch.setenv("COLUMNS", columns)
    assert notes.width() == wanted or (wanted is None and notes.NARROWEST <= notes.width() <= notes.WIDEST)
