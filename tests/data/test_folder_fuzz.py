"""Whatever lies in a folder, its readers yield, put aside, or say in one line what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unnoise.data.intake import Item, LeftOut, Quarantine, captions_in, clean, inside, printable
from unnoise.data.kohya_captions import alternatives
from unnoise.data.read_folder import read_folder
from unnoise.data.read_kohya import CARRIED, TRAINING, read_kohya
from unnoise.data.read_metadata import metadata_row
from unnoise.errors import UnnoiseError

from .folder_fuzz import PNG, TARGETS, drained, fuzz

COUNTS = {"pictures": 1500, "caption files": 2000, "metadata.jsonl": 400, "dataset TOML": 400, "kohya metadata": 400}
COUNTS |= {"metadata.csv": 80, "JSON": 80}
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=()), max_size=30)  # lone surrogates and control characters too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    """What a call returns, or how it refuses."""
    try:
        return call(*args)
    except (LeftOut, UnnoiseError) as why:
        return why


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_files(name: str) -> None:
    assert fuzz(name, count=COUNTS.get(name, 300)) == COUNTS.get(name, 300)


def test_the_fuzzer_finds_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a reader that trusts its input fails."""
    monkeypatch.setitem(TARGETS, "naive", (lambda data, _: json.loads(data), [b'{"a": [1, 2, 3]}']))
    with pytest.raises(AssertionError, match="naive"):
        fuzz("naive", count=200)


@FEW
@given(st.lists(st.tuples(JSON, JSON), max_size=4))
def test_any_json_in_metadata(tmp_path: Path, rows: list[tuple[object, object]]) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in rows]
    lines += [json.dumps({"file_name": "a.png", "text": text}) for _, text in rows]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    aside = Quarantine()
    items = drained(read_folder(tmp_path, aside))
    assert [item.name for item in items] == ["a.png"] or any(e["name"] == "a.png" for e in aside.entries)


@FEW
@given(st.binary(max_size=200))
def test_a_metadata_line_of_any_bytes(line: bytes) -> None:
    result = outcome(metadata_row, line)
    if isinstance(result, LeftOut):
        assert result.kind == "bad metadata"
    else:
        assert [type(part) for part in result] == [str, list]


@FEW
@given(st.dictionaries(st.sampled_from([*CARRIED, *sorted(TRAINING), "resolution", "image_dirr"]), JSON, max_size=5))
def test_any_setting_in_a_toml(tmp_path: Path, values: dict[str, object]) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    rows = ["[[datasets]]", "[[datasets.subsets]]"]
    rows += ["image_dir = '.'"] if "image_dir" not in values else []
    rows += [f"{key} = {written(value)}" for key, value in values.items()]
    (tmp_path / "d.toml").write_text("\n".join(rows), "utf-8", "replace")
    result = outcome(read_kohya, tmp_path / "d.toml", Quarantine())
    if isinstance(result, UnnoiseError):
        assert result.hint
        assert "\n" not in str(result)
    else:
        assert all(item.repeats >= 1 for item in drained(result.source))


def written(value: object) -> str:
    """A value in TOML, near enough."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return "''" if value is None else json.dumps(value)


@FEW
@given(TEXT)
def test_names_and_captions_are_fit_to_print(text: str) -> None:
    assert printable(text).isprintable()
    printable(text).encode()
    caption = outcome(clean, text)
    half = any(0xD800 <= ord(c) < 0xE000 for c in text)
    if isinstance(caption, str):
        assert not half
        assert clean(caption) == caption == " ".join(caption.split())
    else:
        assert half or "\0" in text


@FEW
@given(st.lists(st.sampled_from(["a", "..", ".", "", "b.png", "\\", "C:", "\0", "~"]), max_size=5).map("/".join))
def test_no_name_leads_out(tmp_path: Path, name: str) -> None:
    result = outcome(inside, tmp_path.resolve(), name)
    if isinstance(result, LeftOut):
        assert result.kind == "unsafe path"
    else:
        assert result.is_relative_to(tmp_path.resolve())
        assert ".." not in name.split("/")


@FEW
@given(st.lists(st.lists(st.text("abc ", min_size=1, max_size=4), min_size=2, max_size=3), max_size=3))
def test_every_alternative_is_a_wording(choices: list[list[str]]) -> None:
    line = "x " + " y ".join("{" + "|".join(each) + "}" for each in choices) + " {{z}}"
    found = alternatives(line)
    count = 1
    for each in choices:
        count *= len(each)
    assert len(found) == count
    assert all(wording.endswith("{z}") and "|" not in wording for wording in found)


def test_caption_files() -> None:
    assert captions_in("\ufeffred apple\r\n\n  an apple\t \nred apple\n".encode()) == ("red apple", "an apple")
    for data, kind in ((b"", "empty"), (b" \n\t\n", "empty"), (b"\xff\xff", "bad"), (b"x" * 70_000, "bad")):
        with pytest.raises(LeftOut, match=f"{kind} caption"):
            captions_in(data)


def test_one_thing_is_put_aside_once() -> None:
    aside = Quarantine()
    for _ in range(3):
        aside.add("a\x1b[2J\udcff", LeftOut("damaged", "x" * 900))
    assert [entry["name"] for entry in aside.entries] == ["a\\x1b[2J\\udcff"]
    assert len(aside.entries[0]["detail"]) == 300
    assert Item("a", b"x").captions == ()
