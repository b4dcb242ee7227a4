"""What ``unnoise generate`` was asked to do: how its pictures are drawn, and which files each of them becomes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.cli.draw import Given, draw, films, grow
from unnoise.cli.grid import SETTINGS, Axis, cells
from unnoise.cli.nearest import listed
from unnoise.cli.output import save, slug
from unnoise.cli.prompts import Prompt
from unnoise.engine import emphasis
from unnoise.engine.metadata import grid_to_png, run_record, to_png
from unnoise.engine.start import check_strength
from unnoise.engine.words import warning
from unnoise.errors import UnnoiseError
from unnoise.notes import say

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.engine.outpaint import Margins
    from unnoise.engine.settings import Settings
    from unnoise.engine.start import Start
    from unnoise.engine.text_to_picture import Pipeline
    from unnoise.study.nearest import Index

Made = tuple["Image.Image", dict[str, Any]]  # a picture, and what is told of it: its path, its seed and the rest


def check_prompts(pipeline: Pipeline, prompts: Sequence[Prompt], others: Sequence[Prompt], weights: bool) -> None:
    """Refuses prompts that the model cannot read, by their place, and names words that it was never taught.

    Args:
        others: what is not to be drawn, of which no words are named: negative prompts and the like.

    Raises:
        UnnoiseError: a prompt is too long, or a weight in it draws nothing.
    """
    texts = []
    for prompt in (*prompts, *others):
        try:
            texts.append(emphasis.plain(prompt.text) if weights else prompt.text)
            pipeline.tokenizer(texts[-1:])
        except UnnoiseError as error:
            where = "" if prompt.where == "the prompt" else f"{prompt.where}: "
            raise UnnoiseError(f"{where}{error.what}", error.hint) from None
    if pipeline.taught is not None and (note := warning(" ".join(texts[: len(prompts)]), pipeline.taught)):
        say(note)


def steering(settings: Settings) -> str:
    """How pictures are steered, in a few words: by which guidance, and at which scale it really is."""
    scale = "" if settings.scale is None else f"{settings.scale:g}"
    if re.fullmatch(r"(cfg|classifier-free)\b(?![+-]).*", str(settings.guidance).strip()):
        return f"guidance {scale}"
    return f"guidance {settings.guidance}" + (f" at scale {scale}" if scale else "")


def tell_of_mask(begin: Start | None) -> None:
    """Says on the standard error that a mask keeps nothing."""
    if begin is not None and begin.draws_all:
        say("note: the mask selects the whole picture: nothing of it stays")


@dataclass(frozen=True)
class Job:
    """One call of the verb, its options checked.

    Attributes:
        pipeline: what draws.
        changes: settings that were given, as ``Pipeline.settings`` takes them.
        negative: what to steer away from.
        given: what the runs start from.
        out: the folder for files.
        metadata: write into each PNG how it was made.
        strict: draw each picture alone.
        strip, gif: also write the runs.
        index: training pictures to find the nearest in; None finds none.
        axes: of a grid; none for single pictures.
        margins: what the start is grown by; None draws pictures of the model's size.
    """

    pipeline: Pipeline
    changes: Mapping[str, Any]
    negative: str
    given: Given
    out: Path
    metadata: bool = True
    strict: bool = False
    strip: bool = False
    gif: bool = False
    index: Index | None = None
    axes: tuple[Axis, ...] = ()
    margins: Margins | None = None

    @cached_property
    def settings(self) -> Settings:
        """Of single pictures, and of a grid where its axes say nothing else."""
        return self.pipeline.settings(**self.changes)

    @cached_property
    def begin(self) -> Start | None:
        """What single pictures start from."""
        return self.given.begin(self.pipeline, self.settings)

    def prepare(self, seed: int) -> None:
        """Tries every setting and opens every picture, so that mistakes are told before any work.

        Raises:
            UnnoiseError: a setting that cannot be run, or a start that cannot be used.
        """
        if not self.axes:
            tell_of_mask(self.begin)
            return
        rows = cells(self.axes, seed)
        for cell in (cell for row in rows for cell in row):
            self.of_cell(cell)
            if "strength" in cell:
                check_strength(cell["strength"])
        tell_of_mask(self._begin(rows[0][0]))

    def of_cell(self, cell: Mapping[str, Any]) -> Settings:
        """The settings of one picture of a grid."""
        own = {name.replace("-", "_"): cell[name] for name in SETTINGS if name in cell}
        return self.pipeline.settings(**{**self.changes, **own})

    def _begin(self, cell: Mapping[str, Any]) -> Start | None:
        return self.given.begin(self.pipeline, self.of_cell(cell), cell.get("strength"))

    def record(self, prompt: str, settings: Settings, begin: Start | None = None) -> dict[str, Any]:
        """What is the same for all pictures of one run."""
        record = run_record(self.pipeline, prompt, self.negative, settings)
        if begin is not None:
            record["start"] = self.given.told(strength=begin.strength)
        return record

    def how(self) -> str:
        """How pictures are drawn, in a few words."""
        if self.axes:
            return "a grid of " + " by ".join(f"{len(axis.values)} {axis.name}" for axis in self.axes)
        return f"{self.settings.steps} steps of {self.settings.solver}, {steering(self.settings)}"

    def run(self, prompt: str, seed: int, count: int) -> Iterator[Made]:
        """Draws what was asked for of one prompt, and writes its files."""
        if self.margins is not None:
            yield from (self._grown(prompt, seed + number, self.margins) for number in range(count))
        elif self.axes:
            yield from (self._grid(prompt, seed + number) for number in range(count))
        else:
            yield from self._pictures(prompt, seed, count)

    def _pictures(self, prompt: str, seed: int, count: int) -> Iterator[Made]:
        record = self.record(prompt, self.settings, self.begin)
        film = self.strip or self.gif
        how = (self.pipeline, prompt, self.negative, seed, count, self.settings, film, self.begin, self.strict)
        for picture in draw(*how):
            own = {**record, "seed": picture.seed, "row": picture.row, "batch": picture.batch}
            stem = f"{slug(prompt)}-{picture.seed}"
            path = save(to_png(picture.image, own if self.metadata else None), self.out, stem)
            told = {"path": str(path), "seed": picture.seed}
            told |= films(picture.frames, self.out, stem, self.strip, self.gif)
            if self.index is not None:
                told |= listed(self.index, picture.image, 3, self.out, stem)
            yield picture.image, told

    def _grown(self, prompt: str, seed: int, by: Margins) -> Made:
        from unnoise.data.square import open_picture

        assert self.given.start is not None
        picture = open_picture(self.given.start)
        image = grow(self.pipeline, prompt, self.negative, seed, self.settings, picture, by)
        record = {**self.record(prompt, self.settings), "start": self.given.told(outpaint=by._asdict())}
        record |= {"seed": seed, "row": 0, "batch": 1}
        path = save(to_png(image, record if self.metadata else None), self.out, f"{slug(prompt)}-{seed}")
        return image, {"path": str(path), "seed": seed}

    def _grid(self, prompt: str, seed: int) -> Made:
        from unnoise.study.film import table

        images: list[list[Image.Image]] = []
        records = []
        for row in cells(self.axes, seed):
            images.append([])
            for cell in row:
                settings, begin = self.of_cell(cell), self._begin(cell)
                (drawn,) = draw(self.pipeline, prompt, self.negative, cell["seed"], 1, settings, False, begin)
                images[-1].append(drawn.image)
                records.append({**self.record(prompt, settings, begin), "seed": drawn.seed, "row": 0, "batch": 1})
        labels = [axis.labels for axis in self.axes]
        image, boxes = table(images, *labels)
        axes = {axis.name: axis.values for axis in self.axes}
        whole = list(zip(records, [box for row in boxes for box in row], strict=True))
        stem = f"{slug(prompt)}-grid" if "seed" in axes else f"{slug(prompt)}-{seed}-grid"
        path = save(grid_to_png(image, axes, whole if self.metadata else None), self.out, stem)
        told = {"path": str(path)} | ({} if "seed" in axes else {"seed": seed})
        return image, told | {"grid": {name: list(values) for name, values in axes.items()}}
