"""CLIP's and T5's ways of cutting text, against those of the transformers library, on vocabularies made here."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models, normalizers, pre_tokenizers, trainers
from transformers.models.clip.tokenization_clip import CLIPTokenizer
from transformers.models.t5.tokenization_t5 import T5Tokenizer

from unnoise.encoders import vocabulary
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.engine.load import read_tokenizer
from unnoise.errors import UnnoiseError
from unnoise.files import sha256

CORPUS = [
    "a red apple, isn't it?",
    "two blue hearts & 12 dogs",
    "the cat's café",
    "red heart",
    "she'll draw 3 apples",
] * 5
START, END = "<|startoftext|>", "<|endoftext|>"
HOSTILE = {
    "empty": "",
    "blanks": " \t\n  ",
    "words": "A red  apple, isn't it?",
    "quotes": "they're I'LL ''s 'tis we'd!!'s",
    "numbers": "12 3.14 ½ ² Ⅷ ٣",
    "accents": "café cafe\u0301 ÀÉ \u0301\u0301\u0301x",
    "ligatures": "ﬁre ㌀ ｗｉｄｅ ℌ",
    "emoji": "🍎 👩🏽‍🚒👩🏽‍🚒 🇳🇴x",
    "scripts": "日本 שלום สีแดง हिन्दी İstanbul ΣΑΣ ß",
    "NULs and controls": "a\x00b \x01\x7f\u200b\ufeff\u2028 c",
    "noncharacter": "\U0010ffff\ue000",
    "one long word": "apple" * 700,
    "one letter": "q" * 3000,
    "signs": "<|x|> </w> ▁a ▁ __ \\n ĠĠ",
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@cache
def clip_json() -> str:
    """A small vocabulary in CLIP's order: bytes, bytes that end a word, merges, start and end."""
    library = vocabulary.clip({}, [])
    trainer = trainers.BpeTrainer(vocab_size=400, end_of_word_suffix=vocabulary.WORD_END, show_progress=False)
    library.train_from_iterator(CORPUS, trainer)
    merges = [tuple(each) for each in json.loads(library.to_str())["model"]["merges"]]
    letters = sorted(vocabulary.BYTES)
    tokens = [*letters, *(letter + vocabulary.WORD_END for letter in letters)]
    tokens += [*dict.fromkeys(a + b for a, b in merges), START, END]
    assert len(merges) > 30
    model = {"type": "BPE", "vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges}
    return json.dumps({"model": model})


@cache
def t5_json() -> str:
    library = Library(models.Unigram())
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False, initial_alphabet=["▁"]
    )
    library.train_from_iterator(CORPUS, trainer)
    return library.to_str()


@cache
def theirs(kind: str) -> Any:
    model = json.loads(clip_json() if kind == "clip" else t5_json())["model"]
    if kind == "clip":
        return CLIPTokenizer(vocab=model["vocab"], merges=[tuple(each) for each in model["merges"]])
    found = T5Tokenizer(vocab=[tuple(each) for each in model["vocab"]], extra_ids=0)
    # SentencePiece's normal form, which published files bring along as a table; without one theirs has none
    found.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    return found


@cache
def ours(kind: str, length: int = 77) -> Tokenizer:
    return Tokenizer(clip_json() if kind == "clip" else t5_json(), length)


def rows_agree(kind: str, text: str) -> None:
    length = 4100
    wanted = theirs(kind)(text, padding="max_length", max_length=length)["input_ids"]
    assert ours(kind, length)([text]).tolist() == [wanted]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_rows_are_theirs(kind: str, text: str) -> None:
    rows_agree(kind, text)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["clip", "t5"]), TEXT)
def test_rows_of_any_text_are_theirs(kind: str, text: str) -> None:
    rows_agree(kind, text)


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_spans_are_theirs(kind: str) -> None:
    for text in HOSTILE.values():
        wanted = theirs(kind)(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        assert ours(kind).spans(text) == wanted
        assert len(ours(kind).ids(text)) == ours(kind).count(text) == len(wanted)


def test_kinds_are_told_apart() -> None:
    clip, t5 = ours("clip"), ours("t5")
    assert (clip.kind, t5.kind) == ("clip", "t5")
    assert (clip.vocabulary, clip.start, clip.end, clip.pad) == (
        len(theirs("clip")),
        *theirs("clip")("")["input_ids"],
        clip.end,
    )
    assert (t5.start, t5.end, t5.pad, t5.room) == (None, 1, 0, 76)
    assert (clip.room, clip.first, t5.first) == (75, 1, 0)


def test_another_token_to_pad_with() -> None:
    """As the second tower of SDXL wants it: "!", which is 0 in CLIP's vocabulary."""
    padded = Tokenizer(clip_json(), 8, pad=0)
    (row,) = padded(["red"]).tolist()
    assert row == [padded.start, *padded.ids("red"), padded.end] + [0] * (6 - padded.count("red"))
    with pytest.raises(UnnoiseError, match="no token 9999 to pad with"):
        Tokenizer(clip_json(), 8, pad=9999)


def test_a_tower_s_config_says_how_rows_are_filled_up(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(clip_json(), "utf-8")
    record = {"files": {"tokenizer.json": sha256(tmp_path / "tokenizer.json")}}
    tower = torch.nn.Module()
    for config, pad in ((SimpleNamespace(length=9, pad=0), 0), (SimpleNamespace(length=9), ours("clip").end)):
        tower.config = config  # type: ignore[assignment]
        assert read_tokenizer(tmp_path, record, tower)(["red"])[0, -1] == pad


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_a_special_token_in_a_prompt_is_text(kind: str) -> None:
    """There it is not theirs: to them it is the token, which hides what follows."""
    each = ours(kind)
    for token in {"clip": (START, END, END.upper()), "t5": ("</s>", "<pad>", "<unk>")}[kind]:
        ids = each.ids(f"red {token} apple")
        assert not {each.start, each.end, each.pad} & {*ids}
        assert len(ids) > each.count("red") + each.count("apple") + 1
        assert ids[-len(each.ids("apple")) :] == each.ids("apple")
    assert theirs("clip")("red <|endoftext|> apple")["input_ids"].count(ours("clip").end) == 2, "the control"


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_captions_are_cut_to_a_row(kind: str) -> None:
    each = ours(kind, 12)
    assert each.cut("red heart " * 20) in "red heart " * 20
    for text in HOSTILE.values():
        kept = each.cut(text)
        assert text.startswith(kept)
        assert each.count(kept) <= each.room
        each([kept])


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_a_file_cannot_change_how_prompts_are_read(kind: str) -> None:
    """Neither its rules beside the model, nor those inside it."""
    record = json.loads(clip_json() if kind == "clip" else t5_json())
    record["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    record["normalizer"] = {"type": "Replace", "pattern": {"String": "red"}, "content": "blue"}
    record["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": False}
    record["added_tokens"] = [{"id": 5, "content": "red", "single_word": False, "lstrip": False, "rstrip": False}]
    record["model"] |= {"dropout": 1.0, "byte_fallback": True, "ignore_merges": True, "continuing_subword_prefix": "a"}
    record["model"] |= (
        {"unk_id": 7} if kind == "t5" else {"end_of_word_suffix": "x", "unk_token": "!", "fuse_unk": True}
    )
    changed = Tokenizer(json.dumps(record), 77)
    for text in ("red apple, blue heart", "a" * 30 + "b", "🍎", ""):
        assert changed.ids(text) == ours(kind).ids(text)


def damaged() -> dict[str, str]:
    clip, t5 = (json.loads(each)["model"] for each in (clip_json(), t5_json()))
    letters = {token: i for token, i in clip["vocab"].items() if token != "q</w>"}
    vocab, pieces = clip["vocab"], t5["vocab"]
    models_of: dict[str, Any] = {
        "a letter less": {**clip, "vocab": letters, "merges": []},
        "an id that is no number": {**clip, "vocab": {**vocab, "q": "1"}},
        "an id that is huge": {**clip, "vocab": {**vocab, "q": 2**31}},
        "two tokens of one id": {**clip, "vocab": {**vocab, "q": 3, "z": 3}},
        "merges of three": {**clip, "merges": [["r", "e", "d"]]},
        "merges of numbers": {**clip, "merges": [[1, 2]]},
        "no merges": {"type": "BPE", "vocab": vocab},
        "no unknown": {**t5, "vocab": [each for each in pieces if each[0] != "<unk>"]},
        "no pieces": {**t5, "vocab": []},
        "a score that is no number": {**t5, "vocab": [*pieces, ["x y", float("nan")]]},
        "a score that is a word": {**t5, "vocab": [*pieces, ["x y", "1"]]},
        "a piece twice": {**t5, "vocab": [*pieces, pieces[-1]]},
        "pieces in a table": {**t5, "vocab": vocab},
        "another type": {"type": ["BPE"], "vocab": vocab, "merges": []},
        "GPT-2's": {**clip, "vocab": {t: i for t, i in vocab.items() if t != START}},
    }
    return {name: json.dumps({"model": model}) for name, model in models_of.items()}


@pytest.mark.parametrize("name", damaged())
def test_damaged_files_are_one_clear_error(name: str) -> None:
    with pytest.raises(UnnoiseError, match=r"tokenizer\.json"):
        Tokenizer(damaged()[name], 16)


def test_a_vocabulary_and_its_merges_in_two_files() -> None:
    model = json.loads(clip_json())["model"]
    lines = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""])
    again = Tokenizer(vocabulary.of_merges(json.dumps(model["vocab"]), lines), 77)
    assert again.ids(HOSTILE["words"]) == ours("clip").ids(HOSTILE["words"])
    for wrong in ("", "[]", '{"a": 1}'):
        with pytest.raises(UnnoiseError, match=r"(vocab|tokenizer)\.json"):
            vocabulary.of_merges(wrong, lines)
