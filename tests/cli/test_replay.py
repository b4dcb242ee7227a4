"""``unnoise replay``: a picture made again is equal, and what was changed is told apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.test_decoders import write
from unnoise.cli.main import main
from unnoise.cli.replay import compare
from unnoise.engine import decoders
from unnoise.engine import load as loading
from unnoise.engine.engine import Engine, finished
from unnoise.engine.metadata import Record, record_of, to_png
from unnoise.engine.request import FORMAT

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
        info = PngInfo()
        info.add_itxt("unnoise", json.dumps(json.loads(image.text["unnoise"]) | changes))  # type: ignore[attr-defined]
        image.save(path.with_name("edited.png"), pnginfo=info)
    return path.with_name("edited.png")


def as_format(path: Path, version: int) -> Path:
    """The picture with its record as the format 1 or 2 had it: the scale beside the guidance, no rules."""
    with Image.open(path) as image:
        record = json.loads(image.text["unnoise"])  # type: ignore[attr-defined]
        del record["rules"]
        assert record["guidance"] == "cfg(2)"
        info = PngInfo()
        old = record | {"format": version, "guidance": "cfg", "cfg_scale": 2.0}
        info.add_itxt("unnoise", json.dumps(old))
        image.save(path.with_name("old.png"), pnginfo=info)
    return path.with_name("old.png")


def test_every_picture_of_a_batch_is_equal(say: Say, drawn: list[Path], tiny_model: Path) -> None:
    for path in drawn:
        assert say("replay", path, "--model", tiny_model) == (0, f"{path}: equal, every pixel is the same\n", "")


def test_a_record_without_weights_is_of_a_time_when_brackets_were_text(
    say: Say, tiny_model: Path, tmp_path: Path
) -> None:
    for literal in (["--literal"], []):
        args = ["(red:1.4) apple", "--seed", "1", "--out", f"of {len(literal)}", "--model", tiny_model, *literal]
        assert say("generate", *args)[0] == 0
        path = next((tmp_path / f"of {len(literal)}").iterdir())
        assert say("replay", path, "--model", tiny_model)[0] == 0
        with Image.open(path) as image:
            record = json.loads(image.text["unnoise"])  # type: ignore[attr-defined]
            del record["weights"]
            path.write_bytes(to_png(image.convert("RGB"), Record.from_json(record, "it")))
        status, out, _ = say("replay", path, "--model", tiny_model)
        assert (": equal" in out) == bool(literal), "only what was drawn literally is equal"
        assert status == (0 if literal else 1)


def test_a_record_of_format_1_is_drawn_from_its_prompt_as_it_was_typed(
    say: Say, engine: Engine, tiny_model: Path, tmp_path: Path
) -> None:
    """A blank at the end made another picture then; a record of format 2 with one makes today's."""
    prompt, negative = "(red) apple ", " blue"
    for rules in (1, 2):
        request = engine.request(prompt, seed=3, negative=negative, weights=True, rules=rules)
        (done,) = finished(engine.draw([request]))
        path = tmp_path / f"{rules}.png"
        path.write_bytes(to_png(done.picture, record_of(engine.model, done)))
        assert ": equal" in say("replay", path, "--model", tiny_model)[1]
        old = as_format(path, rules)
        assert ": equal" in say("replay", old, "--model", tiny_model)[1]
        old = as_format(path, 3 - rules)
        assert ": equal" not in say("replay", old, "--model", tiny_model)[1], "the rules make no difference"


def test_another_seed_or_setting_is_different(say: Say, drawn: list[Path], tiny_model: Path) -> None:
    for changes in (
        {"seed": 8},
        {"guidance": "interval(rescale(cfg(9)), high=9)"},
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
        ({"format": FORMAT + 1}, "newer unnoise"),
        ({"steps": 10**9}, "steps 1000000000 is out of range"),
        ({"steps": "4"}, "steps is '4', which is no whole number"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"batch": 65}, "damaged"),
        ({"row": 3}, "damaged"),
        ({"guidance": "cfg(nan)"}, "scale is 'nan'"),
        ({"solver": "os.system"}, "no solver is called"),
        ({"guidance": "interval(" * 50}, "deep"),
        ({"prompt": "word " * 5000}, "prompt"),
        ({"weights": "yes"}, "fields of the wrong kind"),
    ],
)
def test_records_that_lie_are_refused(
    changes: dict[str, Any], said: str, say: Say, drawn: list[Path], tiny_model: Path
) -> None:
    status, out, err = say("replay", edited(drawn[0], **changes), "--model", tiny_model)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert said in err


def test_files_that_are_no_such_pictures(say: Say, drawn: list[Path], tmp_path: Path) -> None:
    plain, cut, text, head = (tmp_path / name for name in ("plain.png", "cut.png", "text.png", "head.png"))
    head.write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (4, 4)).save(plain)
    cut.write_bytes(drawn[0].read_bytes()[:300])
    text.write_text("hello")
    for path, said in (
        (plain, "does not say how it was made"),
        (cut, "cannot be read"),
        (head, f"{head} cannot be read: it is damaged; copy it again"),
        (text, "is text, no PNG"),
        (tmp_path / "none.png", "there is no picture"),
        (tmp_path, "cannot be read"),
    ):
        status, out, err = say("replay", path)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert said in err


@pytest.fixture
def begun(tmp_path: Path) -> dict[str, Path]:
    """Pictures to start from."""
    grey = np.linspace(0, 255, 96 * 96 * 3).reshape(96, 96, 3).astype(np.uint8)
    half = np.zeros((96, 96), np.uint8)
    half[:, 48:] = 255
    made = {"start": Image.fromarray(grey), "mask": Image.fromarray(half), "other": Image.fromarray(255 - grey)}
    for name, image in made.items():
        image.save(tmp_path / f"{name}.png")
    return {name: tmp_path / f"{name}.png" for name in made}


HOW = {
    "strength": ["--strength", "0.5"],
    "mask": ["--mask", "mask.png"],
    "invert": ["--invert", "blue heart", "--solver", "euler"],
    "outpaint": ["--outpaint", "right=24,top=8"],
}


@pytest.mark.parametrize("how", HOW)
def test_pictures_drawn_from_pictures(
    how: str, say: Say, begun: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    """Equal with the pictures that were used, refused in one line without them or with others."""
    more = ["--count", 2] if how == "strength" else []
    args = ["red apple", "--seed", 3, "--start", "start.png", *HOW[how], *more, "--steps", 3, "--model", tiny_model]
    assert say("generate", *args)[0] == 0
    path = sorted((tmp_path / "pictures").iterdir())[-1]
    if how == "outpaint":
        with Image.open(path) as image:
            assert image.size == (152, 136)
    own = ["--start", "start.png", *(["--mask", "mask.png"] if how == "mask" else [])]
    assert say("replay", path, *own, "--model", tiny_model)[:2] == (0, f"{path}: equal, every pixel is the same\n")
    refused = {
        (): f"{path} was drawn from a start, which is not in it; name it with --start",
        ("--start", "other.png"): f"other.png is not the start that {path} was drawn from; name the one that was used",
    }
    if how == "mask":
        refused["--start", "start.png"] = f"{path} was drawn from a mask, which is not in it; name it with --mask"
    else:
        refused[*own, "--mask", "mask.png"] = f"{path} was drawn without a mask; leave --mask out"
    for wrong, said in refused.items():
        assert say("replay", path, *wrong, "--model", tiny_model) == (1, "", f"unnoise: {said}\n")


HALF = {"sha256": "x"}


WHOLE = HALF | {"mask": None, "invert": None}
LIES = [1, {}, HALF, HALF | {"strength": 0.5}, WHOLE | {"strength": "1"}, WHOLE | {"outpaint": 3}, WHOLE | {"mask": 1}]


@pytest.mark.parametrize("version", [2, FORMAT])
@pytest.mark.parametrize("start", LIES)
def test_a_start_that_was_tampered_with(
    start: Any, version: int, say: Say, drawn: list[Path], tiny_model: Path
) -> None:
    path = edited(drawn[0], start=start, format=version)
    status, out, err = say("replay", path, "--model", tiny_model)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"unnoise: the record in {path} ")
    assert err.endswith("; generate the picture again\n") or " cannot be drawn: st" in err


def test_a_picture_is_decoded_again_by_what_decoded_it(
    say: Say, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNNOISE_HOME", str(tmp_path / "home"))
    how = ("--seed", 1, "--model", tiny_model)
    status, _, err = say("generate", "red apple", *how, "--decoder", "linear")
    assert status == 0
    assert "pictures are decoded by a linear map" in err
    path = tmp_path / "pictures" / "red-apple-1.png"
    record = json.loads(Image.open(path).text["unnoise"])  # type: ignore[attr-defined]
    assert record["model"]["decoder"]["kind"] == "linear"
    assert say("replay", path, "--model", tiny_model)[:2] == (0, f"{path}: equal, every pixel is the same\n")
    status, out, _ = say("replay", path, "--model", tiny_model, "--decoder", "own")
    assert status == 1
    assert "decoded by the model's own decoder, it was by linear" in out
    other = {**record["model"], "decoder": {**record["model"]["decoder"], "hash": "0"}}
    status, out, _ = say("replay", edited(path, model=other), "--model", tiny_model)
    assert status == 0
    assert "decoded by linear, it was by one of other numbers" in out
    status, _, err = say("replay", edited(path, model={**other, "decoder": 3}), "--model", tiny_model)
    assert status == 1
    assert "damaged" in err


def test_a_tiny_decoder_is_found_in_the_list_or_missed(
    say: Say, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNNOISE_HOME", str(tmp_path / "home"))
    file = tmp_path / "models" / "taesd_decoder.safetensors"
    write(file)
    assert say("generate", "red apple", "--seed", 1, "--model", tiny_model, "--decoder", file)[0] == 0
    path = tmp_path / "pictures" / "red-apple-1.png"
    assert "VAE Decoder: TAESD" in Image.open(path).text["parameters"]  # type: ignore[attr-defined]
    status, out, _ = say("replay", path, "--model", tiny_model)
    assert status == 1
    assert "decoded by the model's own decoder, it was by taesd_decoder; name that with --decoder" in out
    for more in (("--decoder", file), ()):
        status, out, _ = say("replay", path, "--model", tiny_model, *more)
        assert (status, out) == (0, f"{path}: equal, every pixel is the same\n")
        assert say("models", "add", file.parent)[0] == 0


def test_frames_of_a_published_model_are_decoded_cheaply(
    say: Say, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture is the same to the bit, the film another."""
    monkeypatch.setenv("UNNOISE_HOME", str(tmp_path / "home"))
    how = ("--seed", 1, "--steps", 3, "--gif", "--model", tiny_model)
    folders = [tmp_path / name for name in ("own", "cheap")]
    assert say("generate", "red apple", *how, "--decoder", "own", "--out", folders[0])[0] == 0
    monkeypatch.setattr(decoders, "is_dear", lambda *args: True)
    load = loading.load_own
    monkeypatch.setattr(
        loading,
        "load_own",
        lambda *args: (model := load(*args)).with_part("autoencoder", model.autoencoder, family="sd1"),
    )
    status, _, err = say("generate", "red apple", *how, "--out", folders[1])
    assert status == 0
    assert "frames on the way are decoded by a linear map" in err
    pictures = [np.asarray(Image.open(folder / "red-apple-1.png")).tobytes() for folder in folders]
    films = [(folder / "red-apple-1.gif").read_bytes() for folder in folders]
    assert pictures[0] == pictures[1]
    assert films[0] != films[1]
