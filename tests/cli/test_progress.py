"""Lines that tell how far long work has come."""

from __future__ import annotations

import pytest

from unnoise.cli import progress
from unnoise.cli.progress import counted


def test_lines_tell_what_is_done_and_how_long_the_rest_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 6.0, 12.0, 18.0, 24.0])  # begun, then after each item
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    assert list(counted("batches of euler", "abcd")) == list("abcd")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "2 of 4 batches of euler, 0:00:12 left\n", "every ten seconds at most, and not at the end"


def test_what_is_quick_is_not_talked_about(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(counted("things", iter(range(3)), 3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
