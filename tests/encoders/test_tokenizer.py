"""Prompts to numbers: any text is read whole or refused, and a damaged file is one clear error."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import tokenizer
from unnoise.encoders.tokenizer import END, MAX_CHARACTERS, START, Tokenizer
from unnoise.errors import UnnoiseError
from unnoise.text import clean

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=60)
ODD = [
    "",
    " ",
    "🍎",
    "👩🏽‍🚒 at work",
    "é",
    "e\u0301",
    "ÀÉ",
    "İstanbul",
    "ΣΑΣ",
    "\x00\n\t",
    "日本",
    "א\u200fب",
    "\U0010ffff",
]


def text_of(ids: list[int]) -> str:
    """The letters of the ids; a space stands before the first word unless the prompt began with one."""
    return tokenizer().library.decode(ids).removeprefix(" ")


def normal(prompt: str) -> str:
    """Normal form and lower case, a letter at a time."""
    return "".join(c.lower() for c in unicodedata.normalize("NFC", prompt)).removeprefix(" ")


@pytest.mark.parametrize("prompt", ODD)
def test_odd_prompts_round_trip(prompt: str) -> None:
    assert text_of(tokenizer().ids(prompt)) == normal(prompt)


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_any_unicode_is_read_whole(prompt: str) -> None:
    """Nothing is lost but letter case, normal form and one leading space."""
    assert text_of(tokenizer().ids(prompt)) == normal(prompt)


def test_rows_are_start_prompt_and_ends() -> None:
    t = tokenizer()
    rows = t(["red apple", ""]).tolist()
    ids = t.ids("red apple")
    assert rows[0] == [t.start, *ids] + [t.end] * (t.length - 1 - len(ids))
    assert rows[1] == [t.start] + [t.end] * (t.length - 1)
    assert t.count("red apple") == len(ids)
    assert t.count("") == 0


def test_letter_case_does_not_matter() -> None:
    assert tokenizer()(["Red APPLE"]).tolist() == tokenizer()(["red apple"]).tolist()


def test_nothing_is_cut() -> None:
    t = tokenizer()
    room = t.length - 2
    fits = "".join("qzxjkv"[i % 6] for i in range(room - 1))  # letters that never merge, and the space before them
    assert t.count(fits) == room
    assert t([fits]).tolist()[0][-1] == t.end
    with pytest.raises(UnnoiseError, match=rf"{room + 1} tokens, the model reads {room}"):
        t(["red apple", fits + "q"])
    with pytest.raises(UnnoiseError, match=rf"{MAX_CHARACTERS + 1} characters"):
        t(["a" * (MAX_CHARACTERS + 1)])


LONG = {
    "words, one of them whole": ("red apple " * 20, "red apple red apple red apple red apple"),
    "Chinese": ("\u7ea2\u82f9\u679c" * 9, "\u7ea2\u82f9"),
    "Chinese with a comma": ("\u82f9\uff0c\u679c\u82f9\u679c\u82f9", "\u82f9"),
    "Thai": ("\u0e2a\u0e35\u0e41\u0e14\u0e07\u0e41\u0e14\u0e07", "\u0e2a\u0e35"),
    "tags": ("red,apple,red,blue,heart,red", "red,apple,red"),
    "one word": ("q" * 9, "q" * 7),
    "more characters than are read": ("q" * 9000, "q" * 7),
    "a family": ("\U0001f468\u200d\U0001f469" * 3, "\U0001f468"),
    "flags": ("\U0001f1e9\U0001f1ea" * 3, "\U0001f1e9\U0001f1ea"),
    "accents": ("q\u0301" * 9, "q\u0301q\u0301"),
}


@pytest.mark.parametrize(("caption", "kept"), LONG.values(), ids=LONG)
def test_a_caption_is_cut_where_a_reader_would_cut_it(caption: str, kept: str) -> None:
    t = Tokenizer(tokenizer().json, 11 if kept[0] == "\U0001f1e9" else 10)
    assert t.cut(caption) == kept
    assert t.cut(kept) == kept
    with pytest.raises(UnnoiseError):
        t([caption])
    t([kept])


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60).map(clean))
def test_nothing_is_cut_to_nothing(caption: str) -> None:
    t = tokenizer(10)
    kept = t.cut(caption)
    assert caption.startswith(kept)
    assert bool(kept) == bool(caption)
    assert t.count(kept) <= 8
    assert kept == caption or t.count(caption) > 8


def test_a_special_token_in_a_prompt_is_text() -> None:
    """Otherwise `<|end|>` in a prompt would hide all that follows."""
    t = tokenizer(64)
    for token in (START, END, END.upper()):
        ids = t.ids(f"red {token} apple")
        assert t.start not in ids
        assert t.end not in ids
        assert text_of(ids) == f"red {token.lower()} apple"


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(UnnoiseError, match="no Unicode text"):
        tokenizer()(["red \ud800 apple"])


def test_a_file_is_read_back_the_same() -> None:
    t = tokenizer()
    again = Tokenizer(t.json, t.length)
    assert (again.start, again.end, again.vocabulary) == (t.start, t.end, t.vocabulary)
    for prompt in ODD:
        assert again.ids(prompt) == t.ids(prompt)


def test_a_file_cannot_change_how_prompts_are_read() -> None:
    """Truncation, padding, dropout, its own splitting and what it adds to prompts are not taken from it."""
    record = json.loads(tokenizer().json)
    record["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    record["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": START,
    }
    record["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": False}
    record["normalizer"] = {"type": "Replace", "pattern": {"String": "red"}, "content": "blue"}
    record["model"]["dropout"] = 1.0
    changed = Tokenizer(json.dumps(record), 16)
    for prompt in ("red apple, blue heart", "a" * 30 + "b", ""):
        assert changed.ids(prompt) == tokenizer().ids(prompt)


def damaged() -> dict[str, str]:
    good = tokenizer().json
    record = json.loads(good)
    word_piece = {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a", "max_input_chars_per_word": 9}
    vocabulary = {k: v for k, v in record["model"]["vocab"].items() if k != END}
    letters = {k: v for k, v in record["model"]["vocab"].items() if k != "q"}
    bare = {**record["model"], "merges": []}
    return {
        "empty": "",
        "no record": "[]",
        "no tokenizer": "{}",
        "cut": good[: len(good) // 2],
        "deep": "[" * 100_000,
        "another model": json.dumps({**record, "model": word_piece}),
        "no end": json.dumps({**record, "model": {**bare, "vocab": vocabulary}, "added_tokens": []}),
        "a letter less": json.dumps({**record, "model": {**bare, "vocab": letters}}),
        "merges of nothing": json.dumps({**record, "model": {**record["model"], "merges": [["never", "was"]]}}),
    }


@pytest.mark.parametrize("name", damaged())
def test_damaged_files_are_one_clear_error(name: str) -> None:
    with pytest.raises(UnnoiseError, match=r"tokenizer\.json"):
        Tokenizer(damaged()[name], 16)
