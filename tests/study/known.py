"""A model that is exactly right about the judge's world of shapes, so that what a study must find is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from study.judged import BOXES, COLOURS, Words, judge
from unnoise.core.autoencoder import Autoencoder, Posterior
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.level import NoiseLevel
from unnoise.core.mixture import Deltas
from unnoise.core.space import Space
from unnoise.data.store import PictureSet
from unnoise.encoders.tokenizer import Tokens
from unnoise.engine.engine import Engine
from unnoise.engine.model import Model
from unnoise.networks.layers import Network
from unnoise.paths.flow import Flow
from unnoise.pictures import from_bytes
from unnoise.predictions.data import Data
from unnoise.study.lab import Lab
from unnoise.study.leaderboard import Prompts

WORDS = [*COLOURS, *BOXES]


class Cells(Autoencoder):
    """Means over 8 x 8 pixels, and back without loss, since all edges of the shapes lie between cells."""

    space = Space(3, 2, 8)

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def encode(self, x: Tensor) -> Posterior:
        z = F.avg_pool2d(x, 8)
        return Posterior(z, torch.zeros_like(z))

    def decode(self, z: Tensor) -> Tensor:
        return F.interpolate(z, scale_factor=8, mode="nearest")


class Spoken(nn.Module):
    """The words of a prompt as zeros and ones."""

    def forward(self, ids: Tensor) -> Condition:
        return Condition(pooled=torch.stack([F.one_hot(row, len(WORDS)).sum(0) for row in ids]).float())


class Ids(Words):
    json = "known"

    def read(self, prompt: str) -> Tokens:
        return Tokens(self([prompt])[0], [], 0)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        return torch.tensor([[WORDS.index(word) for word in prompt.split()] for prompt in prompts], dtype=torch.int64)


class Exact(Network):
    """E[x0 | x, prompt] where the data are the shapes that bear all words of the prompt."""

    config = SimpleNamespace(text_width=0, size=16, channels_in=3)

    def __init__(self, latents: Tensor, said: Tensor) -> None:
        super().__init__()
        self.latents, self.said = latents, said
        self.unused = nn.Parameter(torch.zeros(()))

    def sites(self) -> tuple[str, ...]:
        return ()

    def forward(self, x: Tensor, label: Tensor, cond: Any, edits: Any = (), read: Any = ()) -> tuple[Tensor, Any]:
        rows = []
        for row, level, wanted in zip(x, (label / 1000).tolist(), cond.pooled, strict=True):
            fits = (self.said >= wanted).all(1)
            rows.append(Deltas(self.latents[fits]).estimate(row[None], NoiseLevel(1 - level, level)).x0)
        return torch.cat(rows), {}


def engine(pictures: PictureSet, cfg_scale: float = 1.0, deaf: bool = False) -> Engine:
    """The model; a deaf one answers every prompt as if it were empty."""
    captions = [captions[0] for captions in pictures.captions]
    latents = Cells().encode(from_bytes(pictures.pictures())).mean
    said = Spoken()(Ids()(captions)).pooled
    assert said is not None
    network = Exact(latents, torch.full_like(said, 2.0) if deaf else said)
    parts = {"denoiser": Denoiser(network, Flow(), Data()), "autoencoder": Cells(), "text": Spoken()}
    defaults = {"steps": 8, "solver": "euler", "spacing": "trailing", "cfg_scale": cfg_scale}
    return Engine(Model(parts, {"text": Ids()}, {"name": "known", "defaults": defaults}))  # type: ignore[dict-item]


def lab(model: Engine, pictures: PictureSet, memory: Path, colour: bool = True, **changes: Any) -> Lab:
    """A lab over all twelve shapes."""
    settings: dict[str, Any] = {
        "engine": model,
        "weights": "known",
        "judge": lambda: judge(colour),
        "judged_by": lambda: f"colour {colour}",
        "pictures": pictures,
        "prompts": Prompts(list(range(12)), ["plain"] * 6 + ["toned"] * 6),
        "seed": 0,
        "seeds": 2,
        "steps": None,
        "memory": memory,
        "computer": {},
    }
    return Lab(**settings | changes)
