"""Captions: what people would type, each one true of its picture alone."""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np
import pytest

from unnoise.data.attributes import attributes_of
from unnoise.data.captions import MAX_WORDS, plain_name
from unnoise.data.colours import dominant_colour
from unnoise.data.store import PictureSet
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.engine.load import default_model
from unnoise.weights.record import read_record

TONE = re.compile(r"\b(light|medium-light|medium|medium-dark|dark)([ -]skin| skin tone)|\bone (light|medium|dark)")


@pytest.mark.parametrize(
    "caption",
    [
        "red apple",
        "apple",
        "flag of Norway",
        "flag of the United States",
        "flag of England",
        "woman firefighter, dark skin tone",
        "female firefighter, medium-dark skin tone",
        "a man with dark skin and red hair",
        "man, dark skin tone, red hair",
        "a woman with light skin running",
        "woman and man holding hands, light skin tone and dark skin tone",
        "woman with light skin and man with dark skin kissing",
        "family: man, woman, girl",
        "thumbs up",
        "thumbs up, medium skin tone",
        "blue car",
        "blue heart",
        "orange basketball",
        "clock showing half past three",
        "keycap 7",
        "dog",
        "cat face",
        "pizza",
        "rocket",
    ],
)
def test_what_people_type(emoji_set: PictureSet, caption: str) -> None:
    assert any(caption in captions for captions in emoji_set.captions)


def test_none_is_long_or_untidy(emoji_set: PictureSet) -> None:
    for captions in emoji_set.captions:
        assert captions
        assert len({c.lower() for c in captions}) == len(captions)
        for caption in captions:
            assert 1 <= len(caption.split()) <= MAX_WORDS
            assert len(re.findall(r"\w+|[^\w\s]", caption)) <= 30  # nearly the tokenizer's pieces
            assert caption == " ".join(caption.split())
            assert not set(caption) & set("_:()|[]") or caption.startswith("family:")
            assert "  " not in caption


def test_no_caption_fits_two_pictures(emoji_set: PictureSet) -> None:
    owners = defaultdict(set)
    for captions, group in zip(emoji_set.captions, emoji_set.identical, strict=True):
        for caption in captions:
            owners[caption.lower()].add(group)
    assert [c for c, groups in owners.items() if len(groups) > 1] == []


def test_tones_are_said_if_and_only_if_shown(emoji_set: PictureSet) -> None:
    for captions, attributes in zip(emoji_set.captions, emoji_set.attributes, strict=True):
        for caption in captions:
            assert bool(TONE.search(caption)) == bool(attributes["tones"]), caption


@pytest.mark.parametrize(
    ("sequence", "person", "role", "tones", "hair", "flag"),
    [
        ("\U0001f469\U0001f3ff\u200d\U0001f692", "woman", "firefighter", ("dark",), None, None),
        ("\U0001f468\U0001f3fd\u200d\U0001f9b0", "man", None, ("medium",), "red", None),
        ("\U0001f9d4\u200d\u2642\ufe0f", "man", None, (), "beard", None),
        ("\U0001f3c3\u200d\u2640\ufe0f", "woman", "running", (), None, None),
        ("\U0001f46b\U0001f3fb", "woman and man", "holding hands", ("light", "light"), None, None),
        (
            "\U0001f469\U0001f3fb\u200d\U0001f91d\u200d\U0001f468\U0001f3ff",
            *("woman and man", "holding hands", ("light", "dark"), None, None),
        ),
        ("\U0001f44d\U0001f3fb", None, None, ("light",), None, None),
        ("\U0001f1f3\U0001f1f4", None, None, (), None, "Norway"),
        ("\U0001f34e", None, None, (), None, None),
        ("\u2640\ufe0f", None, None, (), None, None),
    ],
)
def test_attributes(sequence: str, person: str, role: str, tones: tuple[str, ...], hair: str, flag: str) -> None:
    a = attributes_of(sequence, plain_name(sequence))
    assert (a.person, a.role, a.tones, a.hair, a.flag) == (person, role, tones, hair, flag)


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((200, 20, 20), "red"),
        ((250, 140, 20), "orange"),
        ((250, 220, 20), "yellow"),
        ((20, 160, 40), "green"),
        ((20, 80, 220), "blue"),
        ((130, 30, 200), "purple"),
        ((250, 150, 180), "pink"),
        ((120, 70, 30), "brown"),
        ((20, 20, 20), "black"),
        ((150, 150, 150), "grey"),
        ((255, 255, 255), None),
    ],
)
def test_colour_words(rgb: tuple[int, int, int], word: str | None) -> None:
    picture = np.full((32, 32, 3), 255, np.uint8)
    picture[8:24, 8:24] = rgb
    assert dominant_colour(picture) == word
    picture[8:16, 8:24] = (20, 80, 220) if word != "blue" else (200, 20, 20)
    assert dominant_colour(picture) != word or word is None  # half of another colour: no word


def test_the_shipped_model_reads_every_caption_whole(emoji_set: PictureSet) -> None:
    """Longer ones would lose their last words in training, with a warning."""
    text = (default_model() / "tokenizer.json").read_text("utf-8")
    length = read_record(default_model())["parts"]["text"]["config"]["length"]
    captions = [caption for captions in emoji_set.captions for caption in captions]
    assert Tokenizer(text, length)(captions).shape == (len(captions), length)
