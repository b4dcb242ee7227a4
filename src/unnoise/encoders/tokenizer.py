"""Byte-level BPE: prompts to numbers and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer as BPE
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from unnoise.errors import UnnoiseError

START, END = "<|start|>", "<|end|>"
MAX_CHARACTERS = 4000


class Tokenizer:
    """Turns prompts into rows of token ids: start, the prompt in lower case, end, and more ends up to the length.

    Any text can be read, since its letters are the 256 bytes.

    Args:
        json: a file of the tokenizers library, as text.
        length: ids in a row, start and end included.

    Raises:
        UnnoiseError: the text is no tokenizer.
    """

    def __init__(self, json: str, length: int) -> None:
        try:
            self.bpe = BPE.from_str(json)
        except Exception as error:  # the library raises plain Exception
            raise UnnoiseError(f"tokenizer.json is damaged ({error})", "copy or train the model again") from None
        self.json, self.length = json, length
        self.start, self.end = self.bpe.token_to_id(START), self.bpe.token_to_id(END)
        if self.start is None or self.end is None:
            raise UnnoiseError("tokenizer.json has no start and end tokens", "the model is damaged")

    @classmethod
    def train(cls, captions: Iterable[str], vocabulary: int, length: int) -> Tokenizer:
        """A tokenizer for these captions: byte-pair merges of Sennrich et al. 2016 (arXiv 1508.07909) over bytes."""
        bpe = BPE(models.BPE())
        bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[START, END],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        bpe.train_from_iterator(captions, trainer)
        return cls(bpe.to_str(), length)

    def count(self, prompt: str) -> int:
        """How many tokens a prompt has, without start and end."""
        return len(self.bpe.encode(prompt).ids)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """(B, length) int64 ids.

        Raises:
            UnnoiseError: a prompt is longer than the model reads; nothing is cut.
        """
        rows = []
        for prompt in prompts:
            if len(prompt) > MAX_CHARACTERS:
                raise UnnoiseError(
                    f"the prompt has {len(prompt)} characters",
                    f"use at most {self.length - 2} tokens, about as many words",
                )
            ids = self.bpe.encode(prompt).ids
            if len(ids) > self.length - 2:
                raise UnnoiseError(
                    f"the prompt has {len(ids)} tokens, the model reads {self.length - 2}", "use fewer words"
                )
            rows.append([self.start, *ids] + [self.end] * (self.length - 1 - len(ids)))
        return torch.tensor(rows, dtype=torch.int64)
