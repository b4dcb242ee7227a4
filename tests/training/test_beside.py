"""What is done beside a training never ends it, and what does end it saves first."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.small import bits
from training.toy import ToyData, toy
from unnoise.core.objective import Batch, Draws
from unnoise.errors import UnnoiseError
from unnoise.training import checkpoint, runner
from unnoise.training.averages import PowerAverage
from unnoise.training.logs import Board, Metrics
from unnoise.training.optimiser import Optimiser
from unnoise.training.plan import Training
from unnoise.training.runner import run
from unnoise.training.stopping import Stopped, go_on, stop_flag
from unnoise.training.watch import KeptBack, Watcher

Said = pytest.CaptureFixture[str]
Act = Callable[[], None]


class Acting(ToyData):
    """The toy's data, which do something once, when a step is asked for."""

    def __init__(self, at: int, act: Act) -> None:
        super().__init__()
        self.at, self.act = at, act

    def batch(self, items: Tensor, draws: Draws) -> Batch:
        if draws.step == self.at:
            self.at = -1
            self.act()
        return super().batch(items, draws)


def drawing(training: Training) -> Training:
    """The training with previews of noise."""
    return replace(training, preview=lambda parts: torch.zeros(4, 3, 8, 8, dtype=torch.uint8))


def watched(training: Training) -> Training:
    """The training with pictures kept back."""
    return replace(training, kept_back=KeptBack(training.objective, ToyData(), ToyData()))


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are flushed to the disk as ever, but not waited for."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


SHOWN = {"preview_every": 16, "watch_every": 16}


def whole(data: ToyData | None = None) -> Training:
    """All that a training does beside: metrics, a board, previews, looks."""
    return watched(drawing(toy(data, **SHOWN)))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bits of the training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("plain")
    run(whole(), folder, say_every=1e9)
    assert {"metrics.jsonl", "tensorboard", "previews"} <= {each.name for each in folder.iterdir()}
    return bits(folder)


def slow(*values: Any) -> Any:
    """A case of the long suite, beside one of its kind in the short."""
    return pytest.param(*values, marks=pytest.mark.slow)


def notes(said: Said) -> list[str]:
    """All but what a training says of itself."""
    lines = said.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("note: ") and not line.startswith("note: at ")]


# before the first step: a name that is taken by something else


@pytest.mark.parametrize(
    ("name", "is_file", "note"),
    [
        ("metrics.jsonl", False, "note: metrics.jsonl is not written: Is a directory"),
        ("tensorboard", True, "note: TensorBoard's file is not written: File exists"),
        ("previews", True, "note: no preview: File exists"),
    ],
)
def test_a_name_that_is_taken(
    name: str, is_file: bool, note: str, plain: dict[str, str], tmp_path: Path, capsys: Said
) -> None:
    (tmp_path / name).write_text("mine") if is_file else (tmp_path / name).mkdir()
    run(whole(), tmp_path, say_every=1e9)
    assert bits(tmp_path) == plain
    (said,) = notes(capsys)
    assert said.startswith(note)
    assert not is_file or (tmp_path / name).read_text() == "mine"


# in the middle


def gone(name: str) -> Callable[[Path], Act]:
    def act(folder: Path) -> Act:
        place = folder / name
        return lambda: shutil.rmtree(place) if place.is_dir() else place.unlink()

    return act


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("tensorboard", "note: TensorBoard's file is not written any more: No such file or directory ("),
        ("metrics.jsonl", "note: metrics.jsonl is not written any more: No such file or directory ("),
        ("previews", None),  # made anew
    ],
)
def test_a_log_that_is_deleted(
    name: str, note: str | None, plain: dict[str, str], tmp_path: Path, capsys: Said
) -> None:
    run(whole(Acting(6, gone(name)(tmp_path))), tmp_path, say_every=1e9)
    assert bits(tmp_path) == plain
    said = notes(capsys)
    assert len(said) == (note is not None)
    assert all(line.startswith(str(note)) for line in said)


def fails(*args: Any, **kwargs: Any) -> Any:
    raise OSError(28, "No space left on device")


def breaks(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("a fault of ours")


@pytest.mark.parametrize(
    ("owner", "name", "how", "note"),
    [
        (Metrics, "row", fails, "note: metrics.jsonl is not written any more: No space left on device"),
        slow(Metrics, "close", fails, "note: metrics.jsonl is not written any more: No space left on device"),
        slow(Board, "row", fails, "note: TensorBoard's file is not written any more: No space left on device"),
        (Board, "flush", breaks, "note: TensorBoard's file is not written any more: RuntimeError a fault of ours"),
        (Watcher, "look", breaks, "note: pictures kept back are not looked at: RuntimeError a fault of ours"),
        (runner, "save_preview", breaks, "note: no preview: RuntimeError a fault of ours"),
        (runner, "note_step", breaks, "note: a step is not shown: RuntimeError a fault of ours"),
    ],
)
def test_what_fails_is_said_once_and_changes_no_bit(
    owner: Any,
    name: str,
    how: Any,
    note: str,
    plain: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Said,
) -> None:
    monkeypatch.setattr(owner, name, how)
    run(whole(), tmp_path, say_every=1e9)
    assert bits(tmp_path) == plain
    assert notes(capsys) == [note]


def test_a_screen_that_is_gone(plain: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress piped into `head`, or a terminal that was closed."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Gone())
    monkeypatch.setattr(sys, "stdout", Gone())
    run(whole(), tmp_path, say_every=0.0)
    assert bits(tmp_path) == plain


def test_a_disk_that_is_full_for_checkpoints_is_no_side_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    monkeypatch.setattr(checkpoint, "save_tensors", fails)
    with pytest.raises(UnnoiseError, match="the disk is full"):
        run(whole(), tmp_path, say_every=1e9)


# what ends a training


def stopped(folder: Path, act: Act, at: int = 6, **more: Any) -> Stopped:
    with pytest.raises(Stopped) as stop:
        run(whole(Acting(at, act)), folder, say_every=1e9, **more)
    return stop.value


@pytest.fixture
def handlers() -> Iterator[None]:
    """Signals as they were."""
    asked = (
        signal.SIGHUP,
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGXCPU,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    )
    before = {each: signal.getsignal(each) for each in asked}
    yield
    assert {each: signal.getsignal(each) for each in before if each != signal.SIGHUP} == {
        each: handler for each, handler in before.items() if each != signal.SIGHUP
    }
    for each, handler in before.items():
        signal.signal(each, handler)


def send(*numbers: int) -> Act:
    def act() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return act


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    "numbers",
    [
        slow([signal.SIGHUP]),
        [signal.SIGHUP, signal.SIGHUP],  # of the shell and of the system, as a terminal is closed
        [signal.SIGTERM, signal.SIGTERM],  # as `timeout` sends it
        slow([signal.SIGHUP, signal.SIGTERM]),
        slow([signal.SIGXCPU]),
        slow([signal.SIGQUIT]),
        slow([signal.SIGUSR2]),
    ],
)
def test_signals_save_first(numbers: list[int], plain: dict[str, str], tmp_path: Path) -> None:
    stop = stopped(tmp_path, send(*numbers))
    last = checkpoint.latest(tmp_path / "checkpoints")
    assert last is not None
    assert checkpoint.verify(last)["step"] == 7, "the step in which it came is finished"
    assert stop.what == f"stopped by {signal.Signals(numbers[0]).name} and saved as {last}"
    run(whole(), tmp_path, resume=True, say_every=1e9)
    assert bits(tmp_path) == plain


@pytest.mark.usefixtures("handlers")
def test_signals_are_kept_that_have_another_use() -> None:
    for each in (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        assert signal.getsignal(each) == signal.SIG_DFL
        with stop_flag() as flag:
            os.kill(os.getpid(), each)
            assert flag == [each.name]
        seen: list[int] = []
        signal.signal(each, lambda number, _, seen=seen: seen.append(number))
        try:
            with stop_flag() as flag:
                os.kill(os.getpid(), each)
            assert (flag, seen) == ([], [each])
        finally:
            signal.signal(each, signal.SIG_DFL)


@pytest.mark.usefixtures("handlers")
def test_nohup_stays_nohup(plain: dict[str, str], tmp_path: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run(whole(Acting(6, send(signal.SIGHUP))), tmp_path, say_every=1e9)
    assert bits(tmp_path) == plain
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def raises(error: BaseException) -> Act:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        slow(MemoryError()),
        slow(RuntimeError("a fault of ours")),
        slow(UnnoiseError("a set", "mend")),
    ],
)
def test_a_step_that_fails_saves_those_before_it(
    error: Exception, plain: dict[str, str], tmp_path: Path, capsys: Said
) -> None:
    with pytest.raises((type(error), UnnoiseError)):
        run(whole(Acting(6, raises(error))), tmp_path, say_every=1e9)
    last = checkpoint.latest(tmp_path / "checkpoints")
    assert last is not None
    assert checkpoint.verify(last)["step"] == 6
    assert notes(capsys) == [f"note: saved as {last}; go on with `{go_on(tmp_path)}`"]
    run(whole(), tmp_path, resume=True, say_every=1e9)
    assert bits(tmp_path) == plain


class Once:
    """Fails at one call of many, before or after what it stands for."""

    def __init__(self, original: Callable[..., Any], number: int, after: bool) -> None:
        self.original, self.left, self.after = original, number, after

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise RuntimeError("a fault of ours")
        found = self.original(*args, **kwargs)
        if self.left == 0:
            raise RuntimeError("a fault of ours")
        return found


@pytest.mark.parametrize(
    ("owner", "name", "number", "after"),
    [
        (Optimiser, "step", 10, False),  # one role has the step, or its moments alone
        (Optimiser, "step", 10, True),
        (PowerAverage, "update", 6, False),  # weights have the step, averages have not
        (torch.Tensor, "backward", 12, False),  # a forward pass has moved the running mean
    ],
)
def test_a_state_that_is_torn_is_not_saved(
    owner: Any,
    name: str,
    number: int,
    after: bool,
    plain: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Said,
) -> None:
    failing = Once(getattr(owner, name), number, after)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, lambda *args, **kwargs: failing(*args, **kwargs))
        with pytest.raises(RuntimeError, match="a fault of ours"):
            run(whole(), tmp_path, say_every=1e9)
    assert [path.name for path in checkpoint.checkpoints(tmp_path / "checkpoints")][-1] in (
        "step-00000004",
        "step-00000000",
    )
    assert notes(capsys) == []
    run(whole(), tmp_path, resume=True, say_every=1e9)
    assert bits(tmp_path) == plain


def test_numbers_that_are_not_finite_are_not_saved(tmp_path: Path, capsys: Said) -> None:
    training = whole()

    def act() -> None:
        with torch.no_grad():
            training.objective.net.hidden.weight.fill_(float("inf"))  # type: ignore[union-attr,operator]
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="stopped by SIGTERM and not saved, as its numbers are not finite"):
        run(replace(training, data=Acting(6, act)), tmp_path, say_every=1e9)
    assert [path.name for path in checkpoint.checkpoints(tmp_path / "checkpoints")] == [
        "step-00000000",
        "step-00000004",
    ]
    said = "note: nothing is saved: numbers of the training are not finite; go on from its last checkpoint"
    assert said in notes(capsys)
