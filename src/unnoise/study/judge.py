"""A judge: a separate image-text encoder that decides whether a picture matches its caption, and its exam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.data.store import PictureSet
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.errors import UnnoiseError
from unnoise.pictures import from_bytes
from unnoise.study.candidates import Candidates, swaps

FIRST, CAUGHT = 0.97, 0.90  # shares that a judge must reach on real pictures before its figures mean anything
ROWS = 64


class Judge:
    """Captions and pictures as unit vectors of one space; their products are cosine similarities.

    Args:
        text, image, pair, tokenizer: a contrastive pair as ``emoji-judge`` trains it; it must share no weights with
            the generator, or pictures could exploit them.
    """

    def __init__(self, text: nn.Module, image: nn.Module, pair: nn.Module, tokenizer: Tokenizer) -> None:
        self.text, self.image, self.pair, self.tokenizer = text.eval(), image.eval(), pair.eval(), tokenizer
        self.device = next(text.parameters()).device

    @torch.inference_mode()
    def captions(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float64 on the processor."""
        rows = [self.tokenizer(texts[start : start + ROWS]) for start in range(0, len(texts), ROWS)]
        return torch.cat([self._unit(self.pair.text(self.text(ids.to(self.device)).pooled)) for ids in rows])  # type: ignore[operator]

    @torch.inference_mode()
    def pictures(self, pixels: Tensor) -> Tensor:
        """(N, D) float64 on the processor, from uint8 (N, 3, H, W)."""
        parts = (from_bytes(rows.to(self.device)) for rows in torch.split(pixels, ROWS))
        return torch.cat([self._unit(self.pair.image(self.image(x))) for x in parts])  # type: ignore[operator]

    @staticmethod
    def _unit(x: Tensor) -> Tensor:
        return F.normalize(x.double().cpu(), dim=1)


def first(pictures: Tensor, captions: Tensor, items: Sequence[int], candidates: Candidates) -> Tensor:
    """(n,) bool: whether each picture's own caption is nearer to it than all its candidates; a tie counts as False.

    Args:
        pictures: (n, D) unit vectors, of pictures that should show ``items``.
        captions: (N, D) unit vectors of the canonical captions of the whole set.
    """
    won = []
    for vector, item in zip(pictures, items, strict=True):
        foils = candidates.of(item)
        if not foils:
            raise UnnoiseError("the picture set has no two different captions", "judge with a set of more pictures")
        won.append(bool(captions[item] @ vector > (captions[foils] @ vector).max()))
    return torch.tensor(won)


class Exam(NamedTuple):
    """The results of a judge on real pictures.

    Attributes:
        pictures: number of pictures.
        first: share of pictures whose right caption came first among its candidates.
        swaps: number of captions with one attribute exchanged.
        caught: share of these that were less similar to the picture than the right caption; 1 if there are none.
        by_attribute: the same share for each attribute.
    """

    pictures: int
    first: float
    swaps: int
    caught: float
    by_attribute: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether both shares are high enough."""
        return self.first >= FIRST and self.caught >= CAUGHT


def examine(judge: Judge, pictures: PictureSet, candidates: Candidates, captions: Tensor) -> Exam:
    """Both parts of the exam over every captioned picture of a set.

    Args:
        captions: (N, D) of the canonical captions of the whole set, as ``judge.captions`` gives them.
    """
    items = [item for item, caption in enumerate(candidates.canonical) if caption]
    looks = judge.pictures(pictures.pictures(items))
    right = first(looks, captions, items, candidates)
    exchanges = [
        (row, attribute, other)
        for row, item in enumerate(items)
        for attribute, other in swaps(pictures.captions[item][0])
        if not candidates.is_own(item, other)
    ]
    verdicts: dict[str, list[bool]] = {}
    wrong = judge.captions([other for _, _, other in exchanges]) if exchanges else torch.empty(0, captions.shape[1])
    for (row, attribute, _), vector in zip(exchanges, wrong, strict=True):
        own = captions[items[row]] @ looks[row]
        verdicts.setdefault(attribute, []).append(bool(own > vector @ looks[row]))
    every = [each for values in verdicts.values() for each in values]
    shares = {attribute: sum(values) / len(values) for attribute, values in sorted(verdicts.items())}
    return Exam(len(items), float(right.double().mean()), len(every), sum(every) / len(every) if every else 1.0, shares)
