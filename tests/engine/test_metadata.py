"""What a picture carries, as other programs read it; words that a model knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unnoise.engine.metadata import Record, infotext, weights_sha256
from unnoise.engine.request import Request
from unnoise.engine.words import MAX_WORDS, nearest, read_vocabulary, strange_words, vocabulary, warning, words_of
from unnoise.errors import UnnoiseError

REQUEST = Request(
    "red apple, on a table",
    "blue",
    7,
    (128, 128),
    20,
    solver="dpmpp-2m",
    spacing="shifted(2, karras)",
    guidance="cfg(4.5)",
    weights=True,
)
RECORD = Record(REQUEST, 0, 1, False, {"name": "mine", "sha256": "abcdef0123456789"}, {"unnoise": "1.2"})


def test_infotext_is_as_other_tools_write_it() -> None:
    assert infotext(RECORD, (128, 128)) == (
        "red apple, on a table\n"
        "Negative prompt: blue\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Custom, CFG scale: 4.5, Seed: 7, Size: 128x128, "
        "Model hash: abcdef0123, Model: mine, Version: unnoise 1.2"
    )
    assert "Negative" not in infotext(RECORD._replace(request=replace(REQUEST, negative="")), (128, 128))


def test_a_record_is_its_request_s_json_and_where_it_was_drawn() -> None:
    values = RECORD.to_json()
    rest = {"row": 0, "batch": 1, "model": RECORD.model, "made_by": RECORD.made_by}
    assert values == REQUEST.to_json() | rest, "and nothing of shared, since it was drawn alone"
    assert Record.from_json(values, "x") == RECORD
    shared = RECORD._replace(shared=True, row=2, batch=5)
    assert Record.from_json(shared.to_json(), "x") == shared


def test_weights_are_known_by_their_files_but_for_the_card() -> None:
    files = {"a.safetensors": "1", "tokenizer.json": "2", "MODEL_CARD.md": "3"}
    known = weights_sha256({"files": files})
    assert weights_sha256({"files": files | {"MODEL_CARD.md": "4"}}) == known
    assert weights_sha256({"files": files | {"tokenizer.json": "4"}}) != known


def test_words() -> None:
    text = vocabulary(["Red apple", "man's shoe, dark skin tone", "keycap: 2"])
    known = read_vocabulary(text)
    assert known == {"red", "apple", "man", "shoe", "dark", "skin", "tone", "keycap", "2"}
    assert words_of("The man's  RED-apple!") == ["the", "man", "red", "apple"]
    assert words_of("straw\u00adberry cafe\u0301") == ["strawberry", "caf\u00e9"]
    assert strange_words("red aples and 2 shoes", known) == ["aples", "and", "shoes"]
    assert [nearest(word, known) for word in ("aples", "and", "shoes")] == [["apple"], [], ["shoe"]]
    assert warning("red apple", known) == ""
    assert warning("a red zebra", known | {"a"}) == (
        "note: the model has never been taught 'zebra'; it draws what it makes of the rest"
    )
    assert warning("", known) == ""


def test_a_note_on_strange_words_compares_only_those_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is compared with thousands of known words: thirty thousand of them would take minutes."""
    compared: list[str] = []
    monkeypatch.setattr("unnoise.engine.words.nearest", lambda word, known: compared.append(word) or [])
    note = warning(" ".join(f"word{i}" for i in range(30_000)), {"apple"})
    assert compared == [f"word{i}" for i in range(MAX_WORDS)]
    assert "'word11' and 29,988 words more; it draws" in note


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[" * 100_000, b'["\xff"]'])
def test_word_lists_that_are_none_are_refused(text: str | bytes) -> None:
    with pytest.raises(UnnoiseError, match=r"words\.json"):
        read_vocabulary(text)
