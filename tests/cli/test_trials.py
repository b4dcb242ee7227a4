"""``unnoise study arms``: trains each arm once, for equal seconds, goes on where it was stopped, writes its page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from training.small import shape as tiny_shape
from unnoise.cli import trials
from unnoise.cli.main import main
from unnoise.cli.record import read_run
from unnoise.cli.trials import Trials, read_steps
from unnoise.errors import UnnoiseError
from unnoise.study.lab import Wanted
from unnoise.study.lessons import arms
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
    said, told = capfd.readouterr()
    record = json.loads(said)
    assert [row[0] for row in record["tables"][0]["rows"]] == list(TINY)
    assert f"--part validation --seeds 1 --seed 0 --steps 2 --minutes {MINUTES}`" in record["facts"]["command"]
    assert record["facts"]["settings"] == "steps 2, solver dpmpp-2m, spacing karras(sigma_max=80), cfg_scale 3.0"
    for number, name in enumerate(TINY, 1):
        assert f"training {number} of 4: {name}, seed 0; about 0:0" in told
    assert len(calls) == 3 * len(TINY), "a probe and a training of each, in two parts"
    for row, (recipe, _) in zip(record["tables"][0]["rows"], TINY.values(), strict=True):
        assert row[1] in [read_steps(run)[-1]["samples"] for run in memory.glob(f"arms/{recipe}-*/seed-0")]
    assert sorted(path.name for path in out.iterdir()) == [
        *(f"arms-{k}.svg" for k in (1, 2, 3)),
        "arms.json",
        "arms.md",
        "arms.png",
    ]
    assert not list(memory.glob("arms/*/probe"))
    calls.clear()
    assert main([str(each) for each in args]) == 0
    assert calls == [], "nothing is trained twice"
    assert "training" not in capfd.readouterr().err


WANTED = Wanted("baseline", *TINY["baseline"], 3)


def made(tiny_model: Path, shapes: Path, out: Path, minutes: float = MINUTES, weights: str = "a") -> Trials:
    return Trials({"data": shapes, "autoencoder": tiny_model, "text": tiny_model}, {"model": weights}, minutes, out)


@pytest.mark.slow
def test_a_stopped_one_goes_on_and_a_finished_one_is_left(
    tiny_model: Path, shapes: Path, tmp_path: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = made(tiny_model, shapes, tmp_path)
    other = WANTED._replace(seed=4)
    whole = trials.train

    def stopped(args: Any) -> None:
        """Stopped at its first step, as by Ctrl-C."""
        try:
            whole([*args, "--run.minutes", "0"])
        except Stopped as stop:
            raise Stopped(stop.what, stop.hint, "SIGINT") from None

    trainer.trial(WANTED)
    monkeypatch.setattr(trials, "train", stopped)
    with pytest.raises(Stopped, match=r"saved as .*; give the same command again, and it goes on"):
        list(trainer([WANTED, other]))
    metrics = trainer.folder(WANTED) / "metrics.jsonl"
    (first_step,) = read_steps(trainer.folder(WANTED))
    torn = json.dumps(first_step | {"seconds": 0.001}) + '\n{"step": 2, "samp'  # time is left; and the power went
    metrics.write_text(torn)
    assert not trainer.finished(WANTED)
    with pytest.raises(Stopped):
        trainer.probe(other)  # a probe that a person stops is no probe
    monkeypatch.setattr(trials, "train", whole)
    calls.clear()
    first, second = trainer([WANTED, other])
    parts = [(call[0], "--train.samples" in call) for call in calls]
    begun, ended, on = ("emoji-flow", True), ("--resume", True), ("--resume", False)
    assert parts == [on, ended, begun, ended], "and the trial is not made again"
    for trial, each in ((first, WANTED), (second, other)):
        assert trial.samples == int(read_run(trainer.folder(each)).arguments[-1]), "to the end that was found for it"
    assert first.weights != second.weights
    steps = read_steps(trainer.folder(WANTED))
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    assert first.seconds == pytest.approx(sum(step["seconds"] for step in steps))
    calls.clear()
    again, _ = trainer([WANTED, other])
    assert calls == []
    assert again.weights == first.weights
    shutil.rmtree(trainer.folder(WANTED))
    next(trainer([WANTED]))
    assert [call[0] for call in calls] == ["emoji-flow", "--resume"], "the control: what is not there is trained"


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
    told = {
        "machine": {"threads": 2, "dtype": "float32"},
        "identity": {"recipe": "emoji-flow", "drop": 0.1, "settings": {"seed": 3, "samples": 64, "rate": 1e-3}},
    }
    monkeypatch.setattr("unnoise.cli.trials.checkpoint.latest", lambda folder: folder)
    monkeypatch.setattr("unnoise.cli.trials.checkpoint.verify", lambda folder: told)
    trainer.match(WANTED, trained)
    told["identity"]["settings"] = {"seed": 4, "samples": 80, "rate": 1e-3}
    trainer.match(WANTED._replace(seed=4), trained)
    told["identity"]["drop"] = 0.2
    with pytest.raises(UnnoiseError, match=r"seed-5 and .*seed-3 were trained with another drop; delete"):
        trainer.match(WANTED._replace(seed=5), trained)
    trainer.match(WANTED._replace(options=()), trained)  # another arm may be as it likes
    told["machine"] = {"threads": 1, "dtype": "float32"}
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


def test_one_precision_for_all(
    tiny_model: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[list[str]]
) -> None:
    """The first trial finds it; no other is asked, however its own would end."""
    found = iter(["bfloat16", "float32"])
    tried: list[str] = []

    def probe(self: Trials, each: Wanted) -> tuple[float, str]:
        tried.append(self.dtype)
        self.arm(each).mkdir(parents=True, exist_ok=True)
        return 100.0, next(found) if self.dtype == "auto" else self.dtype

    monkeypatch.setattr(Trials, "probe", probe)
    other = WANTED._replace(options=())
    trainer = made(tiny_model, shapes, tmp_path)
    assert [trainer.trial(each)["dtype"] for each in (WANTED, other)] == ["bfloat16", "bfloat16"]
    assert tried == ["auto", "bfloat16"]
    again = made(tiny_model, shapes, tmp_path)
    monkeypatch.setattr(again, "train", lambda each: (_ for _ in ()).throw(Stopped("stopped", "", "SIGINT")))
    with pytest.raises(Stopped):
        list(again([WANTED, other]))
    assert again.dtype == "bfloat16", "a study that goes on knows it from what was noted"


def test_damaged_notes_are_told_in_a_line(tiny_model: Path, shapes: Path, tmp_path: Path) -> None:
    trainer = made(tiny_model, shapes, tmp_path)
    for file in (trainer.arm(WANTED) / "trial.json", trainer.folder(WANTED) / "metrics.jsonl"):
        file.parent.mkdir(parents=True)
        file.write_text('{"samples": 4')
    with pytest.raises(UnnoiseError, match=r"trial\.json is damaged; delete it"):
        trainer.trial(WANTED)
    with pytest.raises(UnnoiseError, match=r"the metrics in .* are damaged; delete that folder"):
        read_steps(trainer.folder(WANTED))


@pytest.mark.slow
def test_the_schedule_knows_its_end(
    tiny_model: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = made(tiny_model, shapes, tmp_path)

    def many(each: Wanted) -> int:
        """Enough to cool down in, however long this computer took so far."""
        return int(read_steps(trainer.folder(each))[-1]["samples"]) + 200

    monkeypatch.setattr(trainer, "samples", many)
    (trial,) = trainer([WANTED])
    typed = read_run(trainer.folder(WANTED)).arguments
    options = dict(zip(typed[::2], typed[1::2], strict=True))  # the last of a name counts
    assert int(options["--train.samples"]) == trial.samples
    assert int(options["--train.warmup"]) == trainer.trial(WANTED)["samples"] // 10
    assert options["--train.seed"] == "3"
    assert options["--run.dtype"] in ("float32", "bfloat16")
    rates = [step["rate"] for step in read_steps(trainer.folder(WANTED))]
    assert rates[-1] == min(rates[len(rates) // 2 :]) < 0.2 * max(rates), "it cools down"
    assert trial.engine.settings().steps == 20


@pytest.mark.parametrize("slow", [1.0, 2.5])
def test_a_training_keeps_its_time(slow: float, tiny_model: Path, shapes: Path, tmp_path: Path) -> None:
    """The end is found from the steps of the training itself, at whatever pace it goes; the slow first one counts."""
    trainer = made(tiny_model, shapes, tmp_path, minutes=1.0)
    folder = trainer.folder(WANTED)
    folder.mkdir(parents=True)

    def steps(count: int) -> None:
        lines = [{"step": k, "samples": 4 * k, "seconds": slow * (0.9 if k == 1 else 0.2)} for k in range(1, count + 1)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    steps(round(36 / (0.2 * slow)))
    samples = trainer.samples(WANTED)
    steps(samples // 4)
    assert sum(step["seconds"] for step in read_steps(folder)) == pytest.approx(60, abs=0.2 * slow)
    steps(1000)
    assert trainer.samples(WANTED) == 4000, "whose time is over ends where it is"
