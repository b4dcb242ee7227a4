"""``unnoise generate --like`` and ``replay`` of pictures of other tools: what is taken, what is named, who wins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unnoise.cli.main import main

OTHERS = Path(__file__).resolve().parent.parent / "fixtures" / "others"
Say = Callable[..., tuple[int, str, str]]
LINES = (
    "red apple\nNegative prompt: blue heart\n"
    "Steps: 3, Sampler: DPM++ 2M Karras, CFG scale: 4.5, Seed: 11, Size: 512x512, Model: some, Clip skip: 2"
)


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_model: Path) -> Say:
    """Runs the program in an empty folder: (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> tuple[int, str, str]:
        try:
            status = main([*(str(arg) for arg in args), "--model", str(tiny_model)])
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return call


def written(tmp_path: Path, text: str = LINES, key: str = "parameters") -> Path:
    """A picture that says this."""
    info = PngInfo()
    info.add_itxt(key, text)
    Image.new("RGB", (64, 64)).save(tmp_path / "other.png", pnginfo=info)
    return tmp_path / "other.png"


def record_in(tmp_path: Path, newest: int = -1) -> dict[str, Any]:
    """The record of the picture that was drawn last."""
    paths = sorted((tmp_path / "pictures").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    with Image.open(paths[newest]) as image:
        found: dict[str, Any] = json.loads(image.text["unnoise"])  # type: ignore[attr-defined]
    return found


HOW = ("prompt", "negative", "steps", "solver", "spacing", "guidance", "seed")


def test_what_is_not_given_is_taken(say: Say, tmp_path: Path) -> None:
    status, out, err = say("generate", "--like", written(tmp_path))
    assert (status, out.splitlines()[0]) == (0, "pictures/red-apple-11.png  seed 11")
    wanted = ("red apple", "blue heart", 3, "dpmpp-2m", "karras", "cfg(4.5)", 11)
    assert tuple(record_in(tmp_path)[name] for name in HOW) == wanted
    assert err.splitlines() == [
        f"{tmp_path}/other.png: made by AUTOMATIC1111 or a tool that writes as it does",
        '  taken: prompt "red apple", negative "blue heart", seed 11, steps 3, cfg-scale 4.5, solver dpmpp-2m, '
        "spacing karras",
        "  left out: Model some, size 512 x 512, here it is the model's, Clip skip 2",
        "  other tools draw other noise: the same seed gives another picture",
    ]
    plain = ("--steps", 3, "--solver", "dpmpp-2m", "--spacing", "karras", "--cfg-scale", 4.5, "--seed", 11)
    assert say("generate", "red apple", "--negative", "blue heart", *plain, "--out", "b")[0] == 0
    with Image.open("pictures/red-apple-11.png") as like, Image.open("b/red-apple-11.png") as told:
        assert like.tobytes() == told.tobytes()


def test_options_win(say: Say, tmp_path: Path) -> None:
    given = ["--negative", "", "--steps", 2, "--solver", "euler", "--spacing", "simple", "--cfg-scale", 1, "--seed", 5]
    status, _, err = say("generate", "a dog", "--like", written(tmp_path), *given)
    assert status == 0
    assert tuple(record_in(tmp_path)[name] for name in HOW) == ("a dog", "", 2, "euler", "simple", "cfg(1)", 5)
    assert "  taken: nothing" in err.splitlines()
    assert "another picture" not in err or "seed" not in err.split("taken")[1].splitlines()[0]
    status, out, _ = say("generate", "--like", written(tmp_path), "--grid", "steps=1,2", "--json")
    found = json.loads(out)
    assert (status, found["prompt"], found["like"]["tool"][:13]) == (0, "red apple", "AUTOMATIC1111")
    assert "steps" not in found["like"]["taken"]
    assert "steps" not in found


def test_a_start_takes_the_strength(say: Say, tmp_path: Path) -> None:
    path = written(tmp_path, LINES + ", Denoising strength: 0.35")
    assert "left out: Model some, size 512 x 512" in say("generate", "--like", path)[2]
    assert "strength 0.35, of a start picture" in say("generate", "--like", path)[2]
    assert say("generate", "--like", path, "--start", path)[0] == 0
    assert record_in(tmp_path)["strength"] == 0.35
    assert say("generate", "--like", path, "--start", path, "--strength", 0.8)[0] == 0
    assert record_in(tmp_path)["strength"] == 0.8


def test_what_has_no_counterpart_is_named_with_what_stands_in(say: Say, tmp_path: Path) -> None:
    path = written(tmp_path, "red apple\nSteps: 2, Sampler: DPM fast, Schedule type: Turbo, CFG scale: 900, Seed: -1")
    status, _, err = say("generate", "--like", path, "--seed", 1)
    assert status == 0
    assert "sampler DPM fast, which has no counterpart here" in err
    assert "schedule Turbo, which has no counterpart here" in err
    assert "CFG scale 900" in err
    assert "  in their place: solver euler, spacing trailing" in err.splitlines()


def test_our_own_pictures_are_followed_exactly(say: Say, tmp_path: Path) -> None:
    how = ["--solver", "ddim(eta=1)", "--spacing", "shifted(2)", "--guidance", "interval(rescale(cfg(5)), high=9)"]
    more = ["--noise", "brownian", "--steps", 3, "--seed", 7, "--negative", "blue", "--literal"]
    assert say("generate", "Negative prompt: (red)", *how, *more)[0] == 0
    (path,) = (tmp_path / "pictures").iterdir()
    status, _, err = say("generate", "--like", path, "--out", "again")
    assert (status, "made by unnoise" in err, "left out" in err) == (0, True, False)
    with Image.open(path) as first, Image.open(next((tmp_path / "again").iterdir())) as second:
        assert first.tobytes() == second.tobytes()
        assert first.text["unnoise"] == second.text["unnoise"]  # type: ignore[attr-defined]
    assert say("replay", path)[0] == 0
    assert say("generate", "--like", path, "--cfg-scale", 2)[0] == 0
    assert record_in(tmp_path)["guidance"] == "interval(rescale(cfg(2)), high=9)"


def test_a_scale_that_the_guidance_of_a_file_has_no_use_for(say: Say, tmp_path: Path) -> None:
    assert say("generate", "red apple", "--guidance", "cfg++(0.4)", "--steps", 1, "--seed", 7)[0] == 0
    (path,) = (tmp_path / "pictures").iterdir()
    status, out, err = say("generate", "--like", path, "--cfg-scale", 2)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "--cfg-scale 2 does not reach the guidance cfg++(0.4) of " in err


def test_a_prompt_that_is_missing_or_too_long(say: Say, tmp_path: Path) -> None:
    path = written(tmp_path, LINES.replace("red apple", "zebra " * 40).replace("blue heart", "quagga " * 40))
    status, out, err = say("generate", "--like", path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "the prompt of" in err
    assert "before --like" in err
    status, _, err = say("generate", "red apple", "--like", path)
    assert (status, record_in(tmp_path)["negative"]) == (0, "")
    assert "negative" in err.split("left out")[1]
    graph = {
        str(i): {"class_type": "KSampler", "inputs": {"seed": i, "steps": 2, "positive": [f"t{i}", 0]}} for i in (1, 2)
    }
    graph |= {f"t{i}": {"class_type": "CLIPTextEncode", "inputs": {"text": f"heart {i}"}} for i in (1, 2)}
    path = written(tmp_path, json.dumps(graph), "prompt")
    status, out, err = say("generate", "--like", path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "names no single prompt; it holds 2 samplers (KSampler 1, KSampler 2)" in err
    del graph["2"], graph["t1"]
    path = written(tmp_path, json.dumps(graph), "prompt")
    assert "names no single prompt; give one" in say("generate", "--like", path)[2]  # and not that noises differ
    assert f"generate PROMPT --like {path}" in say("replay", path)[2]
    nothing = written(tmp_path, json.dumps({"1": {"class_type": "Note", "inputs": {}}}), "prompt")
    assert "it says nothing that is known here; draw" in say("replay", nothing)[2]
    path = written(tmp_path, json.dumps(graph), "prompt")
    assert say("generate", "red apple", "--like", path)[0] == 0


def test_a_file_cannot_command_the_terminal(say: Say, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[31m\u202e"
    text = json.dumps({"prompt": f"red {evil}apple", "steps": 2, "software": f"x{evil}", f"k{evil}": f"v{evil}"})
    for args in (("generate", "--like"), ("replay",)):
        status, out, err = say(*args, written(tmp_path, text))
        assert not set("\x1b\x07\u202e") & set(out + err)
        assert status == (1 if args == ("replay",) else 0)


def test_replay_of_another_tools_picture_says_what_to_do(say: Say, tmp_path: Path) -> None:
    for path in (written(tmp_path), OTHERS / "a1111.jpg", OTHERS / "comfyui_img2img_1x1.png"):
        status, out, err = say("replay", path)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert f"{path} was made by " in err
        assert err.endswith(f"draw like it: unnoise generate --like {path}\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    assert "does not say how it was made" in say("replay", tmp_path / "plain.png")[2]
    status, out, err = say("generate", "--like", tmp_path / "plain.png")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "does not say how it was made" in err


def test_what_is_printed_is_what_was_used(say: Say) -> None:
    for how, wanted in (
        (["--guidance", "cfg(7)"], "guidance 7"),
        (["--cfg-scale", 3], "guidance 3"),
        (["--guidance", "interval(rescale(cfg(5)))"], "guidance interval(rescale) at scale 5"),
        (["--guidance", "cfg++"], "guidance cfg++"),
        (["--guidance", "plain"], "guidance plain at scale 1"),
    ):
        assert f"steps of euler, {wanted}, " in say("generate", "red apple", "--steps", 1, *how)[1]
    found = json.loads(say("generate", "red apple", "--steps", 1, "--guidance", "cfg(7)", "--json")[1])
    assert found["guidance"] == "cfg(7)"
    assert "cfg_scale" not in found
    found = json.loads(say("generate", "red apple", "--steps", 1, "--grid", "guidance=cfg(2),cfg(3)", "--json")[1])
    assert not {"cfg_scale", "guidance"} & set(found)
