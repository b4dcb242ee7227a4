"""``train --run.compile``: the same losses as without, in code that is really used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compiling import afresh, compiled  # noqa: F401
from training.small import command, picture_set
from unnoise.cli.main import main
from unnoise.training import checkpoint
from unnoise.training.runner import CHECKPOINTS


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_compiled_training_learns_the_same(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a few pieces of code, although prompts have many lengths, and none for looks at pictures kept back."""
    kept = tmp_path / "kept"
    picture_set(kept / "pictures", kept=4)
    (kept / "encoders").symlink_to(world / "encoders")
    rows, pieces = {}, {}
    for name, more in (("plain", ()), ("fast", ("--run.compile",))):
        before = compiled()
        args = command("emoji-flow", kept, tmp_path / name, *more, samples=24, watch_every=8)
        assert main([str(word) for word in args]) == 0
        rows[name], pieces[name] = metrics(tmp_path / name), compiled() - before
    assert pieces["plain"] == 0
    assert pieces["fast"] in (2, 3), "the line that is tried, and one for each length: 16 and 24"
    for figure in ("denoising", "kept-back/loss"):
        fast, plain = ([row[figure] for row in rows[name] if figure in row] for name in ("fast", "plain"))
        assert len(plain) >= 3
        assert fast == pytest.approx(plain, rel=1e-3)
    last = checkpoint.latest(tmp_path / "fast" / CHECKPOINTS)
    assert last is not None
    assert checkpoint.verify(last)["machine"]["compiled"] is True
    capsys.readouterr()
    again = ["train", "--resume", str(tmp_path / "fast"), "--train.samples", "28", "--run.no-compile"]
    assert main(again) == 0
    assert "compiled is False, it began with True: the bits may differ" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.slow
def test_recipes_without_a_denoiser_refuse_it(world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args = command("emoji-autoencoder", world, tmp_path / "run", "--run.compile")
    assert main([str(word) for word in args]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "unnoise: this recipe trains no network that is compiled; leave --run.compile out"
    assert not (tmp_path / "run").exists(), "nothing is left"
