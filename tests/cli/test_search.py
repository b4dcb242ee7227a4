"""``unnoise search``: what it prints can be typed, and stays the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from unnoise.cli.main import main

Said = pytest.CaptureFixture[str]


def test_what_it_prints_can_be_typed(tiny_model: Path, tmp_path: Path, capsys: Said) -> None:
    args = ["search", "red apple", "blue heart", "--steps", "3", "--grid", "8", "--model", str(tiny_model)]
    assert main(args) == 0
    first, second = capsys.readouterr().out.splitlines()
    found = re.fullmatch(r'--steps 3 --spacing "(custom\(times=\[1, [\d., ]+\]\))"', first)
    assert found, first
    assert re.search(r"on other noise: searched [\d.]+, trailing [\d.]+$", second)
    assert main([*args, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["spacing"] == found[1]
    assert told["errors"].keys() == {"searched", "trailing"}
    draw = ["generate", "red apple", "--model", str(tiny_model), "--out", str(tmp_path / "out"), "--seed", "1"]
    assert main([*draw, "--steps", "3", "--spacing", found[1]]) == 0
    assert list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize("wrong", [["--steps", "9", "--grid", "8"], ["--steps", "0"], ["--grid", "201"]])
def test_what_cannot_be_searched(wrong: list[str], tiny_model: Path, capsys: Said) -> None:
    assert main(["search", "--model", str(tiny_model), *wrong]) == 1
    assert "steps from a grid of" in capsys.readouterr().err
