"""How many steps: quality and seconds by number of steps, for the main solvers, and where the curve's knee is."""

from __future__ import annotations

import torch
from torch import Tensor

from unnoise.core.registry import find
from unnoise.study.chart import Chart, Series
from unnoise.study.distances import Figure, kernel_of, mean_of
from unnoise.study.lab import Lab
from unnoise.study.leaderboard import features
from unnoise.study.page import Lesson, Table, Value, as_good, as_near, grid

COUNTS = (1, 2, 5, 10, 20, 50, 100, 250)
SOLVERS = ("euler", "euler-a", "heun", "dpmpp-2m", "unipc")


def study(lab: Lab) -> Lesson:
    """Draws with each solver and count, up to the lab's ``steps`` if set, and finds each solver's knee.

    Seconds are those of the first drawing, sixteen pictures at once: a picture's share of its batch's time.
    """
    counts = [count for count in COUNTS if lab.steps is None or count <= lab.steps] or [COUNTS[0]]
    real = features(lab.eyes, lab.real)
    rows: list[list[Value]] = []
    curves: dict[str, list[list[tuple[float, Figure]]]] = {"own caption first": [], "KD-local": []}
    knees, frames, names = [], [], []
    for solver in SOLVERS:
        drawings = [lab.draw(steps=count, solver=solver) for count in counts]
        right = torch.stack([lab.right(each.pixels) for each in drawings])  # (counts, P)
        own = [mean_of(each, lab.seed) for each in right]
        looks = [features(lab.eyes, each.pixels) for each in drawings]
        apart = [kernel_of(each, real, lab.seed) for each in looks]
        method = find("solvers", solver)
        for place, count in enumerate(counts):
            settled = None if method.stochastic else away(drawings[place].pixels, drawings[-1].pixels)
            seconds = float(drawings[place].seconds.median())
            rows.append([solver, count, own[place], apart[place], settled, seconds])
        curves["own caption first"].append(list(zip(counts, own, strict=True)))
        curves["KD-local"].append(list(zip(counts, apart, strict=True)))
        enough = [a and b for a, b in zip(as_good(right, lab.seed), as_near(looks, real, lab.seed), strict=True)]
        if any(enough):
            knee = enough.index(True)
            knees.append(f"{solver}: {counts[knee]}, {float(drawings[knee].seconds.median()):.2f} s a picture")
        else:
            knees.append(f"{solver}: none is both")
        names.append(solver)
        frames.append(torch.cat([each.pixels[:1] for each in drawings]))
    note = (
        "Own caption first: among its candidates, under the judge. KD-local: kernel distance to the real pictures. "
        f"Still to go: root mean square distance, in levels of 255, to the same solver's picture after {counts[-1]} "
        "steps; solvers that draw noise have none. Seconds: median of a picture's share of its batch's time."
    )
    charts = [
        Chart(name, "steps", name, [Series(s, points) for s, points in zip(SOLVERS, each, strict=True)], log=True)
        for name, each in curves.items()
    ]
    return Lesson(
        "Steps",
        [
            "Fewest steps that neither follow the prompt measurably worse than the solver's best nor draw measurably "
            f"farther from the real pictures than its nearest. {'; '.join(knees)}."
        ],
        [Table(["solver", "steps", "own caption first", "KD-local", "still to go", "seconds"], rows, note)],
        charts,
        grid(frames, [f"{count} step{'s' * (count > 1)}" for count in counts], names),
    )


def away(pixels: Tensor, last: Tensor) -> float:
    """Root mean square difference of two sets of uint8 pictures, in levels of 255."""
    return float((pixels.double() - last.double()).pow(2).mean().sqrt())
