"""A world that a judge can be measured in: pictures of coloured shapes, and a judge that reads them as they are."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

from tiny import lively
from unnoise.core.condition import Condition
from unnoise.data.store import PictureSet
from unnoise.data.write import Row, write_set
from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.encoders.image_conv import ImageConv, ImageConvConfig
from unnoise.encoders.pair import Pair, PairConfig
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.study.judge import Judge
from unnoise.weights.model import save_model

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 220), "purple": (140, 40, 160)}
BOXES = {"square": (32, 32, 96, 96), "bar": (8, 48, 120, 80), "post": (48, 8, 80, 120)}
WORDS = [*COLOURS, "orange", "yellow", "pink", "brown", "black", "white", "grey", *BOXES]
TIERS = ("train", "train", "tier1", "tier2")  # of a shape's four colours


def write_shapes(out: Path) -> Path:
    """Twelve pictures of 128 pixels, six trained, three of each held-out tier."""
    rows = []
    for number, (shape, (tier, colour)) in enumerate((s, c) for s in BOXES for c in zip(TIERS, COLOURS, strict=True)):
        image = Image.new("RGB", (128, 128), "white")
        image.paste(COLOURS[colour], BOXES[shape])
        data = io.BytesIO()
        image.save(data, "PNG")
        pixels = hashlib.sha256(image.tobytes()).hexdigest()
        part = "train" if tier == "train" else "validation"
        said = {"name": shape, "person": None, "tones": []}
        name = f"{colour} {shape}"
        rows.append(Row(f"p{number:02}", data.getvalue(), pixels, [name], said, name, number, tier, part))
    write_set(out, rows, {})
    return out


@dataclass
class Listed:
    """As much of a picture set as candidates need."""

    ids: list[str]
    captions: list[list[str]]
    attributes: list[dict[str, Any]]
    identical: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)


ROLES = ("firefighter", "cook", "pilot", "singer", "farmer", "judge", "astronaut", "mechanic", "student", "artist")
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")


def people(order: Sequence[int] | None = None) -> PictureSet:
    """100 toned persons with roles, a twin of the first with the same pixels, and a badge."""
    found = [
        (f"{p}-{r}-{t}", f"{p} {r}, {t} skin tone", {"name": f"{p} {r}", "person": p, "role": r, "tones": [t]})
        for p in ("man", "woman")
        for r in ROLES
        for t in TONES
    ]
    found += [("twin", "firefighter, light skin tone", {"name": "twin", "person": None, "role": None, "tones": []})]
    found += [("badge", "firefighter badge", {"name": "firefighter badge", "person": None, "role": None, "tones": []})]
    order = range(len(found)) if order is None else order
    first = list(order).index(0)
    listed = Listed(*(list(each) for each in zip(*(found[i] for i in order), strict=True)))
    listed.captions = [[caption] for caption in cast(list[str], listed.captions)]
    listed.identical = [first if found[i][0] == "twin" else place for place, i in enumerate(order)]
    return cast(PictureSet, listed)


class ReadsWords(nn.Module):
    """The words of a caption as a vector of zeros and ones; without the colours it is colour-blind."""

    def __init__(self, colour: bool = True) -> None:
        super().__init__()
        self.seen = nn.Parameter(torch.tensor([float(colour or word in BOXES) for word in WORDS]))

    def forward(self, ids: Tensor) -> Condition:
        return Condition(pooled=nn.functional.one_hot(ids, len(WORDS)).sum(1).float() * self.seen)


class ReadsPictures(nn.Module):
    """The same vector from a picture: its nearest colour, and its shape."""

    def forward(self, x: Tensor) -> Tensor:
        palette = torch.tensor(list(COLOURS.values())) / 127.5 - 1
        colour = torch.cdist(x[:, :, 60:68, 60:68].mean((2, 3)), palette).argmin(1)
        wide, tall = x[:, :, 64, 20].mean(1) < 0.9, x[:, :, 20, 64].mean(1) < 0.9
        shape = torch.where(wide, 1, torch.where(tall, 2, 0))
        places = torch.stack([colour, shape + len(WORDS) - len(BOXES)], 1)
        return nn.functional.one_hot(places, len(WORDS)).sum(1).float()


class Identity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.image = nn.Identity(), nn.Identity()


class Words:
    """A tokenizer of two words."""

    json = "words"

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        return torch.tensor([[WORDS.index(word) for word in prompt.split()] for prompt in prompts])

    def cut(self, prompt: str) -> str:
        return prompt  # no caption is long


def judge(colour: bool = True) -> Judge:
    """One that is never wrong about these shapes, or one that sees no colour."""
    return Judge(ReadsWords(colour), ReadsPictures(), Identity(), Words())  # type: ignore[arg-type]


def save_judge(out: Path, words: Tokenizer) -> Path:
    """A model folder with the parts of a judge, of chance weights, that reads with this tokenizer."""
    torch.manual_seed(1)
    text = CLIPText(CLIPTextConfig(words.vocabulary, words.length, 16, 1, 2, 32, end=words.end))
    parts = {
        "text": text,
        "image": ImageConv(ImageConvConfig(((8, 1), (8, 1)), 16)),
        "pair": Pair(PairConfig(16, 16, 8)),
    }
    parts = {name: lively(part) for name, part in parts.items()}
    save_model(out, parts, {}, {"tokenizer.json": words.json}, torch.float32)
    return out
