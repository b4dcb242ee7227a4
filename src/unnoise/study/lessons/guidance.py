"""How hard to steer: adherence, saturation and diversity by guidance scale, and two cures for burnt pictures.

Each row draws the same prompts with the same seeds. Figures of one prompt are means over its seeds; intervals are
over prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unnoise.study.chart import Chart, Series
from unnoise.study.distances import Figure, kernel_of, mean_of
from unnoise.study.film import evenly
from unnoise.study.lab import Lab
from unnoise.study.leaderboard import features, saturation, variety
from unnoise.study.page import Lesson, Table, cheapest, grid

SCALES = (0.0, 1.0, 2.0, 3.0, 7.5, 20.0)
CURES = ("interval(low=0.3, high=8)", "rescale")
FRIED = (7.5, 20.0)  # scales at which the cures are tried
NAMES = {"plain": "", **{cure: f", {cure}" for cure in CURES}}  # how rows at these scales go on
COLUMNS = ("own caption first", "saturation", "variety", "KD-local")


def settings() -> dict[str, dict[str, Any]]:
    """The rows: {name: changes to the model's settings}."""
    rows: dict[str, dict[str, Any]] = {f"{scale:g}": {"cfg_scale": scale, "guidance": "cfg"} for scale in SCALES}
    rows |= {f"{scale:g}, {cure}": {"cfg_scale": scale, "guidance": cure} for scale in FRIED for cure in CURES}
    return rows


def study(lab: Lab) -> Lesson:
    """Draws every row with each seed, and names the lowest scale that is not measurably worse than the best."""
    real = features(lab.eyes, lab.real)  # a missing judge is reported before anything is drawn
    right, figures, frames = [], {}, []
    columns = evenly(len(lab.captions), 8)
    for name, changes in settings().items():
        pictures = torch.stack([lab.draw(seeds=lab.turns(turn), **changes).pixels for turn in range(lab.seeds)])
        right.append(torch.stack([lab.right(pixels) for pixels in pictures]).mean(0))
        figures[name] = measure(lab, pictures, right[-1], real)
        frames.append(pictures[0, columns])
    sweet = SCALES[cheapest(torch.stack(right[: len(SCALES)]), lab.seed)]
    rows = [[name, *values.values()] for name, values in figures.items()]
    note = (
        "Own caption first: among its candidates, under the judge. Saturation: of the ink, less that of the real "
        "pictures; frying shows there first. Variety: mean of 1 - cosine between seeds of one prompt, in the judge's "
        "features. KD-local: kernel distance to the real pictures of the prompts."
    )
    charts = [
        Chart(
            column,
            "guidance scale",
            column,
            [Series("cfg", [(s, f) for s in SCALES if (f := figures[f"{s:g}"][column])])],
        )
        for column in COLUMNS
        if any(figures[f"{s:g}"][column] for s in SCALES)
    ]
    return Lesson(
        "Guidance",
        [f"The lowest scale that follows the prompt not measurably worse than the best one: {sweet:g}.", cure(figures)],
        [Table(["scale", *COLUMNS], rows, note)],
        charts,
        grid(frames, [lab.captions[i] for i in columns], [f"scale {name}" for name in figures]),
        seeds=lab.seeds,
    )


def measure(lab: Lab, pictures: Tensor, right: Tensor, real: Tensor) -> dict[str, Figure | None]:
    """The columns of one row, from uint8 (S, P, 3, H, W), (P,) shares of seeds that were right, and (P, D)."""
    looks = torch.stack([features(lab.eyes, pixels) for pixels in pictures])  # (S, P, D)
    colour = torch.stack([saturation(pixels) for pixels in pictures]).mean(0) - saturation(lab.real)
    return {
        "own caption first": mean_of(right, lab.seed),
        "saturation": mean_of(colour, lab.seed),
        "variety": mean_of(variety(looks), lab.seed) if len(pictures) > 1 else None,
        "KD-local": kernel_of(looks[0], real, lab.seed),
    }


def cure(figures: Mapping[str, Mapping[str, Figure | None]]) -> str:
    """The effect of the cures at each scale that burns, in a sentence."""

    def effect(name: str) -> str:
        colour, own = figures[name]["saturation"], figures[name]["own caption first"]
        assert colour is not None
        assert own is not None
        return f"{colour.value:+.3f} at {own.value:.2f} of prompts right"

    rows = [f"{scale:g}, {kind}: {effect(f'{scale:g}{name}')}" for scale in FRIED for kind, name in NAMES.items()]
    return f"Saturation above the real pictures' at scale {'; '.join(rows)}."
