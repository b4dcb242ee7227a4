"""What came out of time_to_quality.py: figures by the judge, tables, a plot and a sheet of pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from unnoise.cli.eval import load_judge, not_kin
from unnoise.data.cache import content_sha256, feature_key, load_or_compute
from unnoise.engine.engine import Engine
from unnoise.engine.load import model_folder
from unnoise.pictures import sheet
from unnoise.recipes.latent import weights_sha256
from unnoise.study.distances import Figure, kernel_of
from unnoise.study.leaderboard import after, decode, features, text_of

SHOWN = 10  # pictures in a row of the sheet


class Line(NamedTuple):
    """What a finished run came to.

    Attributes:
        name: of the run.
        setting: what it computed in.
        steps: of its optimiser.
        seconds: trained when it was measured, rising; the last are all of its time.
        errors: then, of the predicted noise, at each log-SNR.
        distances: KD-local by the seconds trained when the pictures were drawn; empty without a judge.
        pixels: uint8 (P, 3, H, W), drawn at the end; None without a judge.
    """

    name: str
    setting: str
    steps: int
    seconds: list[float]
    errors: list[list[float]]
    distances: dict[float, Figure]
    pixels: Tensor | None

    @property
    def means(self) -> list[float]:
        """The errors' means over log-SNR."""
        return [sum(row) / len(row) for row in self.errors]


class Verdict(NamedTuple):
    """One figure, the smaller the better, at the end of the runs.

    Attributes:
        figure: its name.
        values: of each run, in their order.
        best: the smallest of theirs.
        after: the part of their time after which our whole run had reached it; infinite if it has not.
        half: our half run's over ``best``; at most 1 where half the time is enough.
    """

    figure: str
    values: list[float]
    best: float
    after: float
    half: float


class Looks:
    """A judge's figures of what was drawn; the features of pictures are remembered in a folder.

    Args:
        judge: its folder.
        memory: the other folder.
        given: an engine whose autoencoder decodes.
        real: uint8 (P, 3, H, W), the pictures that should have been drawn.

    Raises:
        UnnoiseError: it is no judge, or grew up with the model.
    """

    def __init__(self, judge: Path, memory: Path, given: Engine, real: Tensor) -> None:
        self.eyes, self.memory, self.given, self.real = load_judge(model_folder(judge)), memory, given, real
        not_kin(self.eyes, given, "the default model")
        self.name = "/".join(weights_sha256(part) for part in (self.eyes.text, self.eyes.image, self.eyes.pair))
        self.wanted = self.of(real)

    def of(self, pixels: Tensor) -> Tensor:
        """(P, D) features of uint8 pictures."""
        key = feature_key(content_sha256({"pixels": pixels}), {"what": "looks"}, self.name)
        return load_or_compute(self.memory, key, lambda: {"looks": features(self.eyes, pixels)})["looks"]

    def distance(self, latents: Tensor) -> tuple[Figure, Tensor]:
        """KD-local to the real pictures of the same prompts, and the pictures."""
        pixels = decode(self.given.model.autoencoder, latents)
        return kernel_of(self.of(pixels), self.wanted), pixels

    def ceiling(self) -> Figure:
        """KD-local of the real pictures after the autoencoder: no denoiser behind it can do better."""
        return kernel_of(self.of(after(self.given.model.autoencoder, self.real)), self.wanted)


def reached(seconds: Sequence[float], values: Sequence[float], goal: float) -> float:
    """When a figure first was at ``goal`` or below, linear between measurements; infinite if it never was.

    One that was there at the first measurement already was there at that time or sooner; that time is given.
    """
    before: tuple[float, float] | None = None
    for now, value in zip(seconds, values, strict=True):
        if value <= goal:
            if before is None:
                return now
            then, higher = before
            return then + (now - then) * (higher - goal) / (higher - value)
        before = now, value
    return math.inf


def verdicts(theirs: Sequence[Line], half: Line, whole: Line, log_snrs: Sequence[float]) -> list[Verdict]:
    """Every log-SNR, their mean, and KD-local where it was judged. Theirs may win each with another learning rate."""

    def verdict(figure: str, curves: Sequence[tuple[list[float], list[float]]]) -> Verdict:
        last = [values[-1] for _, values in curves]
        best = min(last[: len(theirs)])
        part = reached(*curves[-1], best) / theirs[0].seconds[-1]
        return Verdict(figure, last, best, part, last[-2] / best if best > 0 else math.nan)

    every = [*theirs, half, whole]
    found = [
        verdict(f"log-SNR {level:g}", [(line.seconds, [row[place] for row in line.errors]) for line in every])
        for place, level in enumerate(log_snrs)
    ]
    found.append(verdict("mean", [(line.seconds, line.means) for line in every]))
    if all(line.distances for line in every):
        curves = [(list(line.distances), [f.value for f in line.distances.values()]) for line in every]
        found.append(verdict("KD-local", curves))
    return found


def final_table(lines: Sequence[Line], found: Sequence[Verdict]) -> str:
    """Each figure at the end of each run, and when ours was where theirs ended; then the row in which ours is last."""
    first = min(lines[-1].seconds) / max(lines[0].seconds)
    rows = [
        "| figure | "
        + " | ".join(line.name for line in lines)
        + " | ours is there after, of the time | half / best of theirs |",
        "|---" * (len(lines) + 3) + "|",
    ]
    for each in found:
        when = f"{'at most ' if each.after <= first else ''}{each.after:.2f}" if each.after < math.inf else "never"
        values = " | ".join(f"{value:.4f}" for value in each.values)
        rows.append(f"| {each.figure} | {values} | {when} | {each.half:.3f} |")
    worst = max(found, key=lambda each: (each.after, each.half))
    when = f"after {worst.after:.2f} of the time" if worst.after < math.inf else "not reached"
    return "\n".join([*rows, "", f"worst row: {worst.figure}, {when}, half / best {worst.half:.3f}"])


def course_table(lines: Sequence[Line]) -> str:
    """Each run on its way: what it computed in, its steps, the mean error and KD-local where pictures were drawn."""
    rows = ["| run | setting | steps | ms a step | mean error after s | KD-local after s |\n|---|---|---|---|---|---|"]
    for line in lines:
        errors = ", ".join(f"{s:.0f}: {value:.4f}" for s, value in zip(line.seconds, line.means, strict=True))
        looks = ", ".join(f"{s:.0f}: {text_of(figure)}" for s, figure in line.distances.items())
        pace = 1e3 * line.seconds[-1] / line.steps
        rows.append(f"| {line.name} | {line.setting} | {line.steps} | {pace:.0f} | {errors} | {looks or '-'} |")
    return "\n".join(rows)


def plot(lines: Sequence[Line], log_snrs: Sequence[float], out: Path) -> None:
    """The error at the end by log-SNR, and mean error and KD-local against the time trained."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    judged = all(line.distances for line in lines)
    figure, axes = plt.subplots(1, 3 if judged else 2, figsize=(13 if judged else 9, 4.2))
    for line in lines:
        style = {"linestyle": "-" if line.name.startswith("unnoise") else "--", "marker": "o", "markersize": 3}
        axes[0].plot(log_snrs, line.errors[-1], label=line.name, **style)
        axes[1].plot(line.seconds, line.means, **style)
        if judged:
            axes[2].plot(list(line.distances), [f.value for f in line.distances.values()], **style)
    axes[0].set(yscale="log", xlabel="log(alpha / sigma)", ylabel="squared error of the noise, at the end")
    axes[1].set_ylabel("its mean over log-SNR")
    if judged:
        axes[2].set_yscale("symlog", linthresh=1e-3)  # it is unbiased, and may come out below zero
        axes[2].set_ylabel("KD-local")
    axes[0].legend(fontsize=8)
    ticks = [lines[0].seconds[-1] / part for part in (8, 4, 2, 1)]
    for each in axes[1:]:
        each.set(xscale="log", xlabel="seconds of training")
        each.minorticks_off()
        each.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    for each in axes:
        each.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, dpi=100)


def pictures(lines: Sequence[Line], real: Tensor) -> Tensor:
    """uint8 (rows * n, 3, h, w) for a sheet, at half their size: what was asked for, then each run's last pictures."""
    count = min(SHOWN, len(real))
    places = [place * len(real) // count for place in range(count)]
    rows = [real, *(line.pixels for line in lines if line.pixels is not None)]
    shown = torch.cat([row[places] for row in rows])
    return F.avg_pool2d(shown.float(), 2).round().to(torch.uint8)


def report(lines: Sequence[Line], log_snrs: Sequence[float], looks: Looks | None, out: Path | None) -> None:
    """Prints the tables; with ``out`` draws the plot, and beside it the sheet where there was a judge.

    Args:
        lines: theirs, our half run and our whole one, in this order.
    """
    *theirs, half, whole = lines
    print(final_table(lines, verdicts(theirs, half, whole, log_snrs)), course_table(lines), sep="\n\n", flush=True)
    if looks is not None:
        print(f"\nKD-local of the real pictures after the autoencoder: {text_of(looks.ceiling())}")
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    plot(lines, log_snrs, out)
    if looks is not None:
        places = min(SHOWN, len(looks.real))
        sheet(pictures(lines, looks.real), places).save(out.with_name(f"{out.stem}-pictures.png"), optimize=True)
