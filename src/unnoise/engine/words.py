"""Words that a model has never been taught, and the nearest that it has."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable

from unnoise.errors import UnnoiseError
from unnoise.text import clean

WORDS = "words.json"  # a file of a model folder: all words of the captions it was trained on, in alphabetical order
MAX_WORDS = 12  # strange words of all prompts that a note names


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in their order; signs, blanks and soft hyphens are dropped.

    Raises:
        UnnoiseError: it is no Unicode text.
    """
    plain = clean(text, "the text").replace("\u00ad", "").lower()
    return re.findall(r"[^\W_]+", plain.replace("’", "'").replace("'s", ""))


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


def strange_words(prompt: str, lexicon: Collection[str]) -> list[str]:
    """The prompt's words that are not in the lexicon, each once, in the prompt's order."""
    return [word for word in dict.fromkeys(words_of(prompt)) if word not in lexicon]


def nearest(word: str, lexicon: Collection[str]) -> list[str]:
    """The three known words at most that are spelt most like it. It is compared with each of them, which takes long."""
    return difflib.get_close_matches(word, sorted(lexicon), n=3, cutoff=0.7)


def warning(prompt: str, lexicon: Collection[str]) -> str:
    """One line on the words of a prompt that the model has never seen; empty where it has seen them all."""
    strange = strange_words(prompt, lexicon)
    if not strange:
        return ""
    near = {word: ", ".join(nearest(word, lexicon)) for word in strange[:MAX_WORDS]}
    names = ", ".join(f"{word!r}" + (f" (nearest: {words})" if words else "") for word, words in near.items())
    more = f" and {len(strange) - MAX_WORDS:,} words more" if len(strange) > MAX_WORDS else ""
    return f"note: the model has never been taught {names}{more}; it draws what it makes of the rest"
