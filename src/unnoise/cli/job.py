"""The job of ``unnoise generate``: which requests are drawn, and which files each of them becomes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.cli.draw import draw, films
from unnoise.cli.grid import Axis, cells
from unnoise.cli.nearest import find_nearest
from unnoise.cli.output import save, slug
from unnoise.cli.prompts import Prompt
from unnoise.engine.metadata import grid_to_png, record_of, to_png
from unnoise.errors import UnnoiseError
from unnoise.notes import say

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.engine.engine import Engine
    from unnoise.engine.request import Request
    from unnoise.study.nearest import Index

Result = tuple["Image.Image", dict[str, Any]]  # a picture, and its printed entry: path, seed and the rest


def check_prompts(engine: Engine, prompts: Sequence[Prompt], others: Sequence[Prompt], weights: bool) -> None:
    """Refuses prompts that the model cannot read, by their place, and names words that it was never taught.

    Args:
        others: prompts for what is not to be drawn, such as negative ones, whose unknown words are not reported.

    Raises:
        UnnoiseError: a prompt is too long, or a weight in it draws nothing.
    """
    texts = []
    for prompt in (*prompts, *others):
        try:
            texts.append(next(iter(engine.model.conditioner.read(prompt.text, weights).values())).text)
        except UnnoiseError as error:
            where = "" if prompt.where == "the prompt" else f"{prompt.where}: "
            raise UnnoiseError(f"{where}{error.what}", error.hint) from None
    for line in engine.model.remarks(texts[: len(prompts)]):
        say(line)


def steering(request: Request) -> str:
    """How a picture is steered, in a few words: by which guidance, and at which scale it really is."""
    scale = "" if request.scale is None else f"{request.scale:g}"
    if re.fullmatch(r"(cfg|classifier-free)\b(?![+-]).*", request.way.strip()):
        return f"guidance {scale}"
    return f"guidance {request.way}" + (f" at scale {scale}" if scale else "")


@dataclass(frozen=True)
class Job:
    """One call of the verb, its options checked.

    Attributes:
        engine: the one that draws.
        settings: fields of a request, as the options set them.
        sources: pictures that runs start from, and masks, by their SHA-256.
        out: the folder for files.
        metadata: write into each PNG how it was made.
        strict: draw each picture alone.
        strip, gif: also write the runs.
        index: training pictures to find the nearest in; None finds none.
        axes: of a grid; none for single pictures.
    """

    engine: Engine
    settings: Mapping[str, Any]
    sources: Mapping[str, Image.Image]
    out: Path
    metadata: bool = True
    strict: bool = False
    strip: bool = False
    gif: bool = False
    index: Index | None = None
    axes: tuple[Axis, ...] = ()

    def request(self, prompt: str, **cell: Any) -> Request:
        """The request for a picture, with what a cell of a grid changes.

        Raises:
            UnnoiseError: it cannot be drawn.
        """
        return self.engine.model.check(self.engine.request(prompt, **{**self.settings, **cell}))

    def prepare(self, prompt: str, seed: int) -> Request:
        """The first request, once every setting and picture has been tried, so that mistakes show before any work.

        Raises:
            UnnoiseError: a setting that cannot be drawn with, or a start that cannot be used.
        """
        from unnoise.engine.start import check_sources

        requests = [self.request(prompt, **cell) for row in cells(self.axes, seed) for cell in row]
        for size in sorted({request.size for request in requests if request.size is not None}):
            for line in self.engine.model.remarks((), size):
                say(line)
        if check_sources(requests[0], self.sources):
            say("note: the mask selects the whole picture: nothing of it stays")
        return requests[0]

    def how(self, first: Request) -> str:
        """How pictures are drawn, in a few words."""
        if self.axes:
            return "a grid of " + " by ".join(f"{len(axis.values)} {axis.name}" for axis in self.axes)
        return f"{first.steps} steps of {first.solver}, {steering(first)}"

    def run(self, prompt: str, seed: int, count: int) -> Iterator[Result]:
        """Draws the pictures of one prompt, and writes their files."""
        if self.axes:
            yield from (self._grid(prompt, seed + number) for number in range(count))
        else:
            first = self.request(prompt, seed=seed)
            yield from self._pictures([replace(first, seed=seed + number) for number in range(count)])

    def _pictures(self, requests: Sequence[Request]) -> Iterator[Result]:
        for done, frames in draw(self.engine, requests, self.sources, self.strict, self.strip or self.gif):
            stem = f"{slug(done.request.prompt)}-{done.request.seed}"
            record = record_of(self.engine.model, done) if self.metadata else None
            path = save(to_png(done.picture, record), self.out, stem)
            about: dict[str, Any] = {"path": str(path), "seed": done.request.seed}
            about |= films(frames, self.out, stem, self.strip, self.gif)
            if self.index is not None:
                about |= find_nearest(self.index, done.picture, 3, self.out, stem)
            yield done.picture, about

    def _grid(self, prompt: str, seed: int) -> Result:
        """One picture for each cell, drawn alone, so that its bits do not depend on the others."""
        from unnoise.study.film import table

        rows = cells(self.axes, seed)
        requests = [self.request(prompt, **cell) for row in rows for cell in row]
        results = [each.done for each in draw(self.engine, requests, self.sources, strict=True)]
        across = len(rows[0])
        images = [[each.picture for each in results[at : at + across]] for at in range(0, len(results), across)]
        image, boxes = table(images, *[axis.labels for axis in self.axes])
        axes = {axis.name: axis.values for axis in self.axes}
        records = [record_of(self.engine.model, each) for each in results]
        whole = list(zip(records, [box for row in boxes for box in row], strict=True))
        stem = f"{slug(prompt)}-grid" if "seed" in axes else f"{slug(prompt)}-{seed}-grid"
        path = save(grid_to_png(image, axes, whole if self.metadata else None), self.out, stem)
        about: dict[str, Any] = {"path": str(path)} | ({} if "seed" in axes else {"seed": seed})
        return image, about | {"grid": {name: list(values) for name, values in axes.items()}}
