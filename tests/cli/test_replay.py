"""``unnoise replay``: a picture made again is equal, and what was changed is told apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unnoise.cli.main import main
from unnoise.cli.replay import compare
from unnoise.pipelines.metadata import to_png

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs the program in an empty folder: (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> tuple[int, str, str]:
        try:
            status = main([str(arg) for arg in args])
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def drawn(say: Say, tiny_model: Path, tmp_path: Path) -> list[Path]:
    """Three pictures of one batch, by a solver that draws noise and a guidance of two."""
    guided = ("--guidance", "interval(rescale, high=9)", "--spacing", "shifted(2)", "--negative", "blue")
    how = ("--solver", "ddim(eta=1)", "--steps", 4, "--seed", 7, "--count", 3, *guided)
    assert say("generate", "red apple", *how, "--model", tiny_model)[0] == 0
    return sorted((tmp_path / "pictures").iterdir())


def edited(path: Path, **changes: Any) -> Path:
    """The picture with another record."""
    with Image.open(path) as image:
        record = json.loads(image.text["unnoise"]) | changes  # type: ignore[attr-defined]
        path.with_name("edited.png").write_bytes(to_png(image.convert("RGB"), record))
    return path.with_name("edited.png")


def test_every_picture_of_a_batch_is_equal(say: Say, drawn: list[Path], tiny_model: Path) -> None:
    for path in drawn:
        assert say("replay", path, "--model", tiny_model) == (0, f"{path}: equal, every pixel is the same\n", "")


def test_another_seed_or_setting_is_different(say: Say, drawn: list[Path], tiny_model: Path) -> None:
    for changes in (
        {"seed": 8},
        {"cfg_scale": 9.0},
        {"solver": "euler"},
        {"prompt": "blue heart"},
        {"guidance": "cfg"},
    ):
        status, out, _ = say("replay", edited(drawn[0], **changes), "--model", tiny_model)
        assert status == 1, changes
        assert ": different, at most" in out


def test_the_answer_as_json_and_the_picture_in_a_folder(say: Say, drawn: list[Path], tiny_model: Path) -> None:
    status, out, _ = say("replay", drawn[0], "--model", tiny_model, "--json", "--out", "again")
    found = json.loads(out)
    assert (status, found["verdict"], found["largest"], found["notes"]) == (0, "equal", 0, [])
    assert found["path"] == "again/red-apple-7-replayed.png"
    with Image.open(found["path"]) as new, Image.open(drawn[0]) as old:
        assert new.tobytes() == old.tobytes()
    assert say("replay", found["path"], "--model", tiny_model)[0] == 0


def test_other_weights_and_versions_are_noted(say: Say, drawn: list[Path], tiny_model: Path) -> None:
    told = {"name": "x\x1b[31m", "sha256": "0" * 64}
    made_by = {"unnoise": "0.0.1", "torch": "1.0", "device": "cpu", "dtype": "float32", "threads": 1}
    status, out, _ = say("replay", edited(drawn[0], model=told, made_by=made_by), "--model", tiny_model)
    assert "made with other weights" in out
    assert "\x1b" not in out, "a picture cannot command a terminal"
    assert "torch is" in out
    assert "it was '1.0'" in out
    assert status in (0, 1)


@pytest.mark.parametrize(
    ("gap", "verdict"), [(0, "equal"), (1, "close"), (2, "close"), (3, "different"), (60, "different")]
)
def test_verdicts(gap: int, verdict: str) -> None:
    """2 of 255 everywhere is 42.1 dB, 3 of 255 is 38.6 dB: the bound of 40 dB lies between."""
    old, new = (Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)) for value in (100, 100 + gap))
    assert compare(old, new)[0] == verdict
    assert compare(old, new.resize((4, 4)))[0] == "different"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "newer unnoise"),
        ({"steps": 10**9}, "steps cannot be run"),
        ({"steps": "4"}, "damaged"),
        ({"seed": -1}, "damaged"),
        ({"batch": 65}, "damaged"),
        ({"row": 3}, "damaged"),
        ({"cfg_scale": float("nan")}, "guidance scale"),
        ({"solver": "os.system"}, "no solver is called"),
        ({"guidance": "interval(" * 50}, "deep"),
        ({"prompt": "word " * 5000}, "prompt"),
    ],
)
def test_records_that_lie_are_refused(
    changes: dict[str, Any], said: str, say: Say, drawn: list[Path], tiny_model: Path
) -> None:
    status, out, err = say("replay", edited(drawn[0], **changes), "--model", tiny_model)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert said in err


def test_files_that_are_no_such_pictures(say: Say, drawn: list[Path], tmp_path: Path) -> None:
    plain, cut, text = (tmp_path / name for name in ("plain.png", "cut.png", "text.png"))
    Image.new("RGB", (4, 4)).save(plain)
    cut.write_bytes(drawn[0].read_bytes()[:300])
    text.write_text("hello")
    for path, said in (
        (plain, "does not say how it was made"),
        (cut, "cannot be read"),
        (text, "is no PNG"),
        (tmp_path / "none.png", "there is no picture"),
        (tmp_path, "cannot be read"),
    ):
        status, out, err = say("replay", path)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert said in err
