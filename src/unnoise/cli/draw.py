"""What ``unnoise generate`` does between its requests and its files: pictures with a progress line, and films."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unnoise.cli.output import save
from unnoise.notes import progress

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.engine.engine import Engine
    from unnoise.engine.events import Finished, Stepped
    from unnoise.engine.request import Request

STRIP_FRAMES, GIF_FRAMES = 12, 40


class Frame(NamedTuple):
    """A moment of one picture's run: the state before a step, the picture predicted from it, and how noisy it is."""

    caption: str
    state: Image.Image
    predicted: Image.Image


class FinishedPicture(NamedTuple):
    """A finished picture, with the frames of its run where a film is wanted."""

    done: Finished
    frames: list[Frame]


def draw(
    engine: Engine,
    requests: Sequence[Request],
    sources: Mapping[str, Image.Image],
    strict: bool = False,
    film: bool = False,
) -> Iterator[FinishedPicture]:
    """Yields pictures in the order of their requests, with a progress line on the standard error.

    Args:
        engine, requests, sources, strict: as of ``Engine.draw``.
        film: keep frames of each run.

    Raises:
        UnnoiseError: a request cannot be drawn.
    """
    from unnoise.engine.engine import sound
    from unnoise.engine.events import Finished, Stepped
    from unnoise.study.film import evenly

    places = {request.steps: set(evenly(request.steps, GIF_FRAMES)) for request in requests} if film else {}
    frames: dict[int, list[Frame]] = {number: [] for number in range(len(requests))}
    done: dict[int, Finished] = {}
    handed = 0
    with progress("drawing", "steps") as line:
        task = line.add_task("", total=sum(steps_of(request) for request in requests))
        for event in sound(engine.draw(requests, sources, strict)):
            if isinstance(event, Stepped):
                line.advance(task)
                if event.index in places.get(event.request.steps, ()):
                    frames[event.number].append(look(event))
            elif isinstance(event, Finished):
                done[event.number] = event
            while handed in done:
                yield FinishedPicture(done.pop(handed), frames.pop(handed))
                handed += 1


def steps_of(request: Request) -> int:
    """How many steps a request takes, in all windows of a picture that grows."""
    from unnoise.engine.outpaint import windows

    if request.margins is None or request.size is None:
        return request.steps
    return request.steps * len(list(windows(request.margins, request.size)))


def look(event: Stepped) -> Frame:
    """The frame of one step."""
    return Frame(f"sigma {float(event.level.sigma):.2f}", event.noisy, event.picture)


def films(frames: Sequence[Frame], out: Path, stem: str, strip: bool, gif: bool) -> dict[str, str]:
    """Writes a run's film strip and moving picture, each where its option is on; {option: path}."""
    from unnoise.study import film

    paths = {}
    if strip:
        few = [frames[i] for i in film.evenly(len(frames), STRIP_FRAMES)]
        rows = [[frame.state for frame in few], [frame.predicted for frame in few]]
        data = io.BytesIO()
        names = ("the state, decoded as it is", "the picture predicted from it")
        film.strip(rows, [frame.caption for frame in few], names).save(data, "PNG")
        paths["strip"] = str(save(data.getvalue(), out, f"{stem}-strip"))
    if gif:
        paths["gif"] = str(save(film.gif([frame.predicted for frame in frames]), out, stem, ".gif"))
    return paths
