"""``unnoise search``: what it prints can be typed, and stays the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

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


@pytest.mark.slow
def test_a_curve_can_be_typed_and_gone_on_from(tiny_model: Path, tmp_path: Path, capsys: Said) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("red apple\n# not this\nblue heart\n", encoding="utf-8")
    args = ["search", "--method", "curve", "--prompts", str(file), "--model", str(tiny_model), "--iterations", "2"]
    assert main([*args, "--steps", "3", "4"]) == 0
    first, _, _, *rows = capsys.readouterr().out.splitlines()
    found = re.fullmatch(r'--spacing "(curve\(times=\[1, [\d., ]+\]\))"', first)
    assert found, first
    assert [row.split()[0] for row in rows] == ["3", "4"]
    assert main([*args, "--steps", "3", "--spacing", found[1], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["before"] == found[1]
    assert told["spacing"] != found[1]
    assert told["errors"]["3"].keys() == {"curve", "before"}
    draw = ["generate", "red apple", "--model", str(tiny_model), "--out", str(tmp_path / "out"), "--seed", "1"]
    assert main([*draw, "--steps", "5", "--spacing", found[1]]) == 0


def test_a_curve_that_is_stopped_says_how_to_go_on(
    tiny_model: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unnoise.study import descent

    def interrupted(*_: object) -> Iterator[descent.Fit]:
        yield descent.Fit(1, 3, 0.1, [1.0, 0.4])
        raise KeyboardInterrupt

    args = ["search", "red apple", "--method", "curve", "--steps", "3", "--iterations", "1", "--model", str(tiny_model)]
    with monkeypatch.context() as patched:
        patched.setattr(descent, "descend", interrupted)
        assert main(args) == 130
    assert '--method curve --spacing "curve(times=[1, 0.4])"' in capsys.readouterr().err
    with monkeypatch.context() as patched:  # when it is compared, too
        patched.setattr(descent, "errors", stops_when_compared)
        assert main(args) == 130
    assert '--method curve --spacing "curve(times=[1, 0.' in capsys.readouterr().err


def stops_when_compared(x: Tensor, end: Tensor) -> Tensor:
    if not x.requires_grad:
        raise KeyboardInterrupt
    return (x - end).flatten(1).norm(dim=1)


@pytest.mark.parametrize(
    "spacing",
    ["karras", *(pytest.param(s, marks=pytest.mark.slow) for s in ("linspace", "kl-optimal", "beta(a=0.3, b=0.3)"))],
)
def test_a_curve_begins_with_any_spacing(spacing: str, tiny_model: Path, capsys: Said) -> None:
    """Also with those whose last levels are nearly clean."""
    args = ["search", "red apple", "--method", "curve", "--steps", "3", "--iterations", "1", "--model", str(tiny_model)]
    assert main([*args, "--spacing", spacing]) == 0
    assert '--spacing "curve(times=[1, ' in capsys.readouterr().out


def test_a_curve_is_written_with_the_digits_it_needs() -> None:
    from unnoise.cli.search import curve

    assert curve([1.0, 0.5]) == "curve(times=[1, 0.5])"
    assert curve([1.0, 0.99996, 0.2]) == "curve(times=[1, 0.99996, 0.2])"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (["--steps", "9", "--grid", "8"], "9 steps from a grid of 8"),
        (["--steps", "0"], "0 steps from a grid of 64"),
        (["--grid", "201"], "8 steps from a grid of 201"),
        (["--steps", "5", "6"], "for one number of steps"),
        (["--method", "curve", "--steps", "1"], "a curve for 1 steps"),
        (["--method", "curve", "--steps", "51"], "a curve for 51 steps"),
        (["--method", "curve", "--spacing", "leading"], "begins at another level"),
        (["--seed", "-1"], "--seed -1 is out of range"),
        (["red\ud83dapple"], "the prompt is no UTF-8 text"),
        (["--method", "curve", "--iterations", "0"], "in 0 iterations"),
        (["--prompts", "nowhere.txt"], "the prompts at nowhere.txt cannot be read"),
    ],
)
def test_what_cannot_be_searched(wrong: list[str], why: str, tiny_model: Path, capsys: Said) -> None:
    assert main(["search", "--model", str(tiny_model), *wrong]) == 1
    assert why in capsys.readouterr().err


def test_a_prompt_and_a_file_are_too_many(capsys: Said) -> None:
    assert main(["search", "red apple", "--prompts", "also.txt"]) == 1
    assert "a prompt and --prompts" in capsys.readouterr().err
