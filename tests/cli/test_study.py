"""``unnoise study`` from a name to its files, on tiny models; and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from study.judged import save_judge
from tiny import tokenizer
from unnoise.cli.main import main
from unnoise.study.lessons import studies

# the prompts of hundred are longer than the tiny model reads; arms trains, which test_trials.py does
NAMES = [name for name in studies() if name not in ("hundred", "arms")]


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "steps" else pytest.mark.slow) for n in NAMES])
def test_one_command_writes_all_of_a_study(
    name: str, tiny_model: Path, shapes: Path, eyes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "docs"
    args = ["study", name, tiny_model, "--judge", eyes, "--data", shapes, "--out", out, "--memory", tmp_path / "memory"]
    args += ["--prompts", 6, "--steps", 2, "--json"]
    assert main([str(each) for each in args]) == 0
    kept = json.loads(capsys.readouterr().out)
    assert kept == json.loads((out / f"{name}.json").read_text("utf-8"))
    page = (out / f"{name}.md").read_text("utf-8")
    seeds = {"guidance": " --seeds 2", "seeds": " --seeds 4"}.get(name, "")  # what took effect
    told = f"`unnoise study {name} {tiny_model.name} --prompts 6 --part validation{seeds} --seed 0 --steps 2`"
    assert told in page
    assert kept["facts"]["prompts"] == "3 plain, 1 tier1, 1 tier2"
    assert kept["tables"][0]["rows"]
    judged = name not in ("one-jump", "spectrum", "words")
    assert ("judge" in kept["facts"]) == judged
    if judged:
        assert re.match(rf"{eyes.name}, weights [0-9a-f]{{16}}, FAILED its exam: ", kept["facts"]["judge"])
    linked = re.findall(r"\]\(([^)]+)\)", page)
    assert f"{name}.png" in linked
    assert f"{name}-1.svg" in linked
    assert all((out / each).is_file() for each in linked)
    with Image.open(out / f"{name}.png") as sheet:
        assert sheet.width > 80


def test_without_a_name_the_studies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(studies())


def test_what_is_refused(
    tiny_model: Path, shapes: Path, eyes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*args: object) -> str:
        common = ["--judge", eyes, "--data", shapes, "--out", tmp_path / "out", "--memory", tmp_path / "memory"]
        assert main(["study", *map(str, (args[0], tiny_model, *common, *args[1:]))]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        return line

    assert "no study is called 'guidence'; one of: arms, early-late, guidance" in refused("guidence")
    assert "from 2 to 1000" in refused("steps", "--prompts", 1)
    assert "from 1 to 16" in refused("seeds", "--seeds", 0)
    assert "0 minutes are no time to train" in refused("arms", "--minutes", 0)
    assert "nan minutes are no time to train" in refused("arms", "--minutes", "nan")
    assert "steps 0 is out of range" in refused("steps", "--steps", 0)
    assert "the prompt has" in refused("hundred")
    kin = save_judge(tmp_path / "kin", tokenizer())
    assert "share a tokenizer; train a separate judge" in refused("seeds", "--judge", kin)
    assert not list((tmp_path / "memory").glob("*")), "it is told before anything is drawn"
