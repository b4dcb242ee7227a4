"""Words and places: the attention map of each word of a prompt, and what changes when one word is exchanged.

The maps are those of Hertz et al. 2022 (arXiv 2208.01626), read here and not changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from unnoise.errors import UnnoiseError
from unnoise.study.candidates import SMALL, swaps
from unnoise.study.chart import Chart, Series
from unnoise.study.distances import mean_of
from unnoise.study.lab import Lab
from unnoise.study.maps import bare, change, correlation, draw_with_maps, moved, spans, word_map
from unnoise.study.page import Lesson, Table, Value, grid, stacked

MAX_SHOWN = 4


class Pair(NamedTuple):
    """A prompt before and after the exchange of one word: the lab's row, the word's place, the attribute."""

    row: int
    before: str
    after: str
    place: int
    attribute: str


class Effect(NamedTuple):
    """The effect of the exchange; maps are compared at one seed.

    Attributes:
        own, other: how far the exchanged word's map moved, and the mean of the other words'; 0 to 1.
        here, there: correlations over cells of the picture's change with the exchanged word's map, and with the other
            words' maps.
        place, change: (h, w) the exchanged word's map, the mean of before and after, and the picture's change.
    """

    own: float
    other: float
    here: float
    there: float
    place: Tensor
    change: Tensor


def pairs(captions: Sequence[str]) -> list[Pair]:
    """One exchange for each caption that allows one (``candidates.swaps``) and has another meaningful word."""
    results = []
    for row, caption in enumerate(captions):
        for attribute, other in swaps(caption):
            words, new = caption.split(), other.split()
            places = [k for k, (a, b) in enumerate(zip(words, new, strict=False)) if a != b]
            if len(words) == len(new) and len(places) == 1 and others(words, places[0]):
                results.append(Pair(row, caption, other, places[0], attribute))
                break
    return results


def others(words: Sequence[str], place: int) -> list[int]:
    """The other meaningful words: not small words, whose maps mean nothing."""
    return [k for k, word in enumerate(words) if k != place and bare(word) and bare(word) not in SMALL]


def effect(lab: Lab, pair: Pair, pictures: Tensor, maps: Tensor) -> Effect:
    """The effect of one pair, from two uint8 pictures (2, 3, H, W) and their maps (2, L, h, w), before and after."""
    words_of = [spans(lab.engine.model.tower.tokenizer, prompt) for prompt in (pair.before, pair.after)]
    maps_of = [[word_map(each, span) for _, span in words] for each, words in zip(maps, words_of, strict=True)]
    where = [(a + b) / 2 for a, b in zip(*maps_of, strict=True)]
    far = [moved(a, b) for a, b in zip(*maps_of, strict=True)]
    rest = others([word for word, _ in words_of[0]], pair.place)
    what = change(pictures[0], pictures[1], tuple(maps.shape[-2:]))  # type: ignore[arg-type]
    near = [correlation(each, what) for each in where]
    own = where[pair.place]
    mean = torch.tensor([[far[k], near[k]] for k in rest], dtype=torch.float64).mean(0).tolist()
    return Effect(far[pair.place], mean[0], near[pair.place], mean[1], own, what)


def study(lab: Lab) -> Lesson:
    """Draws every pair with one seed and reads the maps.

    Two controls: the words that were not exchanged, in the same pictures, and the exchanged words' maps of other
    pairs. In a causal text tower the vectors of later words change with an earlier one, which weakens the effect.

    Raises:
        UnnoiseError: fewer than two prompts have a word that can be exchanged.
    """
    exchanges = pairs(lab.captions)
    if len(exchanges) < 2:
        raise UnnoiseError(f"{len(exchanges)} prompts have a word to exchange", "ask for more --prompts")
    before, after = (draw(lab, exchanges, after) for after in (False, True))
    pictures = torch.stack([before[0], after[0]], 1)  # (P, 2, 3, H, W)
    maps = torch.stack([before[1], after[1]], 1)  # (P, 2, L, h, w)
    effects = [effect(lab, *row) for row in zip(exchanges, pictures, maps, strict=True)]
    strange = [correlation(effects[k - 1].place, each.change) for k, each in enumerate(effects)]
    columns = {
        "its map moved": [e.own for e in effects],
        "other words' maps moved": [e.other for e in effects],
        "change lies on its map": [e.here for e in effects],
        "change lies on other words' maps": [e.there for e in effects],
        "change lies on another pair's map": strange,
    }
    values = {name: torch.tensor(each, dtype=torch.float64) for name, each in columns.items()}
    names = list(values)
    values["moved: its own less others'"] = values[names[0]] - values[names[1]]
    values["place: its own less others'"] = values[names[2]] - values[names[3]]
    values["place: its own less another pair's"] = values[names[2]] - values[names[4]]
    figures = {name: mean_of(each, lab.seed) for name, each in values.items()}
    rows: list[list[Value]] = [[name, figure] for name, figure in figures.items()]
    note = (
        "Moved: half the L1 distance of two maps that sum to 1. Lies on: correlation over cells of the picture's "
        "change with a word's map, a mean of before and after. Intervals over pairs; below, differences within pairs."
    )
    ordered = sorted(zip(columns["its map moved"], columns["other words' maps moved"], strict=True))
    series = [
        Series(name, [(k + 1.0, row[i]) for k, row in enumerate(ordered)])
        for i, name in enumerate(("its own", "others'"))
    ]
    counts = Counter(pair.attribute for pair in exchanges).most_common()
    kinds = ", ".join(f"{count} in {attribute}" for attribute, count in counts)
    verdicts = [verdict(name, figures[name].low) for name in list(figures)[-3:]]
    return Lesson(
        "Words and places",
        [f"{len(exchanges)} pairs of prompts that differ in one word ({kinds}). " + " ".join(verdicts)],
        [Table(["figure", "mean"], rows, note)],
        [Chart("How far maps move when one word is exchanged", "pairs, sorted", "share of the map", series)],
        stacked([sheet(lab, exchanges[k], pictures[k], maps[k]) for k in range(min(MAX_SHOWN, len(exchanges)))]),
    )


def verdict(name: str, low: float) -> str:
    """The verdict on one difference."""
    return f"{name[0].upper()}{name[1:]}: {'more, measurably' if low > 0 else 'NOT measurably more'}."


def draw(lab: Lab, pairs: Sequence[Pair], after: bool) -> tuple[Tensor, Tensor]:
    """(pictures, maps) of all pairs, before or after the exchange; stored in batches of sixteen."""
    prompts = [pair.after if after else pair.before for pair in pairs]
    seeds = [lab.turns()[pair.row] for pair in pairs]

    def key(rows: slice) -> dict[str, object]:
        return {"maps": prompts[rows], "seeds": seeds[rows], "settings": lab.settings_line()}

    def compute(rows: slice) -> dict[str, Tensor]:
        pictures, maps = draw_with_maps(lab.engine, prompts[rows], seeds[rows], lab.steps)
        return {"pictures": pictures, "maps": maps}

    tensors = lab.in_batches(len(prompts), key, compute)
    return tensors["pictures"], tensors["maps"]


def sheet(lab: Lab, pair: Pair, pictures: Tensor, maps: Tensor) -> Image.Image:
    """Before and after, one above the other: the picture, then each word's map, brighter where attention is higher."""
    rows = []
    for prompt, picture, word_maps in zip((pair.before, pair.after), pictures, maps, strict=True):
        shades = [
            shade(word_map(word_maps, span), picture.shape[-1])
            for _, span in spans(lab.engine.model.tower.tokenizer, prompt)
        ]
        rows.append(torch.stack([picture, *shades]))
    words = pair.before.split()
    words[pair.place] += f", {pair.after.split()[pair.place]}"
    return grid(rows, ["", *words], [pair.before, pair.after])


def shade(values: Tensor, size: int) -> Tensor:
    """uint8 (3, size, size) of a map: black at its minimum, white at its maximum."""
    span = (values.amax() - values.amin()).clamp_min(1e-12)
    level = ((values - values.amin()) / span * 255).round().to(torch.uint8)
    factor = size // len(level)
    return level.repeat_interleave(factor, 0).repeat_interleave(factor, 1)[None].expand(3, -1, -1)
