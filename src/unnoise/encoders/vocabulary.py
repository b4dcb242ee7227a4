"""The kinds of vocabulary that a tokenizer.json is recognised as, and how text is cut by each.

Of a file only the vocabulary is taken, with its merges or scores. How text is normalised and split is written here,
once for each kind, so that no file brings rules of its own.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Mapping
from functools import cache
from json import dumps
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Library

from unnoise.errors import UnnoiseError
from unnoise.foreign import parse_json

START, END = "<|start|>", "<|end|>"  # of our own vocabularies
WORD_END = "</w>"  # CLIP's tokens that end a word
# What CLIP calls a word: `SimpleTokenizer.pat` of OpenAI's CLIP, without the special tokens, which are text in a prompt
CLIP_WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
SPECIAL_PIECE = re.compile(r"<(pad|unk|s|/s|extra_id_\d+)>")  # of T5's vocabulary
MAX_ID = 10**6
HINT = "copy or train the model again"


class Vocabulary(NamedTuple):
    """What cuts text into tokens, and the ids that stand around a prompt.

    Attributes:
        kind: "unnoise", "clip" or "t5".
        library: of the tokenizers library; knows neither special tokens, nor truncation, nor padding.
        start: the id before a prompt, None where the kind has none.
        end: the id after it.
        pad: the id that fills up a row.
        size: one more than the largest id.
    """

    kind: str
    library: Library
    start: int | None
    end: int
    pad: int
    size: int


class Kind(NamedTuple):
    """How one kind is recognised, and made into what cuts text.

    Attributes:
        model: of the file's model: "BPE" or "Unigram".
        start, end, pad: the names of special tokens; "" where the kind has none.
        letters: tokens that a vocabulary must have beside these, so that any text can be read.
        library: from (vocabulary, merges) of a file, or (pieces, id of the unknown).
    """

    model: str
    start: str
    end: str
    pad: str
    letters: frozenset[str]
    library: Callable[[Any, Any], Library]

    @property
    def special(self) -> set[str]:
        """The special tokens, by which the kind is recognised."""
        return {self.start, self.end, self.pad} - {""}


def byte_level(vocabulary: Any = None, merges: Any = None) -> Library:
    """Our own: normal form and lower case, words with the space before them, their bytes as letters, then merges
    (Sennrich et al. 2016, arXiv 1508.07909)."""
    library = Library(models.BPE(vocabulary, merges) if vocabulary else models.BPE())
    library.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    library.decoder = decoders.ByteLevel()
    return library


def clip(vocabulary: Any, merges: Any) -> Library:
    """OpenAI's CLIP: words by its own pattern and without their spaces, bytes as letters, the last one of a word
    marked; equal to ``CLIPTokenizer`` of the transformers library, but for special tokens in a prompt."""
    library = Library(models.BPE(vocabulary, merges, end_of_word_suffix=WORD_END))
    blanks = normalizers.Replace(Regex(r"\s+"), " ")
    library.normalizer = normalizers.Sequence([normalizers.NFC(), blanks, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True)
    library.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    library.decoder = decoders.ByteLevel()
    return library


def t5(pieces: Any, unknown: int) -> Library:
    """T5: SentencePiece's normal form, words with a mark for the space before them, and of all ways to cut a word into
    pieces the likeliest (Kudo 2018, arXiv 1804.10959). Letters that no piece has become the unknown token.

    SentencePiece's table nmt_nfkc, which published files carry, is not taken: the library's NMT and NFKC differ from it
    at three of all 1,112,064 characters, U+0344, U+FF5E and U+1F23B.
    """
    library = Library(models.Unigram(pieces, unk_id=unknown, byte_fallback=False))
    library.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    space = {"replacement": "▁", "prepend_scheme": "always"}
    marked = pre_tokenizers.Metaspace(**space, split=True)
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marked])
    library.decoder = decoders.Metaspace(**space, split=True)
    return library


BYTES = frozenset(pre_tokenizers.ByteLevel.alphabet())
KINDS = {
    "unnoise": Kind("BPE", START, END, END, BYTES, byte_level),
    "clip": Kind(
        "BPE",
        "<|startoftext|>",
        "<|endoftext|>",
        "<|endoftext|>",
        BYTES | {letter + WORD_END for letter in BYTES},
        clip,
    ),
    "t5": Kind("Unigram", "", "</s>", "<pad>", frozenset({"<unk>"}), t5),
}


def read(json: str, pad: int | None = None) -> Vocabulary:
    """The vocabulary of a file of the tokenizers library.

    Args:
        json: the file's text.
        pad: the id that fills up rows, where it is another than the kind's own.

    Raises:
        UnnoiseError: the text is no such file, its vocabulary is of no kind that is known here, or lacks tokens.
    """
    try:
        model = parse_json(json.encode())["model"]
        name = str(model.get("type") or ("BPE" if "merges" in model else "Unigram"))
        tokens, parts = MODELS[name](model) if name in MODELS else ({}, ())
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnnoiseError(f"tokenizer.json is damaged ({error})", HINT) from None
    title = next((title for title, kind in KINDS.items() if kind.model == name and kind.special <= tokens.keys()), None)
    if title is None:
        kinds = ", ".join(f"{kind.model} with {kind.end} ({title})" for title, kind in KINDS.items())
        raise UnnoiseError(f"tokenizer.json is of a kind that is not read: {name}", f"what is read: {kinds}")
    kind = KINDS[title]
    if missing := sorted(kind.letters - tokens.keys()):
        raise UnnoiseError(f"tokenizer.json lacks {len(missing)} tokens, the first {missing[0]!r}", HINT)
    size = 1 + max(tokens.values())
    if pad is not None and not 0 <= pad < size:
        raise UnnoiseError(f"tokenizer.json has no token {pad} to pad with", f"choose one from 0 to {size - 1}")
    try:
        library = kind.library(*parts)
    except Exception as error:  # the library raises plain Exception
        raise UnnoiseError(f"tokenizer.json is damaged ({error})", HINT) from None
    start = tokens[kind.start] if kind.start else None
    return Vocabulary(title, library, start, tokens[kind.end], tokens[kind.pad] if pad is None else pad, size)


def _bpe(model: Mapping[str, Any]) -> tuple[dict[str, int], tuple[Any, Any]]:
    """({token: id}, (vocabulary, merges)) of a file's model."""
    vocabulary, merges = model["vocab"], model["merges"]
    if not isinstance(vocabulary, dict) or not all(type(i) is int and 0 <= i < MAX_ID for i in vocabulary.values()):
        raise ValueError("its vocabulary is no table of ids")
    if len(set(vocabulary.values())) != len(vocabulary):
        raise ValueError("two tokens have one id")
    pairs = [tuple(each.split(" ") if isinstance(each, str) else each) for each in merges]
    if not all(len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], str) for pair in pairs):
        raise ValueError("a merge is not of two tokens")
    return vocabulary, (vocabulary, pairs)


def _unigram(model: Mapping[str, Any]) -> tuple[dict[str, int], tuple[Any, Any]]:
    """({piece: id}, ([(piece, score)], id of the unknown)) of a file's model."""
    pieces = [(piece, score) for piece, score in model["vocab"]]
    if not all(isinstance(piece, str) and type(score) in (int, float) and isfinite(score) for piece, score in pieces):
        raise ValueError("a piece has no score")
    tokens = {piece: place for place, (piece, _) in enumerate(pieces)}
    if len(tokens) != len(pieces):
        raise ValueError("a piece stands there twice")
    # a blank before a special piece hides it: no word of a text has one, so that a prompt that spells it out is text
    hidden = [(f" {piece}" if SPECIAL_PIECE.fullmatch(piece) else piece, score) for piece, score in pieces]
    return tokens, (hidden, tokens.get("<unk>"))


MODELS: dict[str, Callable[[Mapping[str, Any]], tuple[dict[str, int], tuple[Any, Any]]]] = {
    "BPE": _bpe,
    "Unigram": _unigram,
}


def of_merges(vocabulary: str, merges: str) -> str:
    """The tokenizer.json of a ``vocab.json`` and a ``merges.txt``, which is how CLIP's are often published.

    Raises:
        UnnoiseError: they are none.
    """
    try:
        table = parse_json(vocabulary.encode())
    except ValueError as error:
        raise UnnoiseError(f"vocab.json is damaged ({error})", HINT) from None
    lines = [line for line in merges.split("\n") if line and not line.startswith("#version")]
    json = dumps({"model": {"type": "BPE", "vocab": table, "merges": lines}}, ensure_ascii=False)
    read(json)
    return json


CLIP_FILE = Path(__file__).with_name("vocabularies") / "clip.txt.gz"  # OpenAI's bpe_simple_vocab_16e6.txt.gz
CLIP_MERGES = 49152 - 256 - 2  # as ``SimpleTokenizer`` of OpenAI's CLIP takes them; the file has more
PRINTED = (*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1))


@cache
def clip_json() -> str:
    """The tokenizer.json of OpenAI's CLIP, which comes with the package: 49,408 tokens.

    In the order of the ids: the bytes as letters, those that are printed first; the same at the end of a word; the
    merges; start and end.
    """
    lines = gzip.decompress(CLIP_FILE.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : CLIP_MERGES + 1]
    letters = [*map(chr, PRINTED), *(chr(256 + place) for place in range(256 - len(PRINTED)))]
    tokens = [*letters, *(letter + WORD_END for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    table = {token: place for place, token in enumerate([*tokens, KINDS["clip"].start, KINDS["clip"].end])}
    return dumps({"model": {"type": "BPE", "vocab": table, "merges": merges}}, ensure_ascii=False)


def clip_files() -> dict[str, str]:
    """The same vocabulary as transformers keeps it: ``vocab.json`` and ``merges.txt``."""
    model = parse_json(clip_json().encode())["model"]
    merges = "\n".join(["#version: 0.2", *model["merges"], ""])
    return {"vocab.json": dumps(model["vocab"], ensure_ascii=False), "merges.txt": merges}
