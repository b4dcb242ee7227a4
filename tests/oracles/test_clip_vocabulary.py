"""The vocabulary of CLIP that comes with the package: its bytes, its ids, and transformers' tokenizer made of it."""

from __future__ import annotations

import hashlib
import json
import random
from functools import cache
from typing import Any

from transformers.models.clip.tokenization_clip import CLIPTokenizer

from unnoise.encoders.tokenizer import Tokenizer
from unnoise.encoders.vocabulary import CLIP_FILE, WORD_END, clip_json

FILE = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"  # as it is published
# of the ids that the published vocab.json and merges.txt of Stable Diffusion 1.5 give for ``texts``
IDS = "c4a708cb179bc051ec69a503563aad8ab6945836ed6868445e1c2d1246f40fd4"
KNOWN = {  # by the same tables
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "!": [256],
    "isn't it?": [2923, 713, 585, 286],
}


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer(clip_json(), 77)


def texts() -> list[str]:
    """Words of the vocabulary and letters of all kinds, in a random order that is always the same."""
    draw = random.Random(7)
    words = sorted(token.removesuffix(WORD_END) for token in json.loads(clip_json())["model"]["vocab"])
    signs = (
        [chr(draw.randrange(32, 0x2FFF)) for _ in range(400)] + list("🍎👩🏽‍🚒🇳🇴日本שלום") + ["  ", ", ", "'s", "12"]
    )
    parts = [[*draw.choices(words, k=4), draw.choice(signs)] for _ in range(3000)]
    return [draw.choice((" ", ", ", "")).join(part[: draw.randrange(1, 6)]) for part in parts]


def digest(ids: list[list[int]]) -> str:
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def test_the_file_is_the_published_one() -> None:
    assert hashlib.sha256(CLIP_FILE.read_bytes()).hexdigest() == FILE


def test_ids_are_those_of_the_published_tables() -> None:
    each = tokenizer()
    assert (each.kind, each.vocabulary, each.start, each.end, each.pad) == ("clip", 49408, 49406, 49407, 49407)
    for text, ids in KNOWN.items():
        assert each.ids(text) == ids
    found = [each.ids(text) for text in texts()]
    assert sum(map(len, found)) > 15_000
    assert digest(found) == IDS
    found[-1][-1] ^= 1
    assert digest(found) != IDS, "the control"


def test_ids_are_transformers_s() -> None:
    model: dict[str, Any] = json.loads(clip_json())["model"]
    theirs = CLIPTokenizer(vocab=model["vocab"], merges=[tuple(merge.split(" ")) for merge in model["merges"]])
    for text in texts()[::6]:
        assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer().ids(text)
