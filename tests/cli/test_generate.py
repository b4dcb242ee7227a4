"""``unnoise generate``: files, seeds, what is printed."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from unnoise.cli import generate
from unnoise.cli.main import main
from unnoise.pipelines.text_to_picture import Pipeline

Said = pytest.CaptureFixture[str]


@pytest.fixture
def draw(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> object:
    """Runs the verb in an empty folder and returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> str:
        assert main(["generate", *args, "--model", str(tiny_model)]) == 0
        out, err = capsys.readouterr()
        assert err == "", "where no terminal is, no progress is shown"
        return out

    return call


def test_writes_pictures_and_says_where(draw: object, tmp_path: Path, pipeline: Pipeline) -> None:
    out = draw("Red apple!", "--seed", "7", "--count", "2")  # type: ignore[operator]
    files = sorted(p.name for p in (tmp_path / "pictures").iterdir())
    assert files == ["red-apple-7.png", "red-apple-8.png"]
    lines = out.splitlines()
    assert lines[:2] == ["pictures/red-apple-7.png  seed 7", "pictures/red-apple-8.png  seed 8"]
    assert re.fullmatch(r"Red apple!: seeds 7 to 8, 4 steps of euler, guidance 2, \d+\.\d s", lines[2])
    for number, wanted in enumerate(pipeline.generate("Red apple!", seed=7, count=2)):
        with Image.open(tmp_path / "pictures" / files[number]) as image:
            assert image.tobytes() == wanted.tobytes()
            record = json.loads(image.text["unnoise"])  # type: ignore[attr-defined]
    assert record == {
        "prompt": "Red apple!",
        "negative": "",
        "steps": 4,
        "cfg_scale": 2.0,
        "solver": "euler",
        "spacing": "trailing",
        "guidance": "cfg",
        "model": "tiny",
        "seed": 8,
    }


def test_a_seed_is_chosen_and_printed(draw: object, tmp_path: Path) -> None:
    first, second = (draw("x") for _ in range(2))  # type: ignore[operator]
    seed = int(re.search(r"seed (\d+)$", first.splitlines()[0])[1])  # type: ignore[index]
    assert f"x: seed {seed}, " in first
    assert first.splitlines()[0] != second.splitlines()[0]
    again = draw("x", "--seed", str(seed), "--out", "again").splitlines()[0]  # type: ignore[operator]
    assert (tmp_path / again.split("  ")[0]).read_bytes() == (tmp_path / f"pictures/x-{seed}.png").read_bytes()


def test_nothing_is_overwritten(draw: object, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/x-1.png").write_text("mine")
    (tmp_path / "pictures/x-1-2.png").symlink_to(tmp_path / "nowhere")
    for number in (3, 4):
        assert draw("x", "--seed", "1").startswith(f"pictures/x-1-{number}.png  seed 1\n")  # type: ignore[operator]
    assert (tmp_path / "pictures/x-1.png").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert (tmp_path / "pictures/x-1-3.png").read_bytes() == (tmp_path / "pictures/x-1-4.png").read_bytes()


def test_json(draw: object, tmp_path: Path) -> None:
    found = json.loads(draw("rote Äpfel 🍎", "--seed", "5", "--count", "2", "--json"))  # type: ignore[operator]
    assert found["pictures"] == [{"path": f"pictures/rote-pfel-{seed}.png", "seed": seed} for seed in (5, 6)]
    assert found["prompt"] == "rote Äpfel 🍎"
    assert found.keys() == {
        "pictures", "prompt", "negative", "steps", "cfg_scale", "solver", "spacing", "guidance", "model", "seconds",
    }  # fmt: skip
    assert all((tmp_path / each["path"]).is_file() for each in found["pictures"])


def test_any_prompt_makes_a_file_name(draw: object) -> None:
    for prompt, name in (
        ("🍎", "picture"),
        ("../../etc/passwd", "etc-passwd"),
        ("", "picture"),
        ("👩🏽‍🚒 at work", "at-work"),
    ):
        out = draw(prompt, "--seed", "1", "--steps", "1", "--out", f"of {len(prompt)}")  # type: ignore[operator]
        assert out.startswith(f"of {len(prompt)}/{name}-1.png")
    assert len(generate.slug("word " * 60)) <= 48


def test_a_disk_without_hard_links(draw: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    for name in ("x-1.png", "x-1-2.png"):
        assert draw("x", "--seed", "1").startswith(f"pictures/{name}")  # type: ignore[operator]
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["x-1-2.png", "x-1.png"]


def test_a_name_taken_meanwhile_is_left_alone(draw: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process takes the name between the look and the write."""
    named, new_name = [], generate.new_name

    def race(folder: Path, stem: str, suffix: str) -> Path:
        path = new_name(folder, stem, suffix)
        if not named:
            path.write_text("theirs")
        named.append(path)
        return path

    monkeypatch.setattr(generate, "new_name", race)
    assert draw("x", "--seed", "1").startswith("pictures/x-1-2.png")  # type: ignore[operator]
    assert (tmp_path / "pictures/x-1.png").read_text() == "theirs"
