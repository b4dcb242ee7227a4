"""A training killed anywhere goes on in a fresh process to the same bits as one that was never stopped."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from training.jobs import Server, fresh
from training.small import bits, command
from unnoise.core.registry import index
from unnoise.training import checkpoint

Unbroken = dict[str, tuple[Path, list[str]]]
# at calls by name and number, from 0: each recipe is killed elsewhere, first in a step and then in what follows
CUTS = {
    "emoji-autoencoder": [("batch", 9), ("rename", 1)],  # the last deletes an old checkpoint
    "emoji-text": [("batch", 13), ("half write_bytes", 1)],  # between micro-batches, in the batch where an epoch ends
    "emoji-judge": [("batch", 10), ("rename", 0)],  # at a first micro-batch: relatives are drawn anew
    "emoji-flow": [("update", 11), ("half save_file", 1)],  # one average has the step, the other has not
    "emoji-ddpm": [("step", 11), ("replace", 0)],  # one role has the step, the other has not
    "emoji-dit": [("update", 13), ("replace", 0)],
    "emoji-pixels": [("batch", 11), ("half save_file", 1)],  # its autoencoder is measured anew
    "folder": [("update", 9), ("rename", 1)],
}


def same(out: Path, whole: Path) -> None:
    """Equal bits in checkpoints and models, each step logged once, and nothing left lying about."""
    assert bits(out) == bits(whole)
    kinds = [{re.sub(r"^(events\.|step-).*", r"\1", p.name) for p in folder.rglob("*")} for folder in (out, whole)]
    assert kinds[0] == kinds[1]
    assert len(checkpoint.checkpoints(out / "checkpoints")) == 2
    for file in sorted((whole / "model").iterdir()):
        assert (out / "model" / file.name).read_bytes() == file.read_bytes(), file.name
    logs = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (out, whole)]
    for row in logs[0] + logs[1]:
        row.pop("seconds", None)  # a look before the first step has none
    assert logs[0] == logs[1]


def go_on(server: Server, recipe: str, world: Path, out: Path, **how: object) -> int:
    """Resumes a killed training, or starts it anew where it was killed before its first checkpoint."""
    if checkpoint.latest(out / "checkpoints") is None:
        return server.run(*command(recipe, world, out), **how)
    return server.run("train", "--resume", out, **how)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", index("recipes"))
def test_every_recipe_resumes_in_a_fresh_interpreter(
    recipe: str, world: Path, server: Server, unbroken: Unbroken, tmp_path: Path
) -> None:
    whole, _ = unbroken[recipe]
    out = tmp_path / "run"
    for cut in CUTS[recipe]:
        assert go_on(server, recipe, world, out, at=cut) == -signal.SIGKILL
        assert not (out / "model").exists()
    done = fresh("train", "--resume", out)
    assert (done.returncode, done.stdout) == (0, f"done: the model is at {out / 'model'}\n"), done.stderr
    assert "bits may differ" not in done.stderr
    same(out, whole)


@pytest.mark.slow
def test_chain_of_kills(world: Path, server: Server, unbroken: Unbroken, tmp_path: Path) -> None:
    """Killed at every place in turn of what is left of the run."""
    whole, _ = unbroken["emoji-text"]
    out, kills = tmp_path / "run", 0
    while go_on(server, "emoji-text", world, out, at=(None, 30 + 17 * kills)) == -signal.SIGKILL:
        kills += 1
    assert kills >= 5
    same(out, whole)


@pytest.mark.parametrize(
    ("number", "place"),
    [
        (signal.SIGTERM, ("batch", 7)),
        pytest.param(signal.SIGINT, ("update", 16), marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, ("half save_file", 12), marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_stops(
    number: int, place: tuple[str, int], world: Path, server: Server, unbroken: Unbroken, tmp_path: Path
) -> None:
    recipe, out = "emoji-text", tmp_path / "a run"
    assert server.run(*command(recipe, world, out), at=place, send=[number]) == 130
    said = server.log.read_text().splitlines()[-1]
    last = checkpoint.checkpoints(out / "checkpoints")[-1]
    name = signal.Signals(number).name
    assert said == f"unnoise: stopped by {name} and saved as {last}; go on with `unnoise train --resume '{out}'`"
    row = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["step"] == checkpoint.verify(last)["step"], "the step in which it came is finished and saved"
    assert server.run("train", "--resume", out) == 0
    same(out, unbroken[recipe][0])


@pytest.mark.slow
def test_a_second_signal_stops_at_once(world: Path, server: Server, unbroken: Unbroken, tmp_path: Path) -> None:
    recipe, out = "emoji-text", tmp_path / "run"
    assert server.run(*command(recipe, world, out), at=("half save_file", 12), send=[signal.SIGINT] * 2) == 130
    assert "stopped by Ctrl-C; nothing is left half-written" in server.log.read_text()
    assert not list((out / "checkpoints").glob(".*"))
    assert server.run("train", "--resume", out) == 0
    same(out, unbroken[recipe][0])


def test_the_time_limit_interrupts_and_changes_nothing(
    world: Path, server: Server, unbroken: Unbroken, tmp_path: Path
) -> None:
    recipe, out = "emoji-text", tmp_path / "run"
    assert server.run(*command(recipe, world, out, "--run.minutes", 0)) == 130
    assert "stopped by the time limit and saved" in server.log.read_text()
    assert server.run("train", "--resume", out, "--run.minutes=0") == 130
    assert [c.name for c in checkpoint.checkpoints(out / "checkpoints")] == ["step-00000001", "step-00000002"]
    assert server.run("train", "--resume", out) == 0, "the limit is not kept"
    same(out, unbroken[recipe][0])


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "stride"), [("emoji-text", 1), ("emoji-autoencoder", 3), ("emoji-flow", 7)])
def test_every_cut_point(
    recipe: str, stride: int, world: Path, server: Server, unbroken: Unbroken, tmp_path: Path
) -> None:
    """A kill before each call that computes or writes, and in the middle of each file."""
    whole, calls = unbroken[recipe]
    for number in range(0, len(calls), stride):
        out = tmp_path / str(number)
        assert go_on(server, recipe, world, out, at=(None, number)) == -signal.SIGKILL
        assert go_on(server, recipe, world, out) == 0
        same(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", index("recipes"))
def test_kills_at_random_moments(recipe: str, world: Path, server: Server, unbroken: Unbroken, tmp_path: Path) -> None:
    """SIGKILL, SIGTERM and SIGINT from outside, whenever the clock says; ten that strike for each recipe."""
    whole, _ = unbroken[recipe]
    moments, killed, rounds = random.Random(recipe), 0, 0
    while killed < 10:
        rounds += 1
        out = tmp_path / str(rounds)
        status: int | None = None
        before, longest = None, 1.0  # seconds; longer where a busy machine comes to no checkpoint in that time
        while status != 0:
            last = checkpoint.latest(out / "checkpoints")
            longest = 1.0 if last != before else 1.3 * longest
            before = last
            pid = server.start(*(["train", "--resume", out] if last else command(recipe, world, out)))
            time.sleep(moments.uniform(0.02, longest))
            number = moments.choice([signal.SIGKILL] * 3 + [signal.SIGTERM, signal.SIGINT])
            with contextlib.suppress(ProcessLookupError):  # it was done already
                os.kill(pid, number)
            status = server.wait()
            killed += status != 0
            assert status in (0, 130, -signal.SIGTERM, -signal.SIGKILL), server.log.read_text()
        same(out, whole)
