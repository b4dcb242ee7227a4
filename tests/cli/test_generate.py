"""``unnoise generate``: files, seeds, what is printed."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unnoise.cli import output
from unnoise.cli.main import main
from unnoise.engine.engine import Engine
from unnoise.engine.metadata import weights_sha256
from unnoise.engine.model import Model
from unnoise.engine.request import FORMAT, RULES
from unnoise.study.film import GAP, MARGIN

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


def test_writes_pictures_and_says_where(draw: object, tmp_path: Path, engine: Engine) -> None:
    out = draw("Red apple!", "--seed", "7", "--count", "2")  # type: ignore[operator]
    files = sorted(p.name for p in (tmp_path / "pictures").iterdir())
    assert files == ["red-apple-7.png", "red-apple-8.png"]
    lines = out.splitlines()
    assert lines[:2] == ["pictures/red-apple-7.png  seed 7", "pictures/red-apple-8.png  seed 8"]
    assert re.fullmatch(r"Red apple!: seeds 7 to 8, 4 steps of euler, guidance 2, \d+\.\d s", lines[2])
    for number, wanted in enumerate(engine.generate("Red apple!", seed=7, count=2)):
        with Image.open(tmp_path / "pictures" / files[number]) as image:
            assert image.tobytes() == wanted.tobytes()
            record = json.loads(image.text["unnoise"])  # type: ignore[attr-defined]
            lines = image.text["parameters"].splitlines()  # type: ignore[attr-defined]
    model, made_by = record.pop("model"), record.pop("made_by")
    assert record == {
        "format": FORMAT,
        "rules": RULES,
        "prompt": "Red apple!",
        "negative": "",
        "steps": 4,
        "solver": "euler",
        "spacing": "trailing",
        "guidance": "cfg(2)",
        "noise": "independent",
        "weights": True,
        "seed": 8,
        "row": 1,
        "batch": 2,
        "size": [128, 128],
    }
    assert model == {"name": "tiny", "sha256": weights_sha256(engine.model.record)}
    assert made_by.keys() == {"unnoise", "torch", "device", "dtype", "threads", "compiled"}
    assert lines[0] == "Red apple!"
    assert lines[1].startswith("Steps: 4, Sampler: Euler, Schedule type: Custom, CFG scale: 2, Seed: 8, Size: 128x128")


def test_what_a_picture_carries_can_be_left_out(draw: object, tmp_path: Path) -> None:
    draw("x", "--seed", "1", "--no-metadata")  # type: ignore[operator]
    with Image.open(tmp_path / "pictures/x-1.png") as image:
        assert image.info == {}


def test_runs_as_films(draw: object, tmp_path: Path, engine: Engine) -> None:
    """The strip has the state above the prediction; the moving picture ends with the last prediction."""
    out = draw("x", "--seed", "1", "--count", "2", "--strip", "--gif", "--steps", "5")  # type: ignore[operator]
    names = {f"x-{seed}{end}" for seed in (1, 2) for end in (".png", "-strip.png", ".gif")}
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == names
    assert all(f"pictures/{name}" in out for name in names)
    steps = list(engine.steps("x", seed=2, steps=5))
    with Image.open(tmp_path / "pictures/x-2-strip.png") as strip:
        for place, step in enumerate(steps):
            for row, picture in enumerate((step.noisy, step.picture)):
                left, top = GAP + place * (128 + GAP), GAP + MARGIN + row * (128 + GAP + MARGIN)
                assert apart(strip.crop((left, top, left + 128, top + 128)), picture) <= 2
    with Image.open(tmp_path / "pictures/x-2.gif") as film:
        assert film.n_frames == 5
        film.seek(4)
        shown = np.asarray(film.convert("RGB"), dtype=int)
    far, near = (abs(shown - np.asarray(steps[i].picture, dtype=int)).mean() for i in (0, -1))
    assert near < far, "256 colours are few for what is hardly more than noise"


def apart(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two pictures, of 255."""
    return int(abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


def test_words_never_taught_are_named(
    tiny_model: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: object
) -> None:
    own, known = engine.model, frozenset({"red", "apple", "a"})
    taught = Engine(Model(own.parts, {"text": own.tower.tokenizer}, own.record, known))
    monkeypatch.setattr("unnoise.engine.load.load_engine", lambda *_: taught)
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "a red aple", "--seed", "1", "--steps", "1"]) == 0
    assert "never been taught 'aple' (nearest: apple)" in capsys.readouterr().err  # type: ignore[attr-defined]
    assert main(["generate", "a red apple", "--seed", "1", "--steps", "1"]) == 0
    assert capsys.readouterr().err == ""  # type: ignore[attr-defined]


def test_strict_pictures_are_drawn_alone(draw: object, tmp_path: Path, engine: Engine) -> None:
    draw("x", "--seed", "1", "--count", "3", "--strict", "--solver", "ddim(eta=1)")  # type: ignore[operator]
    for seed in (1, 2, 3):
        with Image.open(tmp_path / f"pictures/x-{seed}.png") as image:
            assert image.tobytes() == engine.generate("x", seed=seed, solver="ddim(eta=1)")[0].tobytes()
            record = json.loads(image.text["unnoise"])  # type: ignore[attr-defined]
        assert (record["row"], record["batch"]) == (0, 1)


def test_brackets_weigh_words_or_are_taken_literally(draw: object, tmp_path: Path, engine: Engine) -> None:
    for args, weights in (((), True), (("--literal",), False)):
        out = draw("(red:1.4) apple", "--seed", "1", "--out", f"of {weights}", *args)  # type: ignore[operator]
        with Image.open(tmp_path / out.splitlines()[0].split("  ")[0]) as image:
            wanted = engine.generate("(red:1.4) apple", seed=1, weights=weights)[0]
            assert image.tobytes() == wanted.tobytes()
            assert json.loads(image.text["unnoise"])["weights"] is weights  # type: ignore[attr-defined]


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
        "pictures", "prompt", "negative", "steps", "size", "solver", "spacing", "guidance", "model", "seconds",
        "format", "rules", "made_by", "noise", "weights",
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
    assert len(output.slug("word " * 60)) <= 48


def test_a_disk_without_hard_links(draw: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    for name in ("x-1.png", "x-1-2.png"):
        assert draw("x", "--seed", "1").startswith(f"pictures/{name}")  # type: ignore[operator]
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["x-1-2.png", "x-1.png"]


def test_a_name_taken_meanwhile_is_left_alone(draw: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process takes the name between the look and the write."""
    named, new_name = [], output.new_name

    def race(folder: Path, stem: str, suffix: str) -> Path:
        path = new_name(folder, stem, suffix)
        if not named:
            path.write_text("theirs")
        named.append(path)
        return path

    monkeypatch.setattr(output, "new_name", race)
    assert draw("x", "--seed", "1").startswith("pictures/x-1-2.png")  # type: ignore[operator]
    assert (tmp_path / "pictures/x-1.png").read_text() == "theirs"
