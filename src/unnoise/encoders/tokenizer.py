"""Byte-level BPE: prompts to numbers and back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import takewhile

import torch
from tokenizers import Encoding, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as BPE
from torch import Tensor

from unnoise.core import checks
from unnoise.errors import UnnoiseError

START, END = "<|start|>", "<|end|>"
MAX_CHARACTERS = 4000
MAX_CAPTIONS = 10**9  # at a time: a training has all of its set
JOINER = "\u200d"  # makes one sign of those beside it
_GAP = re.compile("[\\s\u200b,;\u060c\u3001\u3002\uff0c\uff1b]")  # ends a word, a tag or a sentence
_LATER = re.compile(f"[{JOINER}\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")  # joiner, skin tones, tags


def check_length(prompt: str) -> None:
    """Sees that a prompt is not so long that reading it takes long; no model reads as many words.

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


def byte_level(model: models.BPE) -> BPE:
    """Normal form and lower case, words with the space before them, their bytes as letters, then the model's merges."""
    model.dropout = None
    bpe = BPE(model)
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    return bpe


class Tokenizer:
    """Turns prompts into rows of token ids: start, the prompt in lower case, end, and more ends up to the length.

    Any text can be read, since its letters are the 256 bytes. Of a file only the vocabulary and the merges are taken:
    none can cut prompts short or split them by rules of its own, and a prompt that spells out a special token is text.

    Args:
        json: a file of the tokenizers library, as text.
        length: ids in a row, start and end included, 3 or more.

    Raises:
        UnnoiseError: the text is no byte-level BPE with start and end tokens.
    """

    def __init__(self, json: str, length: int) -> None:
        json, length = checks.text("json", json), checks.whole("length", length, 3, 1_000_000)
        try:
            model = BPE.from_str(json).model
        except Exception as error:  # the library raises plain Exception
            raise UnnoiseError(f"tokenizer.json is damaged ({error})", "copy or train the model again") from None
        if not isinstance(model, models.BPE):
            raise UnnoiseError("tokenizer.json is no byte-pair encoding", "copy or train the model again")
        self.json, self.length = json, length
        self.bpe = byte_level(model)
        vocabulary = self.bpe.get_vocab()
        if not {START, END, *pre_tokenizers.ByteLevel.alphabet()} <= vocabulary.keys():
            raise UnnoiseError("tokenizer.json lacks bytes, or start and end", "copy or train the model again")
        self.start, self.end = vocabulary[START], vocabulary[END]
        self.vocabulary = 1 + max(vocabulary.values())

    @classmethod
    def train(cls, captions: Iterable[str], vocabulary: int, length: int) -> Tokenizer:
        """A tokenizer for these captions: byte-pair merges of Sennrich et al. 2016 (arXiv 1508.07909) over bytes."""
        bpe = byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[START, END],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        bpe.train_from_iterator(captions, trainer)
        return cls(bpe.to_str(), length)

    def _encoded(self, prompt: str) -> Encoding:
        try:
            return self.bpe.encode(checks.text("prompt", prompt))
        except TypeError:
            raise UnnoiseError("the prompt is no Unicode text", "write it anew in UTF-8") from None

    def ids(self, prompt: str) -> list[int]:
        """The prompt's own ids, without start and end.

        Raises:
            UnnoiseError: it is no Unicode text.
        """
        return self._encoded(prompt).ids

    def spans(self, prompt: str) -> list[tuple[int, int]]:
        """For each of ``ids`` the characters that it stands for, [start, stop), the space before a word among them.

        Tokens that are parts of one character, such as the bytes of an emoji, share its span.

        Raises:
            UnnoiseError: it is no Unicode text.
        """
        return self._encoded(prompt).offsets

    def count(self, prompt: str) -> int:
        """How many tokens a prompt has, without start and end."""
        return len(self.ids(prompt))

    def cut(self, caption: str) -> str:
        """The caption, or as much of its beginning as fits into a row.

        It is cut between tokens, and never to nothing while one character fits; not inside of a character, or of a sign
        that is made of several; and at the end of a word or tag where that keeps at least half of what fits.

        Raises:
            UnnoiseError: it is no Unicode text.
        """
        room = self.length - 2
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

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """(B, length) int64 ids.

        Raises:
            UnnoiseError: no list of prompts, or one is longer than the model reads; nothing is cut.
        """
        room = self.length - 2
        rows = []
        for prompt in checks.several("prompts", prompts, checks.text, most=MAX_CAPTIONS):
            check_length(prompt)
            ids = self.ids(prompt)
            if len(ids) > room:
                raise UnnoiseError(f"the prompt has {len(ids)} tokens, the model reads {room}", "use fewer words")
            rows.append([self.start, *ids] + [self.end] * (room + 1 - len(ids)))
        return torch.tensor(rows, dtype=torch.int64)
