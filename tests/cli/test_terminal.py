"""Pictures in terminals: what is sent shows the picture, and nothing is sent where it would do harm."""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unnoise.cli.main import main
from unnoise.cli.terminal import CHUNK, as_text, choose
from unnoise.errors import UnnoiseError


class Terminal(io.StringIO):
    def __init__(self, encoding: str = "utf-8", tty: bool = True) -> None:
        super().__init__()
        self._encoding, self.tty = encoding, tty

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self.tty


XTERM = {"TERM": "xterm-256color"}


@pytest.mark.parametrize(
    ("env", "way"),
    [
        (XTERM, "256"),
        (XTERM | {"COLORTERM": "truecolor"}, "truecolor"),
        ({"TERM": "xterm-kitty"}, "kitty"),
        (XTERM | {"KITTY_WINDOW_ID": "1"}, "kitty"),
        (XTERM | {"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        (XTERM | {"TERM_PROGRAM": "WezTerm"}, "iterm"),
        (XTERM | {"LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM": "tmux-256color", "TMUX": "x", "KITTY_WINDOW_ID": "1"}, "256"),
        ({"TERM": "screen", "LC_TERMINAL": "iTerm2", "COLORTERM": "truecolor"}, "truecolor"),
        (XTERM | {"STY": "1", "TERM_PROGRAM": "iTerm.app"}, "256"),
    ],
)
def test_what_a_terminal_can_do_is_told_by_its_variables(env: dict[str, str], way: str) -> None:
    assert choose(env, Terminal()) == way


@pytest.mark.parametrize(
    ("env", "stream", "said"),
    [
        ({"TERM": "xterm-kitty"}, Terminal(tty=False), "standard output is none"),
        ({"TERM": "dumb"}, Terminal(), "shows no pictures"),
        ({}, Terminal(), "shows no pictures"),
        (XTERM | {"NO_COLOR": "1"}, Terminal(), "NO_COLOR"),
        (XTERM, Terminal("ascii"), "cannot show half blocks"),
    ],
)
def test_where_there_is_no_picture_it_is_said(env: dict[str, str], stream: Terminal, said: str) -> None:
    with pytest.raises(UnnoiseError, match=said):
        choose(env, stream)


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def test_kitty_gets_the_whole_png_in_chunks(picture: Image.Image) -> None:
    text = as_text(picture, "kitty")
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert re.sub(r"\x1b_G[^\x1b]*\x1b\\", "", text) == "\n"
    assert len(parts) > 1
    assert parts[0][0] == "a=T,f=100,q=2,m=1"
    assert [keys for keys, _ in parts[1:]] == ["m=1"] * (len(parts) - 2) + ["m=0"]
    assert all(len(part) == CHUNK for _, part in parts[:-1])
    with Image.open(io.BytesIO(base64.b64decode("".join(part for _, part in parts)))) as shown:
        assert shown.tobytes() == picture.tobytes()
    assert re.findall(r"\x1b_G([^;]*);", as_text(Image.new("RGB", (2, 2)), "kitty")) == ["a=T,f=100,q=2,m=0"]


def test_iterm_gets_the_whole_png(picture: Image.Image) -> None:
    found = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+):([^\x07]*)\x07\n", as_text(picture, "iterm"))
    assert found
    data = base64.b64decode(found[2])
    assert len(data) == int(found[1])
    with Image.open(io.BytesIO(data)) as shown:
        assert shown.tobytes() == picture.tobytes()


def cells(text: str) -> list[list[tuple[list[int], list[int]]]]:
    lines = [line.removesuffix("\x1b[0m") for line in text.splitlines()]
    found = [re.findall(r"\x1b\[38;[25];([\d;]+);48;[25];([\d;]+)m▀", line) for line in lines]
    return [[tuple([int(n) for n in half.split(";")] for half in cell) for cell in line] for line in found]  # type: ignore[misc]


def test_half_blocks_have_the_picture_s_colours(picture: Image.Image) -> None:
    text = as_text(picture, "truecolor")
    lines, wanted = cells(text), np.asarray(picture)
    assert (len(lines), {len(line) for line in lines}) == (32, {64})
    for y, line in enumerate(lines):
        for x, (above, below) in enumerate(line):
            assert above == wanted[2 * y, x].tolist()
            assert below == wanted[2 * y + 1, x].tolist()
    assert all(line.endswith("\x1b[0m") for line in text.splitlines()), "no colour runs on"
    small = cells(as_text(picture, "truecolor", columns=10))
    assert (len(small), len(small[0])) == (5, 10)


def test_256_colours_are_the_nearest_of_the_cube() -> None:
    levels = np.array([0, 95, 135, 175, 215, 255])
    for value in range(256):
        ((((number,), _),),) = cells(as_text(Image.new("RGB", (1, 2), (value, 0, 255)), "256"))
        red, green, blue = (number - 16) // 36, (number - 16) // 6 % 6, (number - 16) % 6
        assert (green, blue) == (0, 5)
        assert abs(levels[red] - value) == abs(levels - value).min()


def test_generate_shows_on_a_terminal_alone(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["generate", "x", "--seed", "1", "--show", "--model", str(tiny_model)]
    assert main(args) == 1
    assert "--show needs a terminal" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    for name in ("TMUX", "STY", "KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-kitty")
    assert main(args) == 0
    first, shown, last = re.fullmatch(r"(.*\n)(\x1b_.*\\\n)(.*\n)", terminal.getvalue(), flags=re.S).groups()  # type: ignore[union-attr]
    assert first == "pictures/x-1.png  seed 1\n"
    assert last.startswith("x: seed 1")
    data = base64.b64decode("".join(re.findall(r";([^\x1b;]*)\x1b\\", shown)))
    with Image.open(io.BytesIO(data)) as image, Image.open("pictures/x-1.png") as file:
        assert image.tobytes() == file.tobytes()
