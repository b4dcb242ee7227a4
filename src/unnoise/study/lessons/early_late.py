"""What early and late steps decide: the prompt swapped at step k, and guidance switched off after k.

It is often claimed that early steps fix the composition, and late ones the detail. The study measures both: whether the
swapped picture is nearer to the first or the second prompt's own picture, in long waves and in short waves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unnoise.core.level import NoiseLevel
from unnoise.core.notation import make
from unnoise.guidances.plain import Plain
from unnoise.study.chart import Chart, Series
from unnoise.study.distances import mean_of
from unnoise.study.film import evenly
from unnoise.study.lab import Lab, Steer
from unnoise.study.leaderboard import saturation
from unnoise.study.page import Lesson, Table, Value, grid, half
from unnoise.study.spectrum import COARSE, FINE, grey, power
from unnoise.study.switched import Instead, Switched

POINTS = 11


def study(lab: Lab) -> Lesson:
    """Draws each prompt A with the first k steps, and the rest with another prompt B or without guidance.

    B is the prompt half the list away, so that kinds are mixed. At k = 0 all is B's, after the last step all is A's:
    the curve's ends are its controls. The switch is at a noise level, so that it applies to a solver's calls
    between two levels too.
    """
    eyes = lab.eyes  # a missing judge is reported before anything is drawn
    request = lab.engine.request("", steps=lab.steps)
    levels = make("spacings", request.spacing).levels(
        lab.engine.model.denoiser.path,
        request.steps,
        tuple(lab.engine.model.autoencoder.space.shape(lab.real.shape[-1])),
    )
    places = evenly(len(levels), POINTS)
    turn = len(lab.captions) // 2
    others = lab.captions[turn:] + lab.captions[:turn]
    items = lab.prompts.items[turn:] + lab.prompts.items[:turn]
    vectors_a, vectors_b = (lab.vectors[list(each)] for each in (lab.prompts.items, items))
    rows: list[list[Value]] = []
    follow, own, coarse, fine, first, off, colour, frames = [], [], [], [], [], [], [], []

    def swapped_at(k: int) -> Tensor:
        return lab.draw(steer=swap(lab, others, levels[k]), note=f"prompt swapped at {k} for {others}").pixels

    ends = swapped_at(places[-1]), swapped_at(places[0])  # all A, and all B
    for k in places:
        swapped = swapped_at(k)
        plain = lab.draw(steer=let_go(levels[k]), note=f"guidance off after {k}").pixels
        frames.append(swapped)
        looks = eyes.pictures(swapped)
        follow.append(mean_of(follows(looks, vectors_a, vectors_b), lab.seed))
        wide, narrow = (nearer(swapped, *ends, bands) for bands in (COARSE, FINE))
        coarse.append(mean_of(wide, lab.seed))
        fine.append(mean_of(narrow, lab.seed))
        first.append(mean_of(wide - narrow, lab.seed))
        own.append(mean_of(lab.right(swapped), lab.seed))
        off.append(mean_of(lab.right(plain), lab.seed))
        colour.append(mean_of(saturation(plain) - saturation(lab.real), lab.seed))
        rows.append(
            [k, float(levels[k].sigma_hat), *(each[-1] for each in (follow, own, coarse, fine, first, off, colour))]
        )
    rows_shown = evenly(len(lab.captions), 3)
    at = [half(places, [each.value for each in curve]) for curve in (follow, coarse, fine)]
    note = (
        "sigma/alpha: the noise level at step k. Follows A: share of swapped pictures that the judge finds nearer to A "
        "than to B. A first: A's caption comes first among its candidates. Coarse, fine: share of swapped pictures "
        "that are nearer to what A alone draws of the same noise than to B's, in waves of at most 3 cycles a width, "
        "and of more than 6. Off: own caption first where nothing is swapped and guidance ends after k, and how much "
        "more saturated the ink then is than the real pictures'."
    )
    columns = ["k", "sigma/alpha", "follows A", "A first", "coarse", "fine", "coarse less fine"]
    columns += ["off: own first", "off: saturation"]
    charts = [
        Chart("Prompt A until step k, then B", "k", "share of pictures", [
            Series("nearer to A than B", list(zip(places, follow, strict=True))),
            Series("A first of 51", list(zip(places, own, strict=True))),
            Series("coarse waves as A's", list(zip(places, coarse, strict=True))),
            Series("fine waves as A's", list(zip(places, fine, strict=True))),
        ]),
        Chart("Guidance until step k, then none", "k", "share of pictures", [
            Series("own caption first", list(zip(places, off, strict=True))),
        ]),
    ]  # fmt: skip
    names = [f"{lab.captions[i]}, then {others[i]}" for i in rows_shown]
    return Lesson(
        "Early and late steps",
        [halves_line(at, len(levels) - 1)],
        [Table(columns, rows, note)],
        charts,
        grid([torch.stack([frame[i] for frame in frames]) for i in rows_shown], [f"k = {k}" for k in places], names),
    )


def halves_line(halves: Sequence[float], steps: int) -> str:
    """The steps at which the curves of all pictures, of coarse waves and of fine ones cross one half, in a sentence."""
    follow, coarse, fine = ("at none" if math.isnan(k) else f"once it has held for {k:.3g}" for k in halves)
    return (
        f"Half of the pictures follow the first prompt {follow} of {steps} steps; their coarse waves are its own "
        f"{coarse}, their fine ones {fine}."
    )


def nearer(pixels: Tensor, a: Tensor, b: Tensor, bands: slice) -> Tensor:
    """(P,) 1 if a picture differs less from its a than from its b, by power in some bands; one half if equally.

    Args:
        pixels, a, b: uint8 (P, 3, H, W).
    """
    far_a, far_b = (power(grey(pixels) - grey(each))[:, bands].sum(1) for each in (a, b))
    return (1 + torch.sign(far_b - far_a)) / 2


def swap(lab: Lab, others: Sequence[str], level: NoiseLevel) -> Steer:
    """The model's own guidance, with other prompts from a level on."""

    def steer(row: int, request: Any) -> Switched:
        return Switched(request.steer(), Instead(request.steer(), lab.engine.model.encode([others[row]])), level)

    return steer


def let_go(level: NoiseLevel) -> Steer:
    """The model's own guidance, and none from a level on."""
    return lambda row, request: Switched(request.steer(), Plain(), level)


def follows(looks: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(P,) 1 if a picture is nearer to caption A than to B, 0 if to B, one half if equally near.

    Args:
        looks, a, b: (P, D) unit vectors of pictures and of the two captions of each.
    """
    return (1 + torch.sign((looks * (a - b)).sum(1))) / 2
