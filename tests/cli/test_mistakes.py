"""Every mistake is one line on the standard error, a non-zero status, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from unnoise.cli.main import VERBS, main
from weights.hostile import Hostile

Said = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(capsys: Said, *args: str, status: int = 1) -> str:
    """What is said about the arguments."""
    before = sorted(Path.cwd().rglob("*"))
    assert main(args) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("unnoise: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert err.isascii() or err.replace("\n", "").isprintable()
    assert len(err) < 1300
    assert sorted(Path.cwd().rglob("*")) == before
    return err


ARGUMENTS: list[tuple[list[str], str]] = [
    ([], "the prompt is missing"),
    (["x", "--stepz", "3"], "there is no option --stepz; did you mean --steps?"),
    (["x", "--steps", "a"], "--steps wants a whole number, not 'a'"),
    (["x", "--steps", "1.5"], "--steps wants a whole number, not '1.5'"),
    (["x", "--steps"], "--steps wants a value"),
    (["x", "--steps", "0"], "steps 0 is out of range"),
    (["x", "--steps", "-5"], "steps -5 is out of range"),
    (["x", "--cfg-scale", "strong"], "--cfg-scale wants a number, not 'strong'"),
    (["x", "--cfg-scale", "nan"], "cfg_scale is nan, which is no number"),
    (["x", "--count", "0"], "--count 0 is out of range"),
    (["x", "--count", "100000"], "--count 100000 is out of range"),
    (["x", "--seed", "-1"], "--seed -1 is out of range"),
    (["x", "--seed", "9" * 5000], "--seed wants a whole number"),
    (["x", "--seed", str(2**63)], "out of range"),
    (["x", "--solver", "eulr"], "no solver is called 'eulr'; did you mean euler"),
    (["x", "--solver", "os.system"], "no solver is called 'os.system'"),
    (["x", "--dtype", "float8"], "--dtype cannot be 'float8'; one of: auto, float32, bfloat16, float16"),
    (["x", "--dtype", "float16", "--device", "cpu"], "float16 is slow and unsafe on a processor"),
    (["x", "--device", "gpu"], "there is no device called 'gpu'"),
    (["x", "--device", "cuda:99"], "CUDA GPU" if not torch.cuda.is_available() else "there is no cuda:99"),
    (["x", "--threads", "0"], "threads 0 is out of range"),
    (["red", "apple"], "'apple' is one word too many"),
    (["apple " * 99], "tokens, the model reads 30; use fewer words"),
    (["x" * 10_000], "the prompt has 10000 characters"),
    (["x", "--negative", "apple " * 99], "tokens, the model reads 30"),
    (["r\x00e\x00d"], "the prompt has NULs between its letters, as UTF-16 read as UTF-8 has; save it as UTF-8"),
    (["red \ud83d apple"], "the prompt is no UTF-8 text"),
    (["red \udcff apple"], "the prompt is no UTF-8 text (byte 0xff)"),
    (["x", "--negative", "\ud83d"], "--negative is no UTF-8 text"),
    (["x", "--start", __file__, "--invert", "\ud83d"], "--invert is no UTF-8 text"),
    (["x", "--start", __file__, "--invert", "apple " * 99], "--invert: the prompt has"),
    (["x", "--prompts", "list.txt"], "there are a prompt and --prompts; leave one of them out"),
    (["--prompts", "nowhere.txt"], "the prompts at nowhere.txt cannot be read (No such file or directory)"),
    (["--prompts", "/"], "the prompts at / cannot be read (Is a directory)"),
    (["--prompts", "/dev/zero"], "/dev/zero has more than 1,048,576 bytes"),
    (["--prompts", "/dev/null"], "/dev/null has no prompts; write one a line"),
    (["--prompts", "a\0b"], "cannot be read"),
    (["--prompts", __file__], "test_mistakes.py, line "),
    (["(apple:99)"], "a weight of 99 in the prompt draws nothing; stay below 10"),
    (["x", "--negative", "(apple:99)"], "a weight of 99 in the prompt draws nothing"),
    (["(apple) " * 99], "tokens, the model reads 30; use fewer words"),
    (["x", "--grid", "stepz=1,2"], "--grid has no setting 'stepz'; one of: seed, size, steps, cfg-scale, solver"),
    (["x", "--grid", "steps=1,0"], "steps 0 is out of range"),
    (["x", "--grid", "solver=euler,eulr"], "no solver is called 'eulr'; did you mean euler"),
    (["x", "--grid", "guidance=1,3"], "no guidance is called '1'"),
    (["x", "--grid", "noise=white"], "no noise is called 'white'"),
    (["x", "--grid", "strength=0.5"], "strength speaks of a picture to start from"),
    (["x", "--grid", "steps=1,2", "--steps", "3"], "--steps and --grid steps do not agree"),
    (["x", "--grid", "seed=1,2", "--count", "3"], "--count and --grid seed both say how many seeds"),
    (["x", "--grid", "steps=1,2", "--gif"], "--gif is for single pictures"),
    (["x", "--grid"], "--grid wants a value"),
    (["x", "--nearest"], "--nearest knows only the training pictures of the default model"),
    (["x", "--show"], "--show needs a terminal, and standard output is none"),
    (["x", "--show", "--json"], "--show and --json both want the standard output"),
    (["x", "--outpaint", "64"], "outpaint speaks of a picture to start from"),
    (["x", "--start", "nowhere.png", "--outpaint", "64"], "nowhere.png"),
    (["x", "--start", "a.png", "--outpaint", "middle=3"], "'middle=3' names no margins; write pixels for all sides"),
    (["x", "--start", "a.png", "--outpaint", "9" * 5000], "names no margins"),
    (["x", "--start", "a.png", "--outpaint", "9", "--gif"], "--gif and --outpaint do not go together"),
    (["x", "--out", "/proc/nowhere/pictures"], "cannot be written"),
    (["x", "--out", "/dev/null"], "/dev/null is a file, not a folder"),
    (["x", "--out", "/dev/null/pictures"], "cannot be written"),
    (["x", "--out", "o" * 300], "File name too long"),
]


@pytest.mark.parametrize(("args", "said"), ARGUMENTS, ids=lambda value: str(value)[:40])
def test_arguments(args: list[str], said: str, here: Path, tiny_model: Path, capsys: Said) -> None:
    assert said in complaint(capsys, "generate", *args, "--model", str(tiny_model))


VERBATIM: list[tuple[list[str], str]] = [
    (["draw"], "there is no verb 'draw'; one of: generate, replay"),
    (["--stepz"], "there is no verb '--stepz'"),
    ([""], "there is no verb ''"),
    (["data"], "`unnoise data` needs another word; try `unnoise data emoji` or `unnoise data show`"),
    (["list", "solverz"], "no kind of method is called 'solverz'"),
    (["list", "--x"], "there is no option --x"),
    (["train", "emoji-flo"], "no recipe is called 'emoji-flo'; did you mean emoji-flow"),
    (["train", "--resume"], "--resume wants the folder"),
    (["train", "--resume", "nowhere"], "no training at nowhere"),
    (["data", "show", "nowhere"], "'nowhere' is one word too many"),
    (["data", "show", "--path", "nowhere"], "no picture set at nowhere"),
    (
        ["generate", "x", "--model", "nowhere"],
        "no file, folder or listed model is called 'nowhere'; add folders of models",
    ),
    (["generate", "x", "--model", "m" * 5000], "no file, folder or listed model is called"),
    (["measure", "nowhere"], "no model at nowhere"),
    (["nearest"], "the picture is missing; name 1 to 1000 picture files"),
    (["nearest", "nowhere.png"], "there is no picture at nowhere.png"),
    (["nearest", __file__], "cannot be used"),
    (["nearest", "x.png", "--count", "0"], "--count 0 is out of range; choose a whole number from 1 to 50"),
    (["nearest", "x.png", "--show"], "--show needs a terminal"),
    (["nearest", "x.png", "--show", "--json"], "both write to standard output"),
]


@pytest.mark.parametrize(("args", "said"), VERBATIM, ids=lambda value: str(value)[:40])
def test_verbs(args: list[str], said: str, here: Path, capsys: Said) -> None:
    assert said in complaint(capsys, *args)


WANTING = ("generate", "replay", "nearest", "noise", "inspect", "data folder", "models add", "models remove")
GIVEN = {verb: ["x"] for verb in WANTING} | {
    "train": ["emoji-flow"],
    "average": ["x", "--width", "0.1", "--out", "y"],
    "convert": ["x", "--out", "y"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_knows_its_options(verb: str, here: Path, capsys: Said) -> None:
    words = [*verb.split(), *GIVEN.get(verb, [])]
    assert "there is no option --nonsense" in complaint(capsys, *words, "--nonsense", "3")


# models


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_damaged_models(here: Path, copy: Path, capsys: Said) -> None:
    shard = next(copy.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    said = complaint(capsys, "generate", "x", "--model", str(copy))
    assert "it is cut short); copy or train the model again" in said
    (copy / "model.json").write_text("{}")
    assert "model.json is damaged" in complaint(capsys, "generate", "x", "--model", str(copy))


def test_weights_that_are_not_finite(here: Path, copy: Path, capsys: Said) -> None:
    Hostile(copy).tensors(lambda tensors: tensors["denoiser.network.position"].fill_(float("nan")))
    assert "numbers that are not finite" in complaint(capsys, "generate", "x", "--model", str(copy))


# places to write


def test_out_is_a_file(here: Path, tiny_model: Path, capsys: Said) -> None:
    (here / "notes").write_text("mine")
    for out in ("notes", "notes/deeper"):
        assert "notes" in complaint(capsys, "generate", "x", "--model", str(tiny_model), "--out", out)
    assert (here / "notes").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, "cannot be written (Read-only"),
        (errno.EIO, "cannot be written"),
    ],
)
@pytest.mark.parametrize("when", [1, 2])
def test_disks_that_fail(
    when: int,
    number: int,
    said: str,
    here: Path,
    tiny_model: Path,
    capsys: Said,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the first write, which is the trial, and at the second, which is the picture; half is written by then."""
    write, calls = Path.write_bytes, [0]

    def failing(self: Path, data: bytes) -> int:
        calls[0] += 1
        if calls[0] < when:
            return write(self, data)
        write(self, data[: len(data) // 2])
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "write_bytes", failing)
    assert said in complaint(capsys, "generate", "x", "--model", str(tiny_model), "--out", "new/pictures")
    assert calls[0] == when


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_is_not_enough(
    error: Exception, here: Path, tiny_model: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("unnoise.engine.engine.Engine.draw", fail)
    assert "memory is not enough" in complaint(capsys, "generate", "x", "--model", str(tiny_model))


def test_a_fault_of_ours_is_not_hidden(here: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("unnoise.engine.engine.Engine.draw", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["generate", "x", "--model", str(tiny_model)])
