"""``unnoise study arms``: trains each arm once, for equal seconds, goes on where it was stopped, writes its page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from training.small import shape as tiny_shape
from unnoise.cli import trials
from unnoise.cli.main import main
from unnoise.cli.record import read_run
from unnoise.cli.trials import Trials
from unnoise.errors import UnnoiseError
from unnoise.study.lab import TrialPlan
from unnoise.study.lessons import arms
from unnoise.training import checkpoint
from unnoise.training.runner import Stopped

MINUTES = 0.004


def tiny(recipe: str, *options: str) -> tuple[str, tuple[str, ...]]:
    shape = [word for name, value in tiny_shape(recipe).items() for word in (f"--{name}", str(value))]
    return recipe, (*options, *shape, "--train.batch", "4", "--train.averages", "0.1")


TINY = {
    "baseline": tiny("emoji-flow", "--prediction", "data"),
    "pixels": tiny("emoji-pixels"),
    "transformer": tiny("emoji-dit", "--prediction", "data"),
    "noise": tiny("emoji-flow", "--prediction", "noise", "--text-rate", "0"),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is handed to ``unnoise train``, which then does it."""
    made: list[list[str]] = []
    whole = trials.train

    def train(args: Any) -> None:
        made.append(list(args))
        whole(args)

    monkeypatch.setattr(trials, "train", train)
    return made


def steps_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, one a step."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_one_command_trains_measures_and_writes(
    tiny_model: Path,
    shapes: Path,
    eyes: Path,
    tmp_path: Path,
    calls: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(arms, "ARMS", TINY)
    out, memory = tmp_path / "docs", tmp_path / "memory"
    args = ["study", "arms", tiny_model, "--judge", eyes, "--data", shapes, "--out", out, "--memory", memory]
    args += ["--prompts", 6, "--steps", 2, "--seeds", 1, "--minutes", MINUTES]
    assert main([str(each) for each in [*args, "--json"]]) == 0
    printed, notes = capfd.readouterr()
    record = json.loads(printed)
    assert [row[0] for row in record["tables"][0]["rows"]] == list(TINY)
    assert f"--part validation --seeds 1 --seed 0 --steps 2 --minutes {MINUTES}`" in record["facts"]["command"]
    assert record["facts"]["settings"] == "steps 2, solver dpmpp-2m, spacing karras(sigma_max=80), cfg_scale 3.0"
    for number, name in enumerate(TINY, 1):
        assert f"training {number} of 4: {name}, seed 0; about 0:0" in notes
    assert len(calls) == len(TINY), "a training of each"
    for row, (recipe, _) in zip(record["tables"][0]["rows"], TINY.values(), strict=True):
        assert row[1] in [steps_of(run)[-1]["samples"] for run in memory.glob(f"arms/{recipe}-*/seed-0")]
    assert sorted(path.name for path in out.iterdir()) == [
        *(f"arms-{k}.svg" for k in (1, 2, 3)),
        "arms.json",
        "arms.md",
        "arms.png",
    ]
    calls.clear()
    assert main([str(each) for each in args]) == 0
    assert calls == [], "nothing is trained twice"
    assert "training" not in capfd.readouterr().err


WANTED = TrialPlan("baseline", *TINY["baseline"], 3)


def made(tiny_model: Path, shapes: Path, out: Path, minutes: float = MINUTES, weights: str = "a") -> Trials:
    return Trials({"data": shapes, "autoencoder": tiny_model, "text": tiny_model}, {"model": weights}, minutes, out)


@pytest.mark.slow
def test_a_stopped_one_goes_on_and_a_finished_one_is_left(
    tiny_model: Path, shapes: Path, tmp_path: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = made(tiny_model, shapes, tmp_path, minutes=0.1)  # many steps
    other = WANTED._replace(seed=4)
    whole = trials.train

    def stopped(args: Any) -> None:
        """Stopped at its first step, as by Ctrl-C."""
        try:
            whole([*args, "--run.minutes", "0"])
        except Stopped as stop:
            raise Stopped(stop.what, stop.hint, "SIGINT") from None

    monkeypatch.setattr(trials, "train", stopped)
    with pytest.raises(Stopped, match=r"saved as .*; give the same command again, and it goes on"):
        list(trainer([WANTED, other]))
    (first_step,) = steps_of(trainer.folder(WANTED))
    assert not trainer.finished(WANTED)
    monkeypatch.setattr(trials, "train", whole)
    calls.clear()
    first, second = trainer([WANTED, other])
    assert [call[0] for call in calls] == ["--resume", "emoji-flow"]
    assert first.weights != second.weights
    steps = steps_of(trainer.folder(WANTED))
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    assert first.samples == steps[-1]["samples"]
    assert first.seconds == pytest.approx(sum(step["seconds"] for step in steps), abs=1e-3 * len(steps))
    assert first.seconds >= first_step["seconds"], "what was spent before it was stopped counts"
    calls.clear()
    again, _ = trainer([WANTED, other])
    assert calls == []
    assert again.weights == first.weights
    shutil.rmtree(trainer.folder(WANTED))
    next(trainer([WANTED]))
    assert [call[0] for call in calls] == ["emoji-flow"], "the control: what is not there is trained"


def test_what_tells_trainings_apart(tiny_model: Path, shapes: Path, tmp_path: Path) -> None:
    trainer = made(tiny_model, shapes, tmp_path)
    folders = {trainer.folder(each) for each in (WANTED, WANTED._replace(seed=4), WANTED._replace(options=()))}
    folders |= {made(tiny_model, shapes, tmp_path, *own).folder(WANTED) for own in ((1.0, "a"), (MINUTES, "b"))}
    assert len(folders) == 5
    assert trainer.folder(WANTED._replace(name="another word for it")) in folders
    ten, ten_too = (made(tiny_model, shapes, tmp_path, minutes).folder(WANTED) for minutes in (10, 10.0))
    assert ten == ten_too, "left out, and typed"


def test_what_cannot_be_compared_is_found_out(
    tiny_model: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default that changed between two seeds, and another computer; the same once more is the control."""
    trainer, trained = made(tiny_model, shapes, tmp_path), dict[Path, Any]()
    manifest = {
        "machine": {"threads": 2, "dtype": "float32"},
        "identity": {"recipe": "emoji-flow", "drop": 0.1, "settings": {"seed": 3, "minutes": 1.0, "rate": 1e-3}},
    }
    monkeypatch.setattr("unnoise.cli.trials.checkpoint.latest", lambda folder: folder)
    monkeypatch.setattr("unnoise.cli.trials.checkpoint.verify", lambda folder: manifest)
    trainer.match(WANTED, trained)
    manifest["identity"]["settings"] = {"seed": 4, "minutes": 1.0, "rate": 1e-3}
    trainer.match(WANTED._replace(seed=4), trained)
    manifest["identity"]["drop"] = 0.2
    with pytest.raises(UnnoiseError, match=r"seed-5 and .*seed-3 were trained with another drop; delete"):
        trainer.match(WANTED._replace(seed=5), trained)
    trainer.match(WANTED._replace(options=()), trained)  # another arm may be as it likes
    manifest["machine"] = {"threads": 1, "dtype": "float32"}
    with pytest.raises(UnnoiseError, match="with another threads"):
        trainer.match(WANTED._replace(options=(), seed=4), trained)
    monkeypatch.setattr("unnoise.cli.trials.machine", lambda device: {"threads": 2})
    trainer.same_computer(trained)
    monkeypatch.setattr("unnoise.cli.trials.machine", lambda device: {"threads": 4})
    with pytest.raises(UnnoiseError, match="was trained with another threads: 2, here 4; go on where"):
        trainer.same_computer(trained)
    monkeypatch.setattr("unnoise.cli.trials.checkpoint.latest", lambda folder: None)
    with pytest.raises(UnnoiseError, match="has no whole checkpoint; delete it"):
        trainer.match(WANTED, trained)


def test_one_precision_for_all(tiny_model: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first training finds it; no other tries, whatever it would find."""
    other, typed = WANTED._replace(seed=4), list[str]()
    trainer = made(tiny_model, shapes, tmp_path)

    def train(args: list[str]) -> None:
        typed.append(args[args.index("--run.dtype") + 1])
        folder = Path(args[args.index("--run.out") + 1]) / "checkpoints"
        manifest = {"machine": {"dtype": "bfloat16"}, "samples": 4, "seconds": 1.0}
        checkpoint.write(folder, 1, manifest, {"net": {"weight": torch.zeros(1)}})

    monkeypatch.setattr(trials, "train", train)
    for each in (WANTED, other, WANTED._replace(options=())):
        trainer.train(each)
    assert typed == ["auto", "bfloat16", "bfloat16"]
    typed.clear()
    made(tiny_model, shapes, tmp_path).train(WANTED._replace(seed=5))
    assert typed == ["bfloat16"], "a study that goes on knows it from what lies there"


def test_what_a_training_is_typed_as(
    tiny_model: Path, shapes: Path, tmp_path: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "train", calls.append)
    trainer = made(tiny_model, shapes, tmp_path, minutes=10)
    trainer.train(WANTED)
    (words,) = calls
    assert words[0] == "emoji-flow"
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert float(options["--train.minutes"]) == 10
    assert (options["--train.seed"], options["--data"]) == ("3", str(shapes))
    assert "--train.samples" not in options
    assert "--autoencoder" in options
    trainer.train(TrialPlan("pixels", *TINY["pixels"], 3))
    assert "--autoencoder" not in calls[-1], "which that recipe does not have"


@pytest.mark.slow
def test_the_schedule_knows_its_end(tiny_model: Path, shapes: Path, tmp_path: Path) -> None:
    trainer = made(tiny_model, shapes, tmp_path, minutes=0.2)
    (trial,) = trainer([WANTED])
    typed = read_run(trainer.folder(WANTED)).arguments
    assert typed[typed.index("--train.minutes") + 1] == "0.2"
    assert typed[typed.index("--run.dtype") + 1] == "auto"
    assert trial.seconds >= 12
    rates = [step["rate"] for step in steps_of(trainer.folder(WANTED))]
    assert rates[-1] == min(rates[len(rates) // 2 :]) < 0.5 * max(rates), "it cools down"
    assert trial.engine.request("").steps == 20
