"""The watch: what it measures is the weights alone, it changes nothing, and its word is right when it speaks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from training.toy import ToyData, equal, state, toy
from unnoise.core.objective import Batch, Draws, Loss, Objective
from unnoise.training import runner
from unnoise.training.averages import PowerAverage
from unnoise.training.plan import Training
from unnoise.training.runner import run
from unnoise.training.settings import TrainSettings
from unnoise.training.trainer import Trainer
from unnoise.training.watch import FEWEST, KeptBack, Look, early_word, look, restored, rise


def watched(table: Tensor | None = None, **changes: Any) -> Training:
    """The toy training, nine other items of its kind kept back (or those of a table)."""
    training, kept = toy(**changes), ToyData()
    kept.table = torch.randn(9, 3, generator=torch.Generator().manual_seed(8)) if table is None else table
    return replace(training, kept_back=KeptBack(training.objective, kept, ToyData()))


def trainer(training: Training, folder: Path) -> Trainer:
    return Trainer(training.objective, training.data, training.settings, folder, identity=training.identity)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# what is measured


def test_two_looks_differ_by_the_weights_alone(tmp_path: Path) -> None:
    training = watched(samples=400)
    assert training.kept_back
    trained = trainer(training, tmp_path)
    steps = trained.run()
    first = look(trained, training.kept_back)
    for _ in range(3):
        again = look(trained, training.kept_back)
        assert torch.equal(first.kept, again.kept)
        assert torch.equal(first.seen, again.seen)
    next(steps)
    assert not torch.equal(first.kept, look(trained, training.kept_back).kept)
    assert first.kept.shape == (9,)
    assert first.levels.keys() == {"-0.7..0.7"}, "the toy's rows all have log-SNR 0"


@pytest.mark.parametrize("micro", [0, 1, 2])
def test_how_a_look_is_split_changes_nothing(micro: int, tmp_path: Path) -> None:
    whole, split = (watched(micro_batch=size) for size in (0, micro))
    found = [look(trainer(each, tmp_path), each.kept_back) for each in (whole, split) if each.kept_back]
    assert torch.allclose(found[0].kept, found[1].kept, rtol=1e-6)


def test_it_looks_at_the_averaged_weights(tmp_path: Path) -> None:
    training = watched(samples=400, averages=(0.1, 0.25))
    trained = trainer(training, tmp_path)
    for _, _ in zip(range(8), trained.run(), strict=False):
        pass
    before = state(trained)
    average = trained.averages["net.average-0.1"]
    with trained.averaged():
        for name, weight in trained.roles["net"].module.named_parameters():
            assert torch.equal(weight, average.tensors[name])
            assert not torch.equal(weight, before[f"net: {name}"])
        assert torch.equal(trained.roles["scale"].module.scale, before["scale: scale"]), "it has no average"
    assert equal(state(trained), before)
    with pytest.raises(ZeroDivisionError), trained.averaged():
        _ = 1 / 0
    assert equal(state(trained), before), "given back where a look fails, too"


def test_a_watched_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Weights, moments, averages, buffers, counters; looked at after every step."""
    ends = []
    for training in (toy(), watched()):
        trained = trainer(training, tmp_path)
        for _ in trained.run():
            if training.kept_back:
                before = torch.get_rng_state()
                look(trained, training.kept_back)
                assert torch.equal(torch.get_rng_state(), before)
                assert training.objective.training
                assert training.objective.net.training
        ends.append(state(trained))
    assert equal(*ends)


def test_the_control_a_look_in_training_mode_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above has eyes: without evaluation mode the toy's running mean moves, if nobody puts it back."""
    monkeypatch.setattr("unnoise.training.trainer.swapped", lambda pairs: nullcontext())
    monkeypatch.setattr(Objective, "eval", lambda self: self)
    with pytest.raises(AssertionError):
        test_a_watched_training_ends_with_the_same_bits(tmp_path)


def test_a_loss_without_rows_cannot_be_watched(tmp_path: Path) -> None:
    training = watched()
    assert training.kept_back

    class Blind(type(training.objective)):  # type: ignore[misc]
        def loss(self, batch: Batch, draws: Draws) -> Loss:
            return Loss(super().loss(batch, draws).total)

    with pytest.raises(TypeError, match="the loss of Blind has no rows or levels"):
        look(trainer(training, tmp_path), replace(training.kept_back, objective=Blind()))


def test_rise_is_students_paired_t() -> None:
    noise = torch.Generator().manual_seed(0)
    for size in (2, 5, 20, 64):
        before, after = torch.rand(2, size, generator=noise, dtype=torch.float64)
        assert rise(before, after) == pytest.approx(stats.ttest_rel(after, before).statistic)
    same = torch.ones(5)
    assert rise(same, same) == 0
    assert rise(same, same + 1) == -rise(same, same - 1) == float("inf")


def test_a_look_comes_back_from_the_metrics() -> None:
    found = Look(96, torch.tensor([0.25, 0.5]), torch.tensor([0.125]), {"2..inf": 0.3})
    again = restored(json.loads(json.dumps({"samples": 96, **found.record()})))
    assert again
    assert (again.samples, again.levels) == (96, {"2..inf": 0.3})
    assert again.kept.tolist() == [0.25, 0.5]
    for bad in ({}, {"samples": 3}, {"samples": 3, **found.record(), "kept-back/each": ["x"]}, {**found.record()}):
        assert restored(bad) is None


# the word

PLAN = TrainSettings(samples=1000, batch=10, warmup=100, rate=1e-3, matrix_rate=0.02)


def looks(kept: Sequence[float], seen: Sequence[float], spread: float = 0.02, count: int = 20) -> list[Look]:
    """Looks at 0, 100, 200 ... samples with those means; pictures differ by a lot, their changes by ``spread``."""
    noise = torch.Generator().manual_seed(1)
    levels = torch.rand(2, count, generator=noise, dtype=torch.float64)
    made = []
    for number, means in enumerate(zip(kept, seen, strict=True)):
        jitter = spread * torch.randn(2, count, generator=noise, dtype=torch.float64)
        jitter = jitter - jitter.mean(1, keepdim=True)
        sides = torch.tensor(means, dtype=torch.float64)[:, None] + levels + jitter
        made.append(Look(100 * number, *sides, {}))
    return made


CASES = {
    "learns": ([1.0, 0.8, 0.7, 0.6], [1.0, 0.7, 0.6, 0.5], None),
    "learns slowly": ([1.0, 0.99, 0.98, 0.97], [1.0, 0.98, 0.97, 0.96], None),
    "nothing moves": ([1.0, 1.0, 1.001, 1.0], [1.0, 0.999, 1.0, 1.001], "nothing"),
    "both get worse": ([1.0, 1.3], [1.0, 1.2], "too fast"),
    "far better for some, worse for others": ([1.0, 0.85], [1.0, 0.85], None),
    "no number": ([1.0, float("nan")], [1.0, 1.0], "not finite"),
    "better, then worse on what is kept back": ([1.0, 0.7, 0.75, 0.85], [1.0, 0.6, 0.4, 0.2], "by heart"),
    "never better on what is kept back": ([1.0, 1.0, 1.001, 1.2], [1.0, 0.8, 0.6, 0.4], "nothing general"),
    "too early to say": ([1.0, 1.0], [1.0, 1.0], None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_word(case: str) -> None:
    kept, seen, kind = CASES[case]
    word = early_word(looks(kept, seen, spread=1.0 if "some" in case else 0.02), PLAN)
    assert (word.kind if word else None) == kind


def test_words_say_what_to_try() -> None:
    said = {kind: early_word(looks(kept, seen), PLAN) for kept, seen, kind in CASES.values() if kind}
    texts = {kind: word.text for kind, word in said.items() if word}
    assert "the rate is too high; try --train.rate 0.00033 --train.matrix-rate 0.0067" in texts["too fast"]
    assert "try --train.rate 0.003 --train.matrix-rate 0.06" in texts["nothing"]
    assert texts["by heart"].startswith("since 100 samples it gets worse on pictures kept back (from 1.")
    assert "do the captions say what is to be seen" in texts["nothing general"]
    assert not any("\n" in text for text in texts.values())


def test_few_pictures_say_nothing() -> None:
    kept, seen, _ = CASES["both get worse"]
    assert early_word(looks(kept, seen, count=FEWEST), PLAN)
    assert early_word(looks(kept, seen, count=FEWEST - 1), PLAN) is None
    assert early_word([], PLAN) is None
    assert early_word(looks(kept, seen)[:1], PLAN) is None


def test_how_often_chance_alone_speaks() -> None:
    """A training that learns a little at every look, with changes of the spread that pictures have: no false word."""
    noise, false = torch.Generator().manual_seed(2), 0
    for _ in range(400):
        drift = torch.linspace(0, -0.1, 9, dtype=torch.float64)[:, None, None]
        changes = 0.03 * torch.randn(9, 2, 20, generator=noise, dtype=torch.float64)
        found = [Look(100 * n, *(1.0 + drift[n] + changes[n]), {}) for n in range(9)]
        false += any(early_word(found[: n + 1], PLAN) is not None for n in range(3, 9))
    assert false <= 8, "two in a hundred runs of six looks"


# in a training


def test_one_that_learns_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(watched(samples=800, watch_every=100), tmp_path, say_every=1e9)
    assert "note:" not in capfd.readouterr().err
    found = [each for row in rows(tmp_path) if (each := restored(row))]
    assert [each.samples for each in found] == list(range(0, 801, 100))
    assert found[-1].kept.mean() < 0.7 * found[0].kept.mean()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate": 0.0, "matrix_rate": 0.0}, "nothing is learnt that shows"),
        ({"rate": 3.0, "matrix_rate": 0.0}, "it gets worse, on pictures that it trains on too"),
    ],
)
def test_one_that_cannot_learn_says_so_once(
    changes: dict[str, float], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(watched(samples=240, watch_every=40, warmup=0, **changes), tmp_path, say_every=1e9)
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note:")]
    assert len([note for note in notes if said in note]) == 1, notes


def test_pictures_that_are_nothing_like_the_trained_ones(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Trained are points about (2, 2, 2), kept back are points about (-2, -2, -2)."""
    training = watched(samples=600, watch_every=100)
    assert training.kept_back
    table = 0.3 * ToyData().table
    for data, middle in ((training.data, 2), (training.kept_back.seen, 2), (training.kept_back.kept, -2)):
        data.table = table + middle  # type: ignore[attr-defined]
    run(training, tmp_path, say_every=1e9)
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note:")]
    assert len(notes) == 1
    assert "what it learns does not hold for pictures kept back" in notes[0]


def test_each_look_stands_once_in_the_logs(tmp_path: Path) -> None:
    """Before the first step, every ``watch_every`` samples and at the end; over a stop, too, with the same bits."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(watched(samples=100, watch_every=24), whole, say_every=1e9)
    with pytest.raises(runner.Stopped):
        run(watched(samples=100, watch_every=24), parts, say_every=1e9, minutes=0)
    run(watched(samples=100, watch_every=24), parts, resume=True, say_every=1e9)
    logged = [rows(folder) for folder in (whole, parts)]
    for row in logged[0] + logged[1]:
        row.pop("seconds", None)
    assert logged[0] == logged[1]
    assert [row["step"] for row in logged[0]] == list(range(26))
    assert [row["samples"] for row in logged[0] if restored(row)] == [0, 24, 48, 72, 96, 100]
    board = EventAccumulator(str(whole / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("kept-back/loss")] == [0, 24, 48, 72, 96, 100]


def test_what_was_said_is_not_said_again_after_a_stop(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    still = {"samples": 160, "watch_every": 40, "warmup": 0, "rate": 0.0, "matrix_rate": 0.0}
    training = watched(**still)
    run(training, tmp_path, say_every=1e9)
    assert "nothing is learnt that shows" in capfd.readouterr().err
    run(watched(**{**still, "samples": 240}), tmp_path, resume=True, say_every=1e9)
    assert "nothing is learnt" not in capfd.readouterr().err


def test_no_looks_where_none_are_asked_for(tmp_path: Path) -> None:
    run(watched(samples=40, watch_every=0), tmp_path, say_every=1e9)
    assert not [row for row in rows(tmp_path) if restored(row)]


def test_the_table_has_both_looks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(watched(samples=100, watch_every=24), tmp_path, say_every=0.0)
    said = capfd.readouterr().err
    assert "kept back, first" in said
    assert "(at first " in said


def test_a_bad_average_is_said_and_ends_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    training = watched(samples=100, watch_every=24)
    load = PowerAverage.update

    def spoil(self: PowerAverage, steps: int) -> None:
        load(self, steps)
        next(iter(self.tensors.values())).fill_(float("nan"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PowerAverage, "update", spoil)
        run(training, tmp_path, say_every=1e9)
    assert "the loss on pictures kept back is no number any more" in capfd.readouterr().err
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
