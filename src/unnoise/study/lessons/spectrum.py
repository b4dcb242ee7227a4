"""What is settled when: the power of the predicted picture at each step against the final picture's, coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unnoise.study.chart import Chart, Series
from unnoise.study.film import evenly
from unnoise.study.lab import Lab
from unnoise.study.leaderboard import decode
from unnoise.study.page import Lesson, Table, grid
from unnoise.study.spectrum import NAMES, compared

POINTS = 11


def study(lab: Lab) -> Lesson:
    """Runs the model, decodes the predicted pictures at some of its steps, and compares each with the last."""
    count = lab.engine.request("", steps=lab.steps).steps
    places = evenly(count, POINTS)
    frames = predictions(lab, places)
    pairs = [compared(frame, frames[-1]) for frame in frames]
    rows = [[k, *ratio.tolist()] for k, (ratio, _) in zip(places, pairs, strict=True)]
    wrong = [[k, *off.tolist()] for k, (_, off) in zip(places, pairs, strict=True)]
    note = "Power of the picture predicted at step k in each band (cycles a width), over that of the last prediction."
    other = (
        "Power of the difference between the two, over the same: 0 is settled, 1 is what a blank picture would have."
    )
    charts = [
        Chart(title, "step", up, [
            Series(f"{name} cycles", [(k, float(pair[which][band])) for k, pair in zip(places, pairs, strict=True)])
            for band, name in enumerate(NAMES)
        ])
        for which, (title, up) in enumerate(
            [("Power of the predicted picture", "of the final picture's"), ("What is still wrong", "of its power")]
        )
    ]  # fmt: skip
    rows_shown = evenly(len(lab.captions), 4)
    settled = [
        next((k for k, (_, off) in zip(places, pairs, strict=True) if off[band] < 0.1), count - 1) for band in (0, -1)
    ]
    return Lesson(
        "Coarse before fine",
        [
            f"Nine tenths of the coarsest band's power ({NAMES[0]} cycles) are settled by step {settled[0]}, of the "
            f"finest ({NAMES[-1]}) by step {settled[1]}, of {count}."
        ],
        [Table(["step", *NAMES], rows, note), Table(["step", *NAMES], wrong, other)],
        charts,
        grid([frames[:, i] for i in rows_shown], [f"step {k}" for k in places], [lab.captions[i] for i in rows_shown]),
    )


def predictions(lab: Lab, places: Sequence[int]) -> Tensor:
    """(points, P, 3, H, W) uint8: the pictures predicted at these steps of the runs."""

    def key(rows: slice) -> dict[str, object]:
        return {
            "watched": lab.captions[rows],
            "seeds": lab.turns()[rows],
            "places": [*places],
            "settings": lab.settings_line(),
        }

    def compute(rows: slice) -> dict[str, Tensor]:
        pairs = zip(lab.captions[rows], lab.turns()[rows], strict=True)
        requests = [lab.engine.request(caption, seed=seed, steps=lab.steps) for caption, seed in pairs]
        frames: list[list[Tensor]] = [[] for _ in requests]
        for event in lab.engine.draw(requests):
            if hasattr(event, "step") and event.index in places:
                frames[event.number].append(decode(lab.engine.model.autoencoder, event.step.estimate.x0)[0])
        return {"frames": torch.stack([torch.stack(each) for each in frames])}

    return lab.in_batches(len(lab.captions), key, compute)["frames"].transpose(0, 1)
