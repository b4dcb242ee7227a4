"""A training whose length is in minutes: it ends finished, with its rate fallen, however fast the computer is."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from training.small import build
from training.toy import ToyData, toy, trainer
from unnoise.errors import UnnoiseError
from unnoise.training import runner
from unnoise.training.settings import TrainSettings
from unnoise.training.stopping import Stopped
from unnoise.training.trainer import Trainer

MINUTES = 0.5


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a step takes; whoever changes them changes the computer."""
    seconds, now = [0.25], itertools.count()

    def clock() -> float:
        """Asked at the beginning and at the end of a step."""
        clock.at += seconds[0] * (next(now) % 2)  # type: ignore[attr-defined]
        return clock.at  # type: ignore[attr-defined, no-any-return]

    clock.at = 0.0  # type: ignore[attr-defined]
    monkeypatch.setattr("unnoise.training.trainer.time.perf_counter", clock)
    return seconds


@pytest.mark.parametrize("seconds", [0.25, 0.5])
def test_it_keeps_its_time_at_any_pace(seconds: float, pace: list[float], tmp_path: Path) -> None:
    pace[0] = seconds
    training = trainer(tmp_path, minutes=MINUTES, samples=4, warmup=1_000_000, cooldown=0.4)
    steps = list(training.run())
    assert training.done
    assert training.seconds == pytest.approx(60 * MINUTES)
    assert len(steps) == 60 * MINUTES / seconds
    rates = [step.rate for step in steps]
    top = rates[int(0.15 * len(rates)) : int(0.6 * len(rates))]
    assert set(top) == {1.0}, "the rise is over after a tenth, whatever the warm-up"
    assert rates[: len(rates) // 10] == sorted(rates[: len(rates) // 10])
    assert rates[0] < 0.1
    falling = rates[int(0.6 * len(rates)) :]
    assert falling == sorted(falling, reverse=True)
    assert rates[-1] == pytest.approx(0.01 + 0.99 * seconds / (0.4 * 60 * MINUTES)), "a step before the end"


def test_a_computer_that_slows_down_is_kept_up_with(pace: list[float], tmp_path: Path) -> None:
    training = trainer(tmp_path, minutes=MINUTES)
    for step in training.run():
        if step.step == 40:
            assert training.expected == pytest.approx(4 * 120, abs=4)
            pace[0] = 1.0
    assert training.seconds == pytest.approx(30)
    assert training.step == 40 + 20
    assert training.expected == training.samples == 240


def test_the_time_that_was_spent_is_in_the_checkpoint(pace: list[float], tmp_path: Path) -> None:
    first = trainer(tmp_path, minutes=MINUTES)
    for step in first.run():
        if step.step == 50:
            path = first.save()
            break
    resumed = trainer(tmp_path, minutes=MINUTES)
    resumed.load(path)
    assert resumed.seconds == 12.5
    rates = [step.rate for step in resumed.run()]
    assert len(rates) == 120 - 50
    whole = trainer(tmp_path, minutes=MINUTES)
    assert [step.rate for step in whole.run()][50:] == rates
    longer = trainer(tmp_path, minutes=2 * MINUTES)
    longer.load(path)  # a length may be changed
    assert sum(1 for _ in longer.run()) == 240 - 50


def test_a_run_by_time_ends_finished_and_a_stopped_one_does_not(
    pace: list[float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def begun(folder: Path, **how: object) -> Path:
        return runner.run(toy(ToyData(), minutes=MINUTES), folder, **how)  # type: ignore[arg-type]

    begun(tmp_path / "whole")
    assert (tmp_path / "whole" / runner.MODEL).is_dir()
    assert "480 of 480 samples" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(Stopped, match="stopped by the time limit"):
        begun(tmp_path / "cut", minutes=0)
    assert not (tmp_path / "cut" / runner.MODEL).exists(), "the control: --run.minutes ends nothing"
    begun(tmp_path / "cut", resume=True)
    assert (tmp_path / "cut" / runner.MODEL).is_dir()


def test_settings() -> None:
    by_time, by_samples = TrainSettings(samples=100, minutes=2.0), TrainSettings(samples=100)
    assert (by_time.length(), by_samples.length()) == ({"minutes": 2.0}, {"samples": 100})
    assert not by_time.done(10**9, 119.0)
    assert by_time.done(0, 120.0)
    assert by_samples.done(100, 0.0)
    assert not by_samples.done(99, 1e9)
    with pytest.raises(UnnoiseError, match="minutes -1 is out of range"):
        TrainSettings(samples=100, minutes=-1)
    with pytest.raises(UnnoiseError, match="minutes is nan"):
        TrainSettings(samples=100, minutes=float("nan"))


def test_what_is_scheduled_by_steps_says_so(world: Path, tmp_path: Path) -> None:
    """Whole pictures begin at a step, which is not known; without them, it trains."""
    with pytest.raises(UnnoiseError, match=r"whole pictures begin at a step.*--train.samples, or add --whole 0"):
        build("emoji-autoencoder", world, minutes=1)
    training = build("emoji-autoencoder", world, "--whole", "0", minutes=1)
    trained = Trainer(training.objective, training.data, training.settings, tmp_path)
    next(trained.run())
    assert training.info["trained"]["autoencoder"][-1]["minutes"] == 1
