"""The loop: its order, its randomness, its schedule, and what it does when numbers are none."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.small import build
from training.toy import SETTINGS, ToyData, equal, state, trainer
from unnoise.core.objective import Batch, Draws, Loss
from unnoise.core.registry import index
from unnoise.errors import UnnoiseError
from unnoise.training import probe
from unnoise.training.order import Order
from unnoise.training.settings import TrainSettings
from unnoise.training.trainer import MAX_SKIPPED, Trainer

NAN, INF = float("nan"), float("inf")


# numbers that are none


@pytest.mark.parametrize("factor", [NAN, INF, -INF, 1e38])
def test_a_bad_step_changes_nothing(factor: float, tmp_path: Path) -> None:
    """A loss that is no number, or a finite loss with gradients that are not."""
    training = trainer(tmp_path, ToyData({5, 6, 9}, factor), samples=60)
    skipped: list[int] = []
    before: dict[str, object] = {}
    for step in training.run():
        now = {k: v for k, v in state(training).items() if k != "counters" and not k.endswith(": mean")}
        if step.skipped:
            skipped.append(step.step)
            assert equal(now, before)
        else:
            assert math.isfinite(step.gradient_norm)
            assert not equal(now, before)
        before = now
    assert (skipped, training.skipped) == ([6, 7, 10], 3)
    assert training.step * 4 == training.samples == 60, "data and noise go on"
    assert all(torch.isfinite(t).all() for k, t in state(training).items() if isinstance(t, Tensor))


def test_a_bad_second_phase_leaves_its_role_and_all_averages(tmp_path: Path) -> None:
    training = trainer(tmp_path)
    steps = training.run()
    for _ in range(4):
        next(steps)
    loss, calls = training.objective.loss, itertools.count()

    def bad(batch: Batch, draws: Draws) -> Loss:
        found = loss(batch, draws)
        return found._replace(total=found.total * (1.0 if next(calls) < 2 else INF))  # the first phase has two calls

    training.objective.loss = bad
    before = state(training)
    assert next(steps).skipped
    after = state(training)
    changed = {
        name.split(":")[0] for name in before if name != "counters" and not torch.equal(before[name], after[name])
    }
    assert changed == {"net", "net.optimiser"}


def test_twenty_bad_steps_on_end_stop_it(tmp_path: Path) -> None:
    training = trainer(tmp_path, ToyData(range(3, 1000)), samples=400)
    steps = training.run()
    for _ in range(3):
        next(steps)
    before = state(training)
    said = (
        r"^20 steps on end gave numbers that are not finite \(step 23\); start again with a lower rate and matrix_rate$"
    )
    with pytest.raises(UnnoiseError, match=said):
        list(steps)
    after = state(training)
    assert MAX_SKIPPED == 20
    assert all(torch.equal(before[k], after[k]) for k in before if k != "counters" and not k.endswith(": mean"))


def test_nineteen_do_not(tmp_path: Path) -> None:
    training = trainer(tmp_path, ToyData([*range(2, 21), *range(22, 41)]), samples=180)
    assert sum(step.skipped for step in training.run()) == 38


# the order of the data


def test_each_item_stands_once_in_an_epoch() -> None:
    for size, seed in itertools.product((1, 2, 9, 100, 3901), (0, 1)):
        order = Order(torch.ones(size), seed)
        for epoch in range(3):
            assert sorted(order(epoch * size, size).tolist()) == list(range(size))


def test_the_order_is_a_pure_function() -> None:
    weights = torch.rand(37, generator=torch.Generator().manual_seed(0)) + 0.1
    whole = Order(weights, 5)(0, 400)
    for start, count in ((0, 1), (36, 2), (100, 37), (350, 50), (5, 300)):
        assert torch.equal(Order(weights, 5)(start, count), whole[start : start + count])
    assert not torch.equal(Order(weights, 6)(0, 400), whole)
    assert not torch.equal(whole[:37], whole[37:74]), "another shuffle each epoch"


def test_weights_are_kept() -> None:
    """In each epoch within one of what is expected, and on average exactly that."""
    weights = torch.tensor([0.2, 1.0, 1.0, 0.5, 3.0, 0.7071, 0.3])
    order, epochs, size = Order(weights, 0), 4000, len(weights)
    expected = weights.double() / weights.double().mean()
    counts = torch.stack([torch.bincount(order(e * size, size), minlength=size) for e in range(epochs)])
    assert (counts.sum(1) == size).all()
    assert ((counts - expected).abs() < 1).all()
    error = (counts.double().mean(0) - expected) / (0.5 / epochs**0.5)  # a rounding's deviation is at most a half
    assert error.abs().max() < 4


def test_the_ledger_of_a_training(tmp_path: Path) -> None:
    """What the loop really reads: every item once an epoch, over the edges of batches."""
    data = ToyData()
    training = trainer(tmp_path, data, samples=72)
    training.objective.phases = lambda: type(training.objective).phases(training.objective)[:1]
    list(training.run())
    for epoch in range(8):
        assert sorted(data.seen[epoch * 9 : epoch * 9 + 9]) == list(range(9))


# randomness


def test_draws_do_not_depend_on_how_a_batch_is_split() -> None:
    for draw in (
        lambda d: d.normal("a", 3, 2),
        lambda d: d.uniform("a"),
        lambda d: d.integers("a", 10, 4),
    ):
        whole = draw(Draws(1, 2, 12, slice(None)))
        for size in (1, 2, 3, 4, 6):
            parts = [draw(Draws(1, 2, 12, slice(start, start + size))) for start in range(0, 12, size)]
            assert torch.equal(torch.cat(parts), whole)


def test_draws_differ_by_seed_step_and_stream() -> None:
    whole = Draws(1, 2, 8, slice(None))
    draws = [whole.normal("a"), whole.normal("b"), Draws(2, 2, 8, slice(None)).normal("a")]
    draws += [Draws(1, 3, 8, slice(None)).normal("a"), Draws(12, 2, 8, slice(None)).normal("a")]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(draws, 2))
    assert torch.equal(whole.on("cpu").normal("a"), draws[0])
    assert whole.normal("a").dtype == torch.float32
    assert whole.uniform("a").dtype == torch.float64


def test_micro_batches_change_sums_alone(tmp_path: Path) -> None:
    """One step with and without them: the same samples and noise, so equal but for the order of sums."""
    norms = []
    for micro in (0, 1, 2, 4):
        training = trainer(tmp_path, micro_batch=micro)
        training.objective.net.train = lambda mode=True: None  # keeps the running mean out of it
        training.objective.net.training = False
        norms.append(next(training.run()).gradient_norm)
    assert norms == pytest.approx([norms[0]] * 4, rel=1e-5)


@pytest.mark.parametrize("recipe", index("recipes"))
def test_nothing_draws_from_the_global_generator(recipe: str, world: Path, tmp_path: Path) -> None:
    """It is not saved, so that a training must not use it; nor may it matter what it holds."""
    ends = []
    for seed in (1, 2):
        training = build(recipe, world)
        trained = Trainer(training.objective, training.data, training.settings, tmp_path)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        steps = trained.run()
        next(steps)
        next(steps)
        assert torch.equal(torch.get_rng_state(), before)
        ends.append(state(trained))
    assert equal(*ends)


# the schedule


def test_the_schedule_counts_samples() -> None:
    settings = TrainSettings(samples=1000, batch=10, warmup=100, cooldown=0.5)
    assert settings.factor(0) == pytest.approx(0.1)
    assert settings.factor(40) == pytest.approx(0.5)
    assert [settings.factor(n) for n in (90, 300, 500)] == [1.0, 1.0, 1.0]
    assert settings.factor(750) == pytest.approx(0.01 + 0.99 * 0.5)
    assert settings.factor(1000) == settings.factor(2000) == pytest.approx(0.01)
    rates = [settings.factor(n) for n in range(500, 1001, 10)]
    assert rates == sorted(rates, reverse=True)
    assert TrainSettings(samples=100, warmup=0, cooldown=0).factor(99) == 1.0


def test_a_training_sees_the_schedule(tmp_path: Path) -> None:
    training = trainer(tmp_path)
    for number, step in enumerate(training.run()):
        assert (step.step, step.samples) == (number + 1, 4 * number + 4)
        assert step.rate == SETTINGS.factor(4 * number)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": 0}, "samples 0 is out of range; choose a whole number, 1 or more"),
        ({"batch": -1}, "batch -1 is out of range"),
        ({"micro_batch": 3}, "a batch of 4 does not divide into micro-batches of 3; choose a micro_batch that divides"),
        ({"rate": NAN}, "rate is nan, which is no number"),
        ({"rate": -1e-3}, "rate -0.001 is out of range; choose a number 0 or more"),
        ({"matrix_rate": INF}, "matrix_rate inf is out of range"),
        ({"weight_decay": -1.0}, "weight_decay -1 is out of range"),
        ({"warmup": -1}, "warmup -1 is out of range"),
        ({"cooldown": 1.5}, "cooldown 1.5 is out of range; choose a number from 0 to 1"),
        ({"cooldown": NAN}, "cooldown is nan, which is no number"),
        ({"clip": 0.0}, "clip 0 is out of range; choose a number above 0"),
        ({"averages": (0.5,)}, "averages[0] 0.5 is out of range; choose a number between 0 and 0.28"),
        ({"preview_every": -5}, "preview_every -5 is out of range"),
        ({"checkpoint_every": 0}, "checkpoint_every 0 is out of range"),
    ],
)
def test_settings_that_make_no_sense(change: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(UnnoiseError) as caught:
        trainer(tmp_path, **change)
    assert str(caught.value).startswith(said)


# precision


@pytest.mark.parametrize(
    ("float32", "bfloat16", "chosen"),
    [(1.0, 0.5, torch.bfloat16), (1.0, 0.95, torch.float32), (1.0, 30.0, torch.float32)],
)
def test_precision_is_tried_and_not_guessed(
    float32: float, bfloat16: float, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {torch.float32: float32, torch.bfloat16: bfloat16}
    tried: list[torch.dtype] = []

    def seconds(device: torch.device, dtype: torch.dtype, patience: float = 0.0) -> float:
        tried.append(dtype)
        return times[dtype]

    monkeypatch.setattr(probe, "seconds", seconds)
    cpu = torch.device("cpu")
    assert probe.fastest_dtype(cpu) is chosen
    assert set(tried) == {torch.float32, torch.bfloat16}, "float16 is not even tried"
    assert probe.fastest_dtype(cpu, "float32") is torch.float32
    assert probe.fastest_dtype(cpu, "bfloat16") is torch.bfloat16
    assert len(tried) == 2, "a name is taken at its word"
    with pytest.raises(UnnoiseError, match="training has no dtype 'float16'; use float32, bfloat16 or auto"):
        probe.fastest_dtype(cpu, "float16")


def test_the_trial_is_short() -> None:
    assert 0 < probe.seconds(torch.device("cpu"), torch.float32) < 5
    assert probe.seconds(torch.device("cpu"), torch.float32, patience=0.0) == math.inf, "no patience, no trial"


def test_bfloat16_computes_and_float32_keeps(tmp_path: Path) -> None:
    training = trainer(tmp_path)
    half = Trainer(training.objective, training.data, training.settings, tmp_path, dtype=torch.bfloat16)
    seen: list[torch.dtype] = []
    half.objective.net.hidden.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    for _, step in zip(range(3), half.run(), strict=False):
        assert not step.skipped
    assert set(seen) == {torch.bfloat16}
    assert {t.dtype for named in half.tensors().values() for t in named.values()} == {torch.float32, torch.int64}
