"""``train --run.compile``: the same losses as without, in code that is really used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from training.small import command
from unnoise.cli.main import main
from unnoise.kernels.compiled import CACHE


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Code is kept apart from that of whoever runs the tests."""
    os.environ.setdefault(CACHE, str(tmp_path_factory.mktemp("compiled")))


def calls() -> int:
    """How many calls have been compiled so far."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.slow
def test_a_compiled_training_learns_the_same(world: Path, tmp_path: Path) -> None:
    losses = {}
    for name, more in (("plain", ()), ("fast", ("--run.compile",))):
        before = calls()
        args = command("emoji-flow", world, tmp_path / name, *more, samples=24, watch_every=8)
        assert main([str(word) for word in args]) == 0
        assert (calls() > before) == (name == "fast")
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        losses[name] = [row["denoising"] for row in rows]
    assert len(losses["plain"]) == 6
    assert losses["fast"] == pytest.approx(losses["plain"], rel=1e-3)


def test_recipes_without_a_denoiser_refuse_it(world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args = command("emoji-autoencoder", world, tmp_path / "run", "--run.compile")
    assert main([str(word) for word in args]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "unnoise: this recipe trains no network that is compiled; leave --run.compile out"
    assert not (tmp_path / "run").exists(), "nothing is left"
