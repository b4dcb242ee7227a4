"""The program started without some of its standard streams, or with ones that are full or gone."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from unnoise.cli import streams
from unnoise.cli.main import main
from unnoise.errors import UnnoiseError

SRC = Path(__file__).resolve().parent.parent.parent / "src"


class Full(io.StringIO):
    """A standard output that fails as it is flushed."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EBADF, "unnoise: the standard output is closed, nobody gets the answer; leave it open\n"),
        (errno.EIO, "unnoise: the standard output cannot be written (Input/output error); send it elsewhere\n"),
        (errno.EPIPE, ""),
    ],
)
@pytest.mark.parametrize("args", [["--version"], ["list"], ["inspect", "--help"]])
def test_an_answer_that_nobody_gets(
    number: int, said: str, args: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Full(number))
    assert main(args) == 1
    assert capsys.readouterr().err == said


def test_a_mistake_is_told_even_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", Full(errno.EBADF))
    assert main(["generate"]) == 1
    assert capsys.readouterr().err.startswith("unnoise: the prompt is missing")


def test_a_result_that_is_delivered_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the two above: the same stream, which works."""
    monkeypatch.setattr(Full, "flush", lambda self: None)
    monkeypatch.setattr(sys, "stdout", Full(errno.EBADF))
    assert main(["--version"]) == 0
    with streams.printed():
        pass
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stdout", Full(errno.ENOSPC))
    with pytest.raises(UnnoiseError, match="No space left"), streams.printed():
        pass


# whole processes

CLOSED = ["", "<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"]
FULL = [">/dev/full", "2>/dev/full", "| true", "2>&1 | true"]


def shell(command: str, **env: str) -> tuple[int, str]:
    """(status of `unnoise COMMAND`, what it said on a standard error that it was left with)."""
    whole = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1", **env}
    line = f"set -o pipefail; {sys.executable} -m unnoise {command}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=whole, timeout=120)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.returncode, done.stderr


def test_pictures_are_drawn_without_any_stream(tiny_model: Path, tmp_path: Path) -> None:
    """And no text of a library lands in a file that got a closed stream's number."""
    status, _ = shell(f"generate apple --seed 1 --model {tiny_model} --out {tmp_path / 'out'} <&- >&- 2>&-")
    assert status == 0
    (picture,) = (tmp_path / "out").iterdir()
    assert main(["replay", str(picture), "--model", str(tiny_model)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [*CLOSED, *FULL])
def test_pictures_are_drawn_with_any_streams(how: str, tiny_model: Path, tmp_path: Path) -> None:
    command = f"generate apple --seed 1 --model {tiny_model} --out {tmp_path / 'out'}"
    status, said = shell(f"{command} {how}")
    assert status == 0
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert len(said.splitlines()) <= 1
    status, said = shell(f"{command} --json {how}")
    delivered = ">" not in how.replace("2>&1 |", "|").replace("2>", "") and "|" not in how
    assert (status == 0) == delivered, "who asked for JSON and cannot get it is told by the status"
    assert len(said.splitlines()) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("how", CLOSED)
@pytest.mark.parametrize("command", ["list", "inspect --help", "data show --path nowhere"])
def test_answers_with_any_streams(command: str, how: str) -> None:
    status, said = shell(f"{command} {how}")
    wrong = "nowhere" in command  # there is no set
    assert (status == 0) == (not wrong and " >" not in f" {how.replace('2>', '')}")
    assert len(said.splitlines()) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("how", CLOSED)
def test_trainings_with_any_streams(how: str, tmp_path: Path) -> None:
    """The toy's recipe in a process of its own."""
    code = "import sys, training.toy; from unnoise.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = f"train toy --train.samples 32 --run.dtype float32 --run.out {tmp_path / 'run'}"
    env = {**os.environ, "PYTHONPATH": f"{SRC}{os.pathsep}{SRC.parent / 'tests'}", "OMP_NUM_THREADS": "1"}
    line = f"{sys.executable} -c '{code}' {words} {how}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 8
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


@pytest.mark.slow
def test_help_on_a_terminal_of_one_column() -> None:
    main_end, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 1, 0, 0))
    env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    env |= {"PYTHONPATH": str(SRC), "TERM": "xterm"}
    command = [sys.executable, "-m", "unnoise", "generate", "--help"]
    process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=env)
    os.close(other)
    said = b""
    while True:
        try:
            part = os.read(main_end, 65536)
        except OSError:  # the other end is closed
            break
        said += part
        assert len(said) < 100_000
    os.close(main_end)
    assert process.wait(60) == 0
    assert b"--outpaint" in said


@pytest.mark.slow
def test_a_prompt_of_other_letters_without_utf8_mode(tiny_model: Path, tmp_path: Path) -> None:
    """The bytes of a prompt are the same under any locale, and so is its picture."""
    made = []
    for number, env in enumerate(({}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})):
        out = tmp_path / f"größe{number}"
        status, said = shell(f"generate 'ein Käse' --seed 1 --model {tiny_model} --out '{out}'", **env)
        assert status == 0, said
        made.append(next(out.iterdir()).read_bytes())
    assert made[0] == made[1]
    status, said = shell("generate $'k\\xe4se'", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert status == 1
    assert said.startswith("unnoise: the prompt is no UTF-8 text (byte 0xe4)")
