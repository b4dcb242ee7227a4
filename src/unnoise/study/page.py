"""The result of a study: tables, curves and a sheet, and writing them as files."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageFont
from torch import Tensor

from unnoise.files import json_bytes, write_whole
from unnoise.pictures import to_images
from unnoise.study.chart import Chart, svg
from unnoise.study.distances import Figure, bootstrap, mean_of, pair_mean, paired_terms
from unnoise.study.film import strip
from unnoise.study.leaderboard import text_of

Value = Figure | float | int | str | None
SIDE = 80  # pixels of a picture on a sheet: details stay visible within a page's width


class Table(NamedTuple):
    """Rows of values under names; ``note`` says what the columns are."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    note: str = ""


class Lesson(NamedTuple):
    """The result of a study.

    Attributes:
        title: a heading.
        sentences: the conclusions, with their figures.
        tables, charts: of the figures.
        sheet: pictures to look at.
        key: a second page that must be kept separate from the first; none if empty.
        prompts: describes the prompts, if they are not the lab's own.
        settings: describes the settings, if they are not the lab's own.
        seeds: number of seeds, in studies that use several.
    """

    title: str
    sentences: Sequence[str]
    tables: Sequence[Table]
    charts: Sequence[Chart]
    sheet: Image.Image
    key: str = ""
    prompts: str = ""
    settings: str = ""
    seeds: int | None = None


def cell(value: Value) -> str:
    """A value as a table shows it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, Figure):
        return text_of(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def text(table: Table) -> str:
    """The table in Markdown, with its note below."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in table.rows]
    return "\n".join(lines) + (f"\n\n{table.note}" if table.note else "")


def write(out: Path, name: str, lesson: Lesson, facts: Mapping[str, str]) -> list[Path]:
    """Writes NAME.md, NAME.json, a NAME-1.svg for each chart, NAME.png, and NAME-key.md where there is a key.

    Raises:
        UnnoiseError: the folder cannot be written; a file that is begun is not left half-written.
    """
    image = io.BytesIO()
    lesson.sheet.quantize(256, dither=Image.Dither.NONE).save(image, "PNG", optimize=True)  # a quarter of the bytes
    parts = [f"# {lesson.title}", "\n".join(f"- {key}: {value}" for key, value in facts.items()), *lesson.sentences]
    parts += [text(table) for table in lesson.tables]
    parts += [f"![{chart.title}]({name}-{number}.svg)" for number, chart in enumerate(lesson.charts, 1)]
    parts.append(f"![what was drawn]({name}.png)")
    files = {
        f"{name}.md": ("\n\n".join(parts) + "\n").encode(),
        f"{name}.json": json_bytes(record(lesson, facts)),
        f"{name}.png": image.getvalue(),
        **{f"{name}-{number}.svg": svg(chart).encode() for number, chart in enumerate(lesson.charts, 1)},
    }
    if lesson.key:
        files[f"{name}-key.md"] = lesson.key.encode()
    for file, data in files.items():
        write_whole(out / file, data)
    return [out / file for file in files]


def record(lesson: Lesson, facts: Mapping[str, str]) -> dict[str, Any]:
    """The figures as JSON values."""

    def plain(value: Value) -> Any:
        return value._asdict() if isinstance(value, Figure) else value

    tables = [{"columns": t.columns, "rows": [[plain(v) for v in row] for row in t.rows]} for t in lesson.tables]
    return {"title": lesson.title, "facts": dict(facts), "found": list(lesson.sentences), "tables": tables}


def grid(rows: Sequence[Tensor], captions: Sequence[str], names: Sequence[str] = ()) -> Image.Image:
    """Rows of uint8 pictures (n, 3, H, W), a caption below each column and a name above each row; cut where too long.

    Captions may be fewer than columns, or none.
    """
    font = ImageFont.load_default(11)

    def cut(words: str) -> str:
        whole = words
        while font.getlength(words) > SIDE:
            words = words[:-1]
        return words if words == whole else words[:-2] + ".."

    images = [[image.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for image in to_images(row)] for row in rows]
    return strip(images, [cut(each) for each in captions], names)


def stacked(images: Sequence[Image.Image]) -> Image.Image:
    """Images one below the other, on white."""
    out = Image.new("RGB", (max(i.width for i in images), sum(i.height for i in images)), "white")
    top = 0
    for image in images:
        out.paste(image, (0, top))
        top += image.height
    return out


def cheapest(values: Tensor, seed: int = 0) -> int:
    """The first row that is not measurably worse than the best one; with few prompts it comes early.

    Args:
        values: (R, P) of P prompts in R settings, the cheapest first; more is better.
    """
    return as_good(values, seed).index(True)


def as_good(values: Tensor, seed: int = 0) -> list[bool]:
    """Which rows are not measurably worse than the best one, by their means.

    Rows share their prompts, so that what counts is the difference of each prompt's own values: those rows whose mean
    difference from the best row's has an interval that holds 0. With few prompts little is measurable.

    Args:
        values: (R, P) of P prompts in R settings; more is better.
    """
    best = int(values.double().mean(1).argmax())
    return [row == best or mean_of(values[best] - mine, seed).low <= 0 for row, mine in enumerate(values.double())]


def as_near(sets: Sequence[Tensor], real: Tensor, seed: int = 0) -> list[bool]:
    """Which sets of features are not measurably farther from the real ones than the nearest one, by KD-local.

    As in ``as_good``: sets share their prompts, and the difference from the nearest set's distance is resampled.

    Args:
        sets: (P, d) of P prompts each.
        real: (P, d) of the same prompts.
    """
    terms = [paired_terms(each, real) for each in sets]
    once = torch.ones(1, len(real), dtype=torch.float64)
    least = min(terms, key=lambda mine: float(pair_mean(mine, once)))

    def low(farther: Tensor) -> float:
        return bootstrap(lambda counts: pair_mean(farther, counts), len(real), seed).low

    return [mine is least or low(mine - least) <= 0 for mine in terms]


def half(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Where a falling or rising curve first crosses one half, between its points on a straight line; nan if nowhere."""
    for (x0, y0), (x1, y1) in pairwise(zip(xs, ys, strict=True)):
        if (y0 - 0.5) * (y1 - 0.5) <= 0 and y0 != y1:
            return x0 + (x1 - x0) * (0.5 - y0) / (y1 - y0)
    return math.nan
