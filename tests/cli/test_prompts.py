"""Prompts from a file: one a line, comments, limits, and the line in which something is wrong."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from unnoise.cli.main import main
from unnoise.cli.prompts import MAX_BYTES, MAX_PROMPTS, Prompt, parse
from unnoise.engine.engine import Engine
from unnoise.errors import UnnoiseError


def test_lines_comments_and_blanks() -> None:
    text = "\ufeff# mine\r\nred apple\r\n\n  \t\n  blue heart  \n#no\n(red:1.2) hat # no comment"
    assert parse(text.encode(), "a.txt") == [
        Prompt("red apple", "a.txt, line 2"),
        Prompt("blue heart", "a.txt, line 5"),
        Prompt("(red:1.2) hat # no comment", "a.txt, line 7"),
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "a.txt has no prompts"),
        (b"# only\n\n# comments\n", "a.txt has no prompts"),
        (b"red\n\xff\xfe\n", "a.txt, line 2: no UTF-8 text"),
        ("red\nb\u00e9".encode("latin-1"), "a.txt, line 2: no UTF-8 text"),
        (b"red\nb\0l\0ue\0x", "a.txt, line 2: the prompt has NULs between its letters"),
        (b"x\n" * (MAX_PROMPTS + 1), f"a.txt, line {MAX_PROMPTS + 1}: more than 1,000 prompts"),
        (b"x" * (MAX_BYTES + 1), "a.txt has more than 1,048,576 bytes"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_files_that_are_no_prompts_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(UnnoiseError) as error:
        parse(data, "a.txt")
    assert error.value.what.startswith(said)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_files_of_other_programs_hold_the_same_prompts(encoding: str, end: str) -> None:
    data = end.join(["red  apple ", "# no", "", "bl\x1bue\u2028caf\u00e9"]).encode(encoding)
    assert [each.text for each in parse(data, "a.txt")] == ["red apple", "bl ue caf\u00e9"]


def test_as_many_as_are_allowed() -> None:
    assert len(parse(b"x\n" * MAX_PROMPTS, "a.txt")) == MAX_PROMPTS


@pytest.mark.parametrize("piped", [False, True])
def test_each_prompt_is_drawn_as_if_it_were_alone(
    piped: bool,
    tiny_model: Path,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    data = b"# two\nred apple\n\n(blue:1.3) heart\n"
    (tmp_path / "list.txt").write_bytes(data)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    file = "-" if piped else "list.txt"
    args = ["generate", "--prompts", file, "--seed", "7", "--count", "2", "--json", "--model", str(tiny_model)]
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    told = [(each["prompt"], each["seed"]) for each in found["pictures"]]
    assert told == [(prompt, seed) for prompt in ("red apple", "(blue:1.3) heart") for seed in (7, 8)]
    assert "prompt" not in found
    for number, each in enumerate(found["pictures"]):
        with Image.open(each["path"]) as image:
            wanted = engine.generate(each["prompt"], seed=7, count=2)[number % 2]
            assert image.tobytes() == wanted.tobytes()
            assert json.loads(image.text["unnoise"])["prompt"] == each["prompt"]  # type: ignore[attr-defined]
