"""Captions and prompts have one form, which loses nothing that is said."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unnoise.data.intake import captions_in
from unnoise.data.intake import clean as caption
from unnoise.errors import UnnoiseError
from unnoise.text import MARKS, clean, decode

STAYS = {
    "a joiner": "\U0001f469\u200d\U0001f692 at work",
    "a non-joiner": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "a joiner that ends a word": "\u0647\u200d",
    "a soft hyphen": "straw\u00adberry",
    "a variation selector": "\u2764\ufe0f heart",
    "the tags of a flag": "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "a sign that Python does not know": "\U0001fae9 \U0003fffd",
    "a sign for private use": "\uf8ff pie",
    "a blank without width": "\u0e2a\u0e35\u200b\u0e41\u0e14\u0e07",
    "a word joiner": "a\u2060b",
    "two scripts": "\u05d0\u05d1 red \u4e00\u53ea",
}
CHANGES = {
    " red  apple\n": "red apple",
    "red\tapple\r\nblue": "red apple blue",
    "\ufeffred apple\ufeff": "red apple",
    "cafe\u0301": "caf\u00e9",
    "e\ufeff\u0301": "\u00e9",
    "red\u00a0\u3000\u2028apple\u200b": "red apple",
    "a \u200b b": "a b",
    "red \x1b[2J\x7f apple": "red [2J apple",
    "\u202ered\u202c \u2067apple\u2069\u200f": "red apple",
    "red\0\0": "red",
    " \u200b\u2060\t": "",
    "": "",
}


@pytest.mark.parametrize("text", STAYS.values(), ids=STAYS)
def test_what_says_something_stays(text: str) -> None:
    assert clean(text) == text
    assert caption(text) == text


@pytest.mark.parametrize("text", CHANGES, ids=ascii)
def test_what_says_nothing_goes(text: str) -> None:
    assert clean(text) == CHANGES[text]
    assert caption(text) == CHANGES[text]


def test_only_controls_of_direction_and_the_byte_order_mark_are_taken_out() -> None:
    """Of all signs, those that Python does not know included, between two letters."""
    gone = [c for c in map(chr, range(sys.maxunicode + 1)) if _alone(c) and clean(f"a{c}b") == "ab"]
    assert {unicodedata.bidirectional(c) for c in gone if c != "\ufeff"} == {
        "AL", "L", "R", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
    }  # fmt: skip
    assert len(gone) == 13
    assert all(unicodedata.category(c) == "Cf" for c in gone)


def _alone(c: str) -> bool:
    return unicodedata.category(c) in ("Cf", "Cn", "Co") and not 0xD800 <= ord(c) < 0xE000


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40))
def test_what_is_clean_is_clean(text: str) -> None:
    once = clean(text)
    assert clean(once) == once == once.strip()
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in once)
    assert "  " not in once
    assert unicodedata.is_normalized("NFC", once)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_is_read_whichever_way_it_was_saved(encoding: str) -> None:
    text = "red apple\ncaf\u00e9 \u4e2d\u56fd"
    assert decode(text.encode(encoding)) == text
    assert captions_in(text.encode(encoding)) == ("red apple", "caf\u00e9 \u4e2d\u56fd")


@pytest.mark.parametrize("data", [b"caf\xe9", b"\xff\xfea", b"\xff"])
def test_a_file_that_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        decode(data)


def test_text_that_was_decoded_wrongly_is_refused_by_name() -> None:
    for wrong, said in (("a\ud83d", "U+D83D"), ("a\udce9", "U+DCE9"), ("r\0e\0d\0", "NULs")):
        with pytest.raises(UnnoiseError, match=said.replace("+", r"\+")):
            clean(wrong)


def test_a_heap_of_marks_takes_no_time() -> None:
    """Python sorts the marks on one letter in the square of their number: 200,000 took two minutes."""
    heap = "a" + "\u0301\u0323" * 100_000
    cleaned = clean(heap + "b")
    assert len(cleaned) <= MARKS + 2
    assert cleaned.endswith("b")
    twice = clean("a" + "\u0344" * 40)
    assert clean(twice) == twice
    assert clean("\u1ea5\u0323" * 3) == unicodedata.normalize("NFC", "\u1ea5\u0323" * 3)
