"""What ``unnoise generate`` does between its options and its files: starts, batches, films."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unnoise.cli.output import save
from unnoise.errors import UnnoiseError
from unnoise.notes import progress

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.core.sample import Step
    from unnoise.engine.outpaint import Margins
    from unnoise.engine.settings import Settings
    from unnoise.engine.start import Start
    from unnoise.engine.text_to_picture import Pipeline

STRIP_FRAMES, GIF_FRAMES = 12, 40


class Given(NamedTuple):
    """The options that speak of a picture to start from, as they were given."""

    start: Path | None = None
    strength: float | None = None
    mask: Path | None = None
    invert: str | None = None

    def told(self, **how: Any) -> dict[str, Any]:
        """What a record says of the start: ``how`` it was used, and what identifies the pictures, which it lacks."""
        from unnoise.data.square import open_picture, open_unchanged
        from unnoise.engine.masks import identity
        from unnoise.engine.settings import RULES
        from unnoise.pictures import pixels_sha256

        assert self.start is not None
        mask = identity(open_unchanged(self.mask), RULES) if self.mask else None
        return {**how, "invert": self.invert, "mask": mask, "sha256": pixels_sha256(open_picture(self.start))}

    def begin(self, pipeline: Pipeline, settings: Settings, strength: float | None = None) -> Start | None:
        """What a run starts from; None for noise.

        Args:
            strength: in place of the one that was given.

        Raises:
            UnnoiseError: options that speak of a start where there is none, or pictures that cannot be read or do not
                fit.
        """
        from unnoise.data.square import open_picture, open_unchanged
        from unnoise.engine.start import check_strength

        strength = self.strength if strength is None else strength
        if self.start is None:
            given = {"--strength": strength, "--mask": self.mask, "--invert": self.invert}
            for option, value in given.items():
                if value is not None:
                    raise UnnoiseError(f"{option} speaks of a picture to start from", "name it with --start")
            return None
        strength = 1.0 if strength is None and self.invert is not None else strength
        if strength is not None:
            check_strength(strength)
        mask = open_unchanged(self.mask) if self.mask else None
        begin = pipeline.start(open_picture(self.start), strength, mask, settings.rules)
        return begin if self.invert is None else pipeline.invert(begin, self.invert, settings)


class Frame(NamedTuple):
    """A moment of one picture's run: the state before a step, the picture predicted from it, and how noisy it is."""

    caption: str
    state: Image.Image
    predicted: Image.Image


class Drawn(NamedTuple):
    """A finished picture, its place in the batch that it was drawn in, and its run where that was asked for."""

    image: Image.Image
    seed: int
    row: int
    batch: int
    frames: list[Frame]


def draw(
    pipeline: Pipeline,
    prompt: str,
    negative: str,
    seed: int,
    count: int,
    settings: Settings,
    film: bool = False,
    begin: Start | None = None,
    strict: bool = False,
) -> Iterator[Drawn]:
    """Yields pictures, batch by batch, with a progress line on the standard error.

    Args:
        seed: of the first; picture i has seed + i.
        film: keep frames of each run.
        begin: what the runs start from; None for noise.
        strict: each picture in a batch of its own.
    """
    from unnoise.engine.text_to_picture import batches
    from unnoise.study.film import evenly

    kept = set(evenly(settings.steps, GIF_FRAMES)) if film else set()
    with progress("drawing", "steps") as line:
        parts = batches(count, strict)
        task = line.add_task("", total=settings.steps * len(parts))
        for batch in parts:
            moments: list[list[Frame]] = []
            for step in pipeline.run([prompt] * len(batch), [seed + i for i in batch], negative, settings, begin):
                line.advance(task)
                last = step
                if step.index in kept:
                    moments.append(look(pipeline, step, begin))
            for row, image in enumerate(pipeline.decode(last.run.x, begin)):
                yield Drawn(image, seed + batch[row], row, len(batch), [moment[row] for moment in moments])


def grow(
    pipeline: Pipeline, prompt: str, negative: str, seed: int, settings: Settings, picture: Image.Image, by: Margins
) -> Image.Image:
    """A picture grown beyond its borders, with a progress line on the standard error."""
    from unnoise.engine.outpaint import outpaint, window_fill, windows
    from unnoise.engine.text_to_picture import SIZE

    with progress("drawing", "steps") as line:
        task = line.add_task("", total=settings.steps * len(list(windows(by, SIZE))))
        fill = window_fill(pipeline, prompt, seed, negative, settings, lambda step: line.advance(task))
        return outpaint(picture, by, SIZE, fill)


def look(pipeline: Pipeline, step: Step, begin: Start | None = None) -> list[Frame]:
    """The frames of all rows at one step of a run from ``begin``."""
    caption = f"sigma {float(step.here.sigma):.2f}"
    states, predicted = pipeline.decode(step.x), pipeline.decode(step.estimate.x0, begin)
    return [Frame(caption, *pair) for pair in zip(states, predicted, strict=True)]


def films(frames: Sequence[Frame], out: Path, stem: str, strip: bool, gif: bool) -> dict[str, str]:
    """Writes a run's film strip and moving picture where they were asked for; {what: path}."""
    from unnoise.study import film

    made = {}
    if strip:
        few = [frames[i] for i in film.evenly(len(frames), STRIP_FRAMES)]
        rows = [[frame.state for frame in few], [frame.predicted for frame in few]]
        data = io.BytesIO()
        names = ("the state, decoded as it is", "the picture predicted from it")
        film.strip(rows, [frame.caption for frame in few], names).save(data, "PNG")
        made["strip"] = str(save(data.getvalue(), out, f"{stem}-strip"))
    if gif:
        made["gif"] = str(save(film.gif([frame.predicted for frame in frames]), out, stem, ".gif"))
    return made
