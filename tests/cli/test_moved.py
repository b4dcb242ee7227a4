"""Trainings go on from any folder, and wherever they are moved to, where their inputs are still found."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from training.small import bits, command, encoders, picture_set
from unnoise.cli.main import main
from unnoise.cli.record import Started, found_again, path_options, record
from unnoise.core.registry import find, index
from unnoise.errors import UnnoiseError

Said = pytest.CaptureFixture[str]
FLOW = "emoji-flow"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a picture set and a training of it that was stopped, all typed as relative paths."""
    project = tmp_path_factory.mktemp("place") / "my project"
    picture_set(project / "pictures")
    encoders(project / "encoders")
    before = Path.cwd()
    os.chdir(project)
    try:
        args = [str(word) for word in command("emoji-text", Path(), Path("runs/a run"), "--run.minutes", 0)]
        assert main(args) == 130
    finally:
        os.chdir(before)
    return project


@pytest.fixture
def project(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and another folder to work in."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.copytree(begun, tmp_path / "my project")
    return tmp_path / "my project"


def goes_on(line: str, said: Said) -> None:
    words = shlex.split(line)
    assert words[0] == "unnoise"
    assert main([*words[1:], "--run.minutes", "0"]) == 130, said.readouterr().err


def test_the_printed_commands_work_from_anywhere(begun: Path, tmp_path: Path, capsys: Said) -> None:
    before = Path.cwd()
    os.chdir(begun)
    try:
        capsys.readouterr()
        assert main(["runs"]) == 0
        printed = capsys.readouterr().out.splitlines()[1]
        assert main(["train", "--resume", "runs/a run", "--run.minutes", "0"]) == 130
        hint = capsys.readouterr().err.splitlines()[-1].split("`")[1]
        os.chdir(tmp_path)
        for line in (printed.strip(), hint):
            goes_on(line, capsys)
    finally:
        os.chdir(before)


def test_what_is_typed_is_kept_whole(begun: Path) -> None:
    told = json.loads((begun / "runs/a run/run.json").read_text())
    assert told["folder"] == str(begun / "runs/a run")
    assert told["arguments"][:2] == ["--data", str(begun / "pictures")]
    assert told["arguments"].count("--data") == 1


def test_a_project_is_moved(project: Path, begun: Path, capsys: Said) -> None:
    """With its inputs, which are then found as they lay to the run, and not where they were."""
    away = begun.with_name("away")
    os.rename(begun, away)  # so that the old place holds nothing
    try:
        goes_on(f"unnoise train --resume '{project}/runs/a run'", capsys)
        told = json.loads((project / "runs/a run/run.json").read_text())
        assert str(project / "pictures") in told["arguments"]
        assert told["folder"] == str(project / "runs/a run")
    finally:
        os.rename(away, begun)


def test_a_run_alone_is_moved(project: Path, tmp_path: Path, capsys: Said) -> None:
    moved = tmp_path / "runs" / "b"
    moved.parent.mkdir()
    os.rename(project / "runs/a run", moved)
    goes_on(f"unnoise train --resume {moved}", capsys)


def older(project: Path) -> Path:
    """The run with the record of an older unnoise."""
    run = project / "runs/a run"
    told = json.loads((run / "run.json").read_text())
    told["arguments"] = ["--data", "pictures", *told["arguments"][2:]]
    del told["folder"]
    (run / "run.json").write_text(json.dumps(told))
    return run


def test_an_older_run_is_found_from_its_own_folder(project: Path, capsys: Said) -> None:
    goes_on(f"unnoise train --resume '{older(project)}'", capsys)


def test_an_older_run_is_found_from_where_it_was_begun(
    project: Path, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "far"
    os.rename(older(project), run)
    monkeypatch.chdir(project)
    goes_on(f"unnoise train --resume {run}", capsys)


def test_what_is_missing_is_named(project: Path, tmp_path: Path, capsys: Said) -> None:
    run = older(project)
    os.rename(project / "pictures", tmp_path / "elsewhere" / "set")
    before = bits(run)
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 1
    said = f"unnoise: pictures, which the training in {run} reads, is not there; put it back, or name it with --data"
    assert capsys.readouterr().err == f"{said} as you resume\n"
    assert bits(run) == before
    goes_on(f"unnoise train --resume '{run}' --data set", capsys)
    goes_on(f"unnoise train --resume '{run}'", capsys)


def test_runs_tells_how_to_begin_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    (tmp_path / "runs" / "x y").mkdir(parents=True)
    (tmp_path / "runs" / "x y" / "run.json").write_text(json.dumps({"recipe": FLOW, "arguments": ["--data", "/a b"]}))
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["go_on"] == f"unnoise train {FLOW} --data '/a b' --run.out '{tmp_path}/runs/x y'"


# the parts


@pytest.mark.parametrize("recipe", index("recipes"))
def test_every_path_of_a_recipe_is_kept(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were left out too: a default is typed nowhere, and is relative."""
    monkeypatch.chdir(tmp_path)
    options = dict(path_options(find("recipes", recipe)))
    assert options["--data"] is not None
    options["--data"].mkdir(parents=True)
    settings = {flag.removeprefix("--").replace("-", "_"): value for flag, value in options.items()}
    kept = record(recipe, ["--train.samples=9", "--data=typed"], settings, Path("out"))["arguments"]
    assert kept[:2] == ["--data", str(tmp_path / options["--data"])]
    assert kept[-1] == "--train.samples=9"
    assert ("--init" in kept) == (recipe == "folder"), "a word, not a path"


def test_words_are_not_looked_for(tmp_path: Path) -> None:
    recipe = find("recipes", "folder")
    begun = Started("folder", ["--data", str(tmp_path), "--init", "none"], tmp_path / "run")
    assert found_again(begun, tmp_path / "run", recipe) == begun.arguments
    begun.arguments[3] = "gone"
    with pytest.raises(UnnoiseError, match="gone, which the training in"):
        found_again(begun, tmp_path / "run", recipe)
    assert found_again(begun, tmp_path / "run", recipe, ["--init=other"]) == begun.arguments
