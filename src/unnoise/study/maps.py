"""Cross-attention maps of each word of a prompt, read while the model draws."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unnoise.encoders.tokenizer import Tokenizer
from unnoise.errors import UnnoiseError
from unnoise.pictures import from_image
from unnoise.study.lab import Engine


def spans(tokenizer: Tokenizer, prompt: str) -> list[tuple[str, slice]]:
    """The words of a prompt and the slices of their tokens in a row of ids; punctuation belongs to its word.

    Raises:
        UnnoiseError: a token spans several words, so that a map does not belong to one word.
    """
    ids: list[int] = []
    words, place = [], tokenizer.first
    for word in prompt.split():
        own = tokenizer.ids(word)
        words.append((word, slice(place, place + len(own))))
        place, ids = place + len(own), ids + own
    if ids != tokenizer.ids(prompt):
        raise UnnoiseError(f"the tokens of {prompt!r} run across its words", "use another prompt, or another tokenizer")
    return words


@torch.inference_mode()
def draw_with_maps(
    engine: Engine, prompts: Sequence[str], seeds: Sequence[int], steps: int | None
) -> tuple[Tensor, Tensor]:
    """Draws prompts and reads all cross-attention on the way.

    The maps are those of the calls with the prompt that the run makes anyway. Maps are means over heads, sites and
    steps, each site's brought to the state's size; at each cell they sum to 1 over the tokens (Tang et al. 2023, arXiv
    2210.04885, for summing over heads, layers and steps).

    Returns:
        (pictures uint8 (B, 3, H, W), maps float32 (B, L, h, w)), L tokens.

    Raises:
        UnnoiseError: the network has no cross-attention.
    """
    network: Any = engine.model.denoiser.network
    sites = tuple(site for site in network.sites() if site.split(".")[-1] == "cross")
    if not sites:
        raise UnnoiseError("the network attends to no prompt", "name a model with cross-attention")
    pairs = zip(prompts, seeds, strict=True)
    requests = [engine.request(prompt, seed=seed, steps=steps, read=sites) for prompt, seed in pairs]
    maps: dict[int, list[Tensor]] = {number: [] for number in range(len(requests))}
    pixels: dict[int, Tensor] = {}
    for event in engine.draw(requests):
        if hasattr(event, "step"):
            features = event.read["cond"]
            size = (event.step.x.shape[-2], event.step.x.shape[-1])
            maps[event.number].append(torch.stack([on_cells(features[site], size) for site in sites]).mean(0)[0])
        elif hasattr(event, "picture"):
            pixels[event.number] = from_image(event.picture)
        elif hasattr(event, "error"):
            raise event.error
    means = [torch.stack(maps[number]).mean(0).cpu() for number in range(len(requests))]
    return torch.stack([pixels[number] for number in range(len(requests))]), torch.stack(means)


def on_cells(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, L, h, w) float32 mean over heads of an attention map (B, heads, N, L) over a smaller or equal grid.

    Cells are repeated, not blended; the grid has the state's proportions.
    """
    side = round((maps.shape[2] * size[0] / size[1]) ** 0.5)
    grid = maps.float().mean(1).mT.reshape(len(maps), maps.shape[3], side, -1)  # (B, L, rows, columns)
    return F.interpolate(grid, size=size, mode="nearest")


def word_map(maps: Tensor, span: slice) -> Tensor:
    """(h, w) float64 that sums to 1: the map of a word, the sum over its tokens, from (L, h, w)."""
    total = maps[span].double().sum(0)
    return total / total.sum()


def moved(a: Tensor, b: Tensor) -> float:
    """The share of one map that must move to give the other, 0 to 1: half their L1 distance. Both (h, w), sum 1."""
    return float((a - b).abs().sum() / 2)


def change(before: Tensor, after: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w) mean absolute difference of two uint8 pictures (3, H, W) over each cell, in levels of 255."""
    return F.adaptive_avg_pool2d((before.double() - after.double()).abs().mean(0)[None], size)[0]


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation over cells; 0 if either is constant."""
    a, b = a.flatten() - a.mean(), b.flatten() - b.mean()
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 0 else 0.0


def bare(word: str) -> str:
    """A word without punctuation around it, in lower case."""
    return re.sub(r"^\W+|\W+$", "", word.lower())
