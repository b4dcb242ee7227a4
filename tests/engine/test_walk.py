"""Where a prompt and a scale go on their way to the network: down the floors, and through no room twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from safetensors import safe_open

from test_layers import FLOORS
from unnoise.cli.main import main
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.engine import emphasis
from unnoise.engine.request import Request
from unnoise.guidances.cfg import CFG

PROMPT, SCALE = "zwq apple", 2.71828


def room(frame: FrameType) -> str | None:
    """The room that a frame's code lies in; None outside of the project, and on its ground floor, which serves all."""
    parts = frame.f_globals.get("__name__", "").split(".")
    return parts[1] if parts[0] == "unnoise" and len(parts) > 2 and FLOORS.get(parts[1], 0) > 0 else None


def holds_prompt(value: Any) -> bool:
    if isinstance(value, Request):
        return PROMPT in vars(value).get("prompt", "")
    if isinstance(value, tuple | list):
        return any(holds_prompt(each) for each in value)
    return isinstance(value, str) and PROMPT in value


def holds_scale(value: Any) -> bool:
    if isinstance(value, Request):
        return str(SCALE) in str(vars(value).get("guidance"))
    if isinstance(value, dict):
        return any(holds_scale(each) for each in value.values())
    if isinstance(value, CFG):
        return vars(value).get("scale") == SCALE
    return value == SCALE if isinstance(value, float) else isinstance(value, str) and str(SCALE) in value


def walks(holds: Callable[[Any], bool], run: Callable[[], Any]) -> Counter[tuple[str, ...]]:
    """The rooms of all frames that were handed the value, from the outermost inwards, each time that a call gets it."""
    found: Counter[tuple[str, ...]] = Counter()
    given: dict[int, tuple[FrameType, bool]] = {}

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or room(frame) is None or not any(holds(value) for value in frame.f_locals.values()):
            return
        given[id(frame)] = (frame, True)  # kept, so that the number stays its own
        rooms: list[str] = []
        place: FrameType | None = frame
        while place is not None:
            name = room(place)
            if id(place) in given and name is not None and rooms[-1:] != [name]:
                rooms.append(name)
            place = place.f_back
        found[tuple(reversed(rooms))] += 1

    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize(("holds", "end"), [(holds_prompt, "encoders"), (holds_scale, "guidances")])
def test_it_goes_down_the_floors_and_enters_no_room_twice(
    holds: Callable[[Any], bool], end: str, tiny_model: Path, tmp_path: Path
) -> None:
    words = ["generate", PROMPT, "--cfg-scale", str(SCALE), "--model", str(tiny_model), "--steps", "2", "--seed", "1"]
    found = walks(holds, lambda: main([*words, "--out", str(tmp_path), "--device", "cpu"]))
    assert list(tmp_path.glob("*.png"))
    assert any(walk == ("cli", "engine", end) for walk in found), found
    for walk in found:
        floors = [FLOORS[name] for name in walk]
        assert floors == sorted(set(floors), reverse=True), walk


def test_the_measure_sees_a_turn_back() -> None:
    """The control: a function of the engine that hands the prompt up to the command line again."""
    up: dict[str, Any] = {"__name__": "unnoise.cli.up"}
    down: dict[str, Any] = {"__name__": "unnoise.engine.down", "up": up}
    exec("def slug(text): return text", up)
    exec("def draw(prompt): return up['slug'](prompt)", down)
    start: dict[str, Any] = {"__name__": "unnoise.cli.begin", "draw": down["draw"]}
    exec("def begin(prompt): return draw(prompt)", start)
    assert ("cli", "engine", "cli") in walks(holds_prompt, lambda: start["begin"](PROMPT))


def test_each_text_is_parsed_and_cut_into_tokens_once_and_each_weight_read_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, parsed, weights = Counter[str](), Counter[str](), Counter[str]()
    encoded, parse = Tokenizer._encoded, emphasis.parse

    class Watched:
        """A file of weights that counts what is read of it."""

        def __init__(self, path: Path, framework: str) -> None:
            self.file = safe_open(path, framework)

        def __enter__(self) -> Watched:
            self.open = self.file.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            self.file.__exit__(*error)

        def get_tensor(self, name: str) -> Any:
            weights[name] += 1
            return self.open.get_tensor(name)

    monkeypatch.setattr(Tokenizer, "_encoded", lambda self, text: cut.update([text]) or encoded(self, text))
    monkeypatch.setattr(emphasis, "parse", lambda text, *a: parsed.update([text]) or parse(text, *a))
    monkeypatch.setattr("unnoise.weights.shards.safe_open", Watched)
    words = ["generate", "red (apple:1.2)", "--negative", "blue", "--count", "3", "--model", str(tiny_model)]
    assert main([*words, "--steps", "2", "--seed", "1", "--out", str(tmp_path), "--device", "cpu"]) == 0
    assert parsed == Counter({"red (apple:1.2)": 1, "blue": 1, "": 1})
    assert {text: cut[text] for text in ("red apple", "blue")} == {"red apple": 1, "blue": 1}
    assert len(weights) > 50
    assert set(weights.values()) == {1}


# one file for a setting

NEW = """    warmth: float = field(default=0.5, metadata=option("a setting that a test adds.", kind=float))
    rules: int = RULES
"""
TRIAL = """
import json, sys
from pathlib import Path
from unnoise.cli.main import main
from unnoise.engine.metadata import read_pictures

model, out = sys.argv[1], Path(sys.argv[2])
draw = ["generate", "red apple", "--model", model, "--steps", "1", "--seed", "1", "--device", "cpu", "--out", str(out)]
assert main([*draw, "--warmth", "2"]) == 0
((_, record),) = read_pictures(out / "red-apple-1.png")
assert record.request.warmth == 2 and record.to_json()["warmth"] == 2
assert main(["replay", str(out / "red-apple-1.png"), "--model", model]) == 0
assert main([*draw, "--grid", "warmth=1,2"]) == 0
assert [each.request.warmth for _, each in read_pictures(out / "red-apple-1-grid.png")] == [1, 2]
assert main([*draw, "--like", str(out / "red-apple-1.png")]) == 0
((_, record),) = read_pictures(out / "red-apple-1-2.png")
assert record.request.warmth == 2
"""


@pytest.mark.slow
def test_a_setting_of_a_request_is_added_in_one_file(tiny_model: Path, tmp_path: Path) -> None:
    """An option, an axis of a grid, a part of the record, of its replay and of what is followed: from one field."""
    source = Path(sys.modules["unnoise"].__file__ or "").parent
    copied = tmp_path / "src" / "unnoise"
    shutil.copytree(source, copied, ignore=shutil.ignore_patterns("models", "__pycache__"))
    request = copied / "engine" / "request.py"
    text = request.read_text()
    assert text.count("    rules: int = RULES\n") == 1
    request.write_text(text.replace("    rules: int = RULES\n", NEW))
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    command = [sys.executable, "-c", TRIAL, str(tiny_model), str(tmp_path / "out")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
