"""Words that a model has never been taught, and the nearest that it has."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable

from unnoise.errors import UnnoiseError

WORDS = "words.json"  # a file of a model folder: all words of the captions it was trained on, in alphabetical order


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in their order; signs and blanks between them are dropped."""
    return re.findall(r"[^\W_]+", text.lower().replace("’", "'").replace("'s", ""))


def vocabulary(captions: Iterable[str]) -> str:
    """The file's text."""
    return json.dumps(sorted({word for caption in captions for word in words_of(caption)}), ensure_ascii=False)


def read_vocabulary(text: str | bytes) -> frozenset[str]:
    """The words in the file's text, or in its bytes.

    Raises:
        UnnoiseError: it is no list of words.
    """
    try:
        words = json.loads(text)
    except (RecursionError, ValueError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UnnoiseError(f"the model's {WORDS} is no list of words", "the model is damaged; copy or train it again")
    return frozenset(words)


def strange_words(prompt: str, known: Collection[str]) -> dict[str, list[str]]:
    """{word that is not known: the three at most that are spelt most like it}, in the prompt's order."""
    return {
        word: difflib.get_close_matches(word, known, n=3, cutoff=0.7)
        for word in dict.fromkeys(words_of(prompt))
        if word not in known
    }


def warning(prompt: str, known: Collection[str]) -> str:
    """One line on the words of a prompt that the model has never seen; empty where it has seen them all."""
    strange = strange_words(prompt, sorted(known))
    if not strange:
        return ""
    told = [f"{word!r}" + (f" (nearest: {', '.join(near)})" if near else "") for word, near in strange.items()]
    return f"note: the model has never been taught {', '.join(told)}; it draws what it makes of the rest"
