"""Engines in other processes: handed over by pickle to those that are spawned, refused by those that are forked."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from unnoise.engine.engine import Engine
from unnoise.engine.load import load_engine
from unnoise.engine.start import begin
from unnoise.errors import UnnoiseError
from unnoise.kernels import forked

ROOT = Path(__file__).resolve().parent.parent.parent


def test_an_engine_can_be_pickled(engine: Engine) -> None:
    again = pickle.loads(pickle.dumps(engine))
    assert isinstance(again, Engine)
    assert again.model.record == engine.model.record
    settings = {"seed": 3, "steps": 2, "negative": "cat"}
    (one,), (other,) = (each.generate("(red:1.2) apple", **settings) for each in (engine, again))
    assert one.tobytes() == other.tobytes()


@pytest.mark.slow
def test_the_page_draws_in_spawned_processes(tmp_path: Path) -> None:
    page = (ROOT / "docs/python.md").read_text("utf-8")
    (code,) = (each for each in re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S) if "spawn" in each)
    (tmp_path / "many.py").write_text(code)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "many.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert {each.name for each in tmp_path.glob("*.png")} == {"red apple.png", "cat face.png", "blue heart.png"}


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_a_fork(act: Callable[[], object]) -> str:
    """What an action raises in a fork of this process, "" where it ends well; a fork that hangs is killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            act()
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "it hung"
    return said


TOLD = "UnnoiseError: this process was forked from one that had loaded a model, and lacks the threads to compute with; "


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("what", ["draw", "load", "decode", "start", "train"])
def test_a_fork_is_told(what: str, engine: Engine, tiny_model: Path, tmp_path: Path) -> None:
    from PIL import Image

    from training.toy import toy
    from unnoise.training.runner import run

    engine.generate("red apple", steps=1)
    acts: dict[str, Callable[[], object]] = {
        "draw": lambda: engine.generate("red apple", steps=1),
        "load": lambda: load_engine(tiny_model),
        "decode": lambda: engine.model.decode(torch.zeros(1, *engine.model.autoencoder.space.shape(128))),
        "start": lambda: begin(engine.model.autoencoder, Image.new("RGB", (128, 128)), (128, 128), 0.5),
        "train": lambda: run(toy(), tmp_path),
    }
    assert in_a_fork(acts[what]).startswith(TOLD + "start it by multiprocessing's spawn")


@pytest.mark.usefixtures("two_threads")
def test_a_fork_with_a_single_thread_draws(engine: Engine) -> None:
    (here,) = engine.generate("red apple", steps=1)

    def draw() -> None:
        torch.set_num_threads(1)
        (there,) = engine.generate("red apple", steps=1)
        assert there.size == here.size

    assert in_a_fork(draw) == ""


@pytest.mark.usefixtures("two_threads")
def test_a_fork_of_a_process_that_computed_nothing_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of this one, which has: only what the check says of it."""
    monkeypatch.setattr(forked, "_computed_in", None)
    assert in_a_fork(lambda: forked.check_threads(torch.device("cpu"))) == ""
    monkeypatch.setattr(forked, "_computed_in", os.getpid())
    assert in_a_fork(lambda: forked.check_threads(torch.device("cpu"))).startswith(TOLD)


def test_a_gpu_does_not_outlive_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "_computed_in", os.getpid() + 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    forked.check_threads(torch.device("cpu"))
    with pytest.raises(UnnoiseError, match="spawn"):
        forked.check_threads(torch.device("cuda"))
