"""``unnoise runs``: every state of a training is told apart, and what it says goes on with it."""

from __future__ import annotations

import fcntl
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from unnoise.cli.main import main
from unnoise.cli.runs import look

Said = pytest.CaptureFixture[str]


def make(folder: Path, samples: int = 0, checkpoint: bool = True, model: bool = False) -> Path:
    """A folder as a training leaves it."""
    folder.mkdir(parents=True)
    record = {"recipe": "emoji-flow", "arguments": ["--data", "my set", "--train.samples", "96"]}
    (folder / "run.json").write_text(json.dumps(record))
    rows = [{"step": i, "samples": 8 * i, "rate": 1.0, "denoising": 0.5 + i / 100, "denoising/x": 9} for i in (1, 2, 3)]
    if samples:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 4, "sam')
    if checkpoint:
        where = folder / "checkpoints" / "step-00000003"
        where.mkdir(parents=True)
        manifest = {"samples": samples, "identity": {"settings": {"samples": 96}}}
        (where / "manifest.json").write_text(json.dumps(manifest))
    if model:
        (folder / "model").mkdir()
        (folder / "model" / "model.json").write_text("{}")
    return folder


def test_every_state(tmp_path: Path, capsys: Said) -> None:
    make(tmp_path / "a", 24)
    make(tmp_path / "b", 96, model=True)
    make(tmp_path / "c", checkpoint=False)
    running = make(tmp_path / "d", 24)
    (tmp_path / "no training").mkdir()
    with (running / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["runs", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(Path(run["path"]).name, run["state"], run["samples"], run["of"]) for run in told] == [
        ("a", "stopped", 24, 96),
        ("b", "finished", 96, 96),
        ("c", "begun", None, None),
        ("d", "running", 24, 96),
    ]
    assert told[0]["loss"] == pytest.approx(0.52)
    assert told[0]["go_on"] == f"unnoise train --resume {tmp_path / 'a'}"
    assert told[1]["go_on"] is None
    assert shlex.split(told[2]["go_on"])[3:5] == ["--data", "my set"]
    assert told[3]["go_on"] is None
    assert look(running)["state"] == "stopped", "the lock ends with its process"


def test_for_people(tmp_path: Path, capsys: Said) -> None:
    make(tmp_path / "my run", 24)
    assert main(["runs", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("my run: emoji-flow, stopped, 24 of 96 samples, loss 0.52, last heard of just now")
    assert second == f"  unnoise train --resume '{tmp_path / 'my run'}'"
    assert main(["runs", str(tmp_path / "my run")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == first


DAMAGE = ["", "{", "[]", '{"recipe": 3, "arguments": 4}', '{"identity": {"settings": [1]}}', "[" * 50_000]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_records_are_no_end(damage: str, tmp_path: Path, capsys: Said) -> None:
    run = make(tmp_path / "x", 24)
    for name in ("run.json", "metrics.jsonl", "checkpoints/step-00000003/manifest.json"):
        (run / name).write_text(damage)
    assert main(["runs", str(tmp_path)]) == 0
    assert "x: " in capsys.readouterr().out


def test_a_record_cannot_command_a_terminal(tmp_path: Path, capsys: Said) -> None:
    run = make(tmp_path / "x", checkpoint=False)
    (run / "run.json").write_text(json.dumps({"recipe": "\x1b[2J", "arguments": ["\x1b[31m", "größe"]}))
    assert main(["runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "größe" in said


@pytest.mark.parametrize("damage", [*DAMAGE[:3], DAMAGE[-1]])
def test_a_damaged_record_is_not_resumed(damage: str, tmp_path: Path, capsys: Said) -> None:
    run = make(tmp_path / "x", 24)
    (run / "run.json").write_text(damage)
    assert main(["train", "--resume", str(run)]) == 1
    assert "run.json is damaged; start the training with its recipe" in capsys.readouterr().err


def test_where_there_are_none(tmp_path: Path, capsys: Said) -> None:
    assert main(["runs", str(tmp_path)]) == 0
    assert "no trainings in" in capsys.readouterr().out
    assert main(["runs", str(tmp_path / "none")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_figures_of_a_step_are_no_loss(tmp_path: Path) -> None:
    run = make(tmp_path / "x", 24)
    row: dict[str, Any] = {"step": 1, "samples": 8, "rate": 1, "gradient_norm": 2, "seconds": 3, "skipped": False}
    (run / "metrics.jsonl").write_text(json.dumps(row | {"contrastive": 0.25}) + "\n")
    assert look(run)["loss"] == 0.25
