"""Each write, flush and rename fails in turn: one clear line, an older healthy checkpoint, and nothing half-written."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import SafetensorError

from training import faults
from training.jobs import Server
from training.small import bits, command
from training.toy import toy, toy_recipe
from unnoise.cli.main import main
from unnoise.errors import UnnoiseError
from unnoise.training import checkpoint
from unnoise.training.runner import run

LINES = {
    errno.ENOSPC: "the disk is full, {} was not written; free some space or name another folder",
    errno.EIO: "{} cannot be written (Input/output error); check the path and the disk",
    errno.EROFS: "{} cannot be written (Read-only file system); name a folder that you may write to",
}
TOY = {"--train.samples": 32, "--train.batch": 4, "--train.checkpoint-every": 16, "--train.preview-every": 0}


class Failing:
    """Lets the nth call fail, of all or of one name."""

    def __init__(self, nth: int, code: int, name: str | None = None) -> None:
        self.left, self.code, self.name = nth, code, name
        self.calls: list[str] = []

    def __call__(self, call: str) -> None:
        if self.name not in (None, call):
            return
        self.left -= 1
        if self.left >= -1:
            self.calls.append(call)
        if self.left == -1:
            if call.endswith("save_file"):
                raise SafetensorError(
                    f"Error while serializing: I/O error: {os.strerror(self.code)} (os error {self.code})"
                )
            raise OSError(self.code, os.strerror(self.code))


def begin(folder: Path, resume: bool = False) -> Path:
    return run(toy(samples=16, checkpoint_every=8), folder, resume=resume, say_every=1e9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole")
    begin(folder)
    return bits(folder)


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1, 2])
def test_every_nth_write_fails(
    first: int, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # called and failing as ever, but not waited for
    silent: list[str] = []
    for nth in itertools.count():
        code = list(LINES)[(nth + first) % len(LINES)]
        folder, failing, told = tmp_path / str(nth), Failing(nth, code), None
        with monkeypatch.context() as patch:
            faults.watch(failing, patch.setattr, computes=False)
            try:
                begin(folder)
            except UnnoiseError as error:
                told = str(error)
        if failing.left >= 0:
            break
        kept = checkpoint.checkpoints(folder / "checkpoints")
        assert all(checkpoint.healthy(path) for path in kept), "no half-written folder is taken for a checkpoint"
        assert kept or "rename" not in failing.calls[:-1], "once one is written, there is always one"
        if told is None:
            silent.append(failing.calls[-1])
        else:
            named = [told == line.format(path) for line in LINES.values() for path in [folder, *_places(folder)]]
            assert any(named), told
            assert str(LINES[code].split("{}")[1]) in told
        if told is not None:
            begin(folder, resume=bool(kept))
        assert bits(folder) == whole
        assert not list(folder.rglob(".partial-*"))
    assert nth > 50
    # no harm done: folders that are there already; an old checkpoint that will be deleted after the next save
    # figures that are not written end nothing
    assert set(silent) == {"mkdir", "rename", "open"}, silent
    assert silent.count("rename") == 1


def _places(folder: Path) -> list[Path]:
    checkpoints = [folder / "checkpoints" / f"step-{step:08d}" for step in (0, 2, 4)]
    return [folder / "run.json", folder / "metrics.jsonl", folder / "model", *checkpoints]


def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert toy_recipe.name == "toy"
    args = ["train", "toy", *(str(w) for pair in TOY.items() for w in pair), "--run.dtype", "float32", "--run.out"]
    calls = [("write_bytes", 0), ("open", 1), ("half save_file", 2), ("fsync", 12), ("rename", 1), ("replace", 0)]
    for nth, (name, number) in enumerate(calls):
        with monkeypatch.context() as patch:
            faults.watch(Failing(number, errno.ENOSPC, name), patch.setattr, computes=False)
            assert main([*args, str(tmp_path / str(nth))]) == 1, name
        said = capfd.readouterr()
        lines = [line for line in said.err.splitlines() if " samples  loss " not in line]
        assert len(lines) == 1, lines
        assert lines[0].startswith(f"unnoise: the disk is full, {tmp_path / str(nth)}")
        assert said.out == ""


@pytest.mark.parametrize("place", ["a-file/run", "a-file"])
def test_a_folder_that_cannot_be(place: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a-file").write_text("")
    assert main(["train", "toy", "--run.dtype", "float32", "--run.out", str(tmp_path / place)]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"unnoise: {tmp_path / place} cannot be written (")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, to be filled; mounting one takes rights that not everyone has."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a small disk; the same is tested above with calls that fail")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_disk_that_is_really_full(
    small_disk: Path, world: Path, server: Server, unbroken: dict[str, tuple[Path, list[str]]]
) -> None:
    """It grows a little each time the training has met its end, until there is room for all."""
    out, recipe, met = small_disk / "run", "emoji-text", 0
    for kilobytes in range(100, 4000, 350):
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", small_disk], check=True)
        begun = checkpoint.latest(out / "checkpoints")
        status = server.run(*(["train", "--resume", out] if begun else command(recipe, world, out)))
        if status == 0:
            break
        met += 1
        (said,) = [line for line in server.log.read_text().splitlines() if " samples  loss " not in line]
        assert status == 1
        assert said.startswith("unnoise: the disk is full, /"), said
        assert begun is None or checkpoint.latest(out / "checkpoints") is not None
        assert not list(out.rglob(".partial-*"))
    assert met >= 2
    assert bits(out) == bits(unbroken[recipe][0])
