"""Where a model looks for each word of a prompt while it draws: cross-attention by word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from unnoise.core.edit import Edit
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.errors import UnnoiseError
from unnoise.study.lab import Engine
from unnoise.study.leaderboard import decode


@dataclass(frozen=True)
class Noting(Edit):
    """Changes nothing, and notes the sites that it is shown."""

    seen: list[str] = field(default_factory=list, compare=False)

    def __call__(self, site: str, value: Tensor) -> Tensor:
        self.seen.append(site)
        return value


def spans(tokenizer: Tokenizer, prompt: str) -> list[tuple[str, slice]]:
    """The words of a prompt and the places of their tokens in a row of ids; signs around a word are part of it.

    Raises:
        UnnoiseError: tokens run across words, so that a map belongs to no one word.
    """
    ids: list[int] = []
    found, place = [], tokenizer.first
    for word in prompt.split():
        own = tokenizer.ids(word)
        found.append((word, slice(place, place + len(own))))
        place, ids = place + len(own), ids + own
    if ids != tokenizer.ids(prompt):
        raise UnnoiseError(f"the tokens of {prompt!r} run across its words", "use another prompt, or another tokenizer")
    return found


@torch.inference_mode()
def watched(engine: Engine, prompts: Sequence[str], seeds: Sequence[int], steps: int | None) -> tuple[Tensor, Tensor]:
    """Draws prompts and reads all cross-attention on the way.

    The network is called once more at each step's own state, with the prompt alone, so that the run is as it always is.
    Maps are means over heads, sites and steps, each site's brought to the state's size; at each cell they sum to 1
    over the tokens (Tang et al. 2023, arXiv 2210.04885, for summing over heads, layers and steps).

    Returns:
        (pictures uint8 (B, 3, H, W), maps float32 (B, L, h, w)), L tokens.

    Raises:
        UnnoiseError: the network has no cross-attention.
    """
    cond, total, count = engine.encode(prompts), None, 0
    sites: list[str] = []
    for step in engine.run(prompts, seeds, "", engine.settings(steps=steps)):
        if not sites:
            noting = Noting(("*",))
            engine.denoiser(step.x, step.here, cond=cond, edits=(noting,))
            sites = [site for site in noting.seen if site.split(".")[-1] == "cross"]
            if not sites:
                raise UnnoiseError("the network attends to no prompt", "name a model with cross-attention")
        features = engine.denoiser(step.x, step.here, cond=cond, read=sites).parts or {}
        for site in sites:
            seen = on_cells(features[site], (step.x.shape[-2], step.x.shape[-1]))
            total, count = (seen if total is None else total + seen), count + 1
        last = step.run.x
    assert total is not None
    return decode(engine.autoencoder, last), (total / count).cpu()


def on_cells(seen: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, L, h, w) float32 mean over heads of an attention map (B, heads, N, L) over a smaller or equal grid.

    Cells are repeated, not blended; the grid has the state's proportions.
    """
    side = round((seen.shape[2] * size[0] / size[1]) ** 0.5)
    grid = seen.float().mean(1).mT.reshape(len(seen), seen.shape[3], side, -1)  # (B, L, rows, columns)
    return F.interpolate(grid, size=size, mode="nearest")


def word_map(maps: Tensor, span: slice) -> Tensor:
    """(h, w) float64 that sums to 1: where a word is looked for, from (L, h, w); a word's tokens are added up."""
    found = maps[span].double().sum(0)
    return found / found.sum()


def moved(a: Tensor, b: Tensor) -> float:
    """How much of one map has to be moved to make the other, 0 to 1: half their L1 distance. Both (h, w), sum 1."""
    return float((a - b).abs().sum() / 2)


def change(before: Tensor, after: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w) mean absolute difference of two uint8 pictures (3, H, W) over each cell, in levels of 255."""
    return F.adaptive_avg_pool2d((before.double() - after.double()).abs().mean(0)[None], size)[0]


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, over cells; 0 where either is constant."""
    a, b = a.flatten() - a.mean(), b.flatten() - b.mean()
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 0 else 0.0


def bare(word: str) -> str:
    """A word without the signs around it, in lower case."""
    return re.sub(r"^\W+|\W+$", "", word.lower())
