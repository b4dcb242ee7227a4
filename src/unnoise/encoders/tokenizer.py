"""Prompts to rows of token ids, by the kinds of vocabulary in ``vocabulary``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

import torch
from tokenizers import Encoding, trainers
from torch import Tensor

from unnoise.core import checks
from unnoise.encoders.vocabulary import BYTES, END, START, byte_level, read
from unnoise.errors import UnnoiseError

MAX_CHARACTERS = 4000
MAX_CAPTIONS = 10**9  # at a time: a training has all of its set
JOINER = "\u200d"  # makes one sign of those beside it
_GAP = re.compile("[\\s\u200b,;\u060c\u3001\u3002\uff0c\uff1b]")  # ends a word, a tag or a sentence
_LATER = re.compile(f"[{JOINER}\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")  # joiner, skin tones, tags


def check_length(prompt: str) -> None:
    """Ensures that a prompt is not so long that reading it takes long; no model reads as many words.

    Raises:
        UnnoiseError: it is.
    """
    if len(prompt) > MAX_CHARACTERS:
        raise UnnoiseError(
            f"the prompt has {len(prompt)} characters", f"write at most {MAX_CHARACTERS}; models read fewer"
        )


def between_words(text: str, place: int) -> bool:
    """Whether a word, or what stands between commas, ends before the character at that place."""
    return place == len(text) or _GAP.match(text, place) is not None


def inside_sign(text: str, place: int) -> bool:
    """Whether a cut before that character would take a letter's accents, or tear an emoji or a flag."""
    after = text[place : place + 1]
    if not after or text[place - 1] == JOINER or _LATER.match(after):
        return bool(after)
    if _regional(after):  # two of them are a flag
        return sum(1 for _ in takewhile(_regional, reversed(text[:place]))) % 2 == 1
    return unicodedata.category(after)[0] == "M"


def _regional(sign: str) -> bool:
    return "\U0001f1e6" <= sign <= "\U0001f1ff"


class Tokens(NamedTuple):
    """A prompt, cut into tokens.

    Attributes:
        ids: (length,) int64, start, end and padding included.
        spans: for each of the prompt's own ids the characters that it stands for, [start, stop).
        first: the place of the first of these ids in the row: 1 after a start, else 0.
    """

    ids: Tensor
    spans: list[tuple[int, int]]
    first: int


class Tokenizer:
    """Turns prompts into rows of token ids: start, the prompt, end, and padding up to the length.

    Three kinds of file are read, and told apart by their vocabularies: our own byte-level BPE, OpenAI's CLIP and T5
    (``encoders.vocabulary``). Of a file only the vocabulary with its merges or scores is taken: none can cut prompts
    short or split them by rules of its own, and a prompt that spells out a special token is text.

    Args:
        json: a file of the tokenizers library, as text.
        length: ids in a row, start and end included, 3 or more.
        pad: the id that fills up rows; left out, the kind's own: its end, or T5's <pad>. Some CLIP towers want another.

    Attributes:
        kind: "unnoise", "clip" or "t5".
        start: the first id of a row; None for T5, which has none.
        end, pad: the id after a prompt, and those after it.
        first: the place of a prompt's first id in a row: 1, or 0 where there is no start.
        room: how many ids of a prompt fit into a row.
        vocabulary: one more than the largest id.

    Raises:
        UnnoiseError: the text is no vocabulary of these kinds, or lacks tokens that any text needs.
    """

    def __init__(self, json: str, length: int, pad: int | None = None) -> None:
        self.json, self.length = checks.text("json", json), checks.whole("length", length, 3, 1_000_000)
        found = read(self.json, pad)
        self.kind, self.library, self.vocabulary = found.kind, found.library, found.size
        self.start, self.end, self.pad = found.start, found.end, found.pad
        self.first = 0 if self.start is None else 1
        self.room = self.length - 1 - self.first

    @classmethod
    def train(cls, captions: Iterable[str], vocabulary: int, length: int) -> Tokenizer:
        """A tokenizer of our own kind for these captions."""
        library = byte_level()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[START, END],
            initial_alphabet=sorted(BYTES),
            show_progress=False,
        )
        library.train_from_iterator(captions, trainer)
        return cls(library.to_str(), length)

    def _encoded(self, prompt: str) -> Encoding:
        try:
            return self.library.encode(checks.text("prompt", prompt))
        except TypeError:
            raise UnnoiseError("the prompt is no Unicode text", "write it anew in UTF-8") from None

    def ids(self, prompt: str) -> list[int]:
        """The prompt's own ids, without start, end and padding.

        Raises:
            UnnoiseError: it is no Unicode text.
        """
        return self._encoded(prompt).ids

    def spans(self, prompt: str) -> list[tuple[int, int]]:
        """For each of ``ids`` the characters that it stands for, [start, stop).

        In our own kind the space before a word is among them. Tokens that are parts of one character, such as the bytes
        of an emoji, share its span.

        Raises:
            UnnoiseError: it is no Unicode text.
        """
        return self._encoded(prompt).offsets

    def count(self, prompt: str) -> int:
        """How many tokens a prompt has, without start, end and padding."""
        return len(self.ids(prompt))

    def cut(self, caption: str) -> str:
        """The caption, or as much of its beginning as fits into a row.

        It is cut between tokens, and never to nothing while one character fits; not inside of a character, or of a sign
        that is made of several; and at the end of a word or tag where that keeps at least half of what fits.

        Raises:
            UnnoiseError: it is no Unicode text.
        """
        room = self.room
        spans = self.spans(caption[:MAX_CHARACTERS])
        if len(spans) <= room and len(caption) <= MAX_CHARACTERS:
            return caption
        count = min(room, len(spans) - 1)
        while count and spans[count][0] < spans[count - 1][1]:  # the next token is of the same character
            count -= 1
        most = spans[count - 1][1] if count else 0
        places = range(most, 0, -1)
        part = next((place for place in places if caption[place - 1] != JOINER), most)
        stop = next((place for place in places if not inside_sign(caption, place)), part)
        word = next((place for place in range(stop, (stop - 1) // 2, -1) if between_words(caption, place)), stop)
        kept = caption[:word].rstrip()
        while self.count(kept) > room:
            kept = kept[:-1]
        return kept

    def pieces(self, prompt: str) -> tuple[list[int], list[tuple[int, int]]]:
        """(``ids``, ``spans``) of a prompt of any number of tokens, cut into them once.

        Raises:
            UnnoiseError: it is no Unicode text, or has too many characters.
        """
        check_length(checks.text("prompt", prompt))
        encoding = self._encoded(prompt)
        return encoding.ids, encoding.offsets

    def row(self, ids: Sequence[int]) -> list[int]:
        """A prompt's own ids, at most ``room`` of them, with start, end and padding."""
        start = [] if self.start is None else [self.start]
        return [*start, *ids, self.end, *[self.pad] * (self.room - len(ids))]

    def _row(self, prompt: str) -> tuple[list[int], list[tuple[int, int]]]:
        """(ids with start, end and padding; spans of the prompt's own) of a prompt that the model can read."""
        ids, spans = self.pieces(prompt)
        if len(ids) > self.room:
            raise UnnoiseError(f"the prompt has {len(ids)} tokens, the model reads {self.room}", "use fewer words")
        return self.row(ids), spans

    def read(self, prompt: str) -> Tokens:
        """A prompt's row of ids, and where they stand in it, cut into tokens once.

        Raises:
            UnnoiseError: it is no Unicode text, or longer than the model reads; nothing is cut.
        """
        row, spans = self._row(prompt)
        return Tokens(torch.tensor(row, dtype=torch.int64), spans, self.first)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """(B, length) int64 ids.

        Raises:
            UnnoiseError: no list of prompts, or one is longer than the model reads; nothing is cut.
        """
        texts = checks.several("prompts", prompts, checks.text, most=MAX_CAPTIONS)
        return torch.tensor([self._row(each)[0] for each in texts], dtype=torch.int64)
