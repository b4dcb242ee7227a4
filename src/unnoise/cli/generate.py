"""``unnoise generate``: pictures for a prompt."""

from __future__ import annotations

import json
import secrets
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro

from unnoise.cli.output import ready_folder, save, slug
from unnoise.errors import UnnoiseError

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.core.sample import Step
    from unnoise.pipelines.start import Start
    from unnoise.pipelines.text_to_picture import Pipeline, Settings

BATCH = 16
MAX_COUNT = 10_000
STRIP_FRAMES, GIF_FRAMES = 12, 40


def generate(
    prompt: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")],
    negative: str = "",
    steps: int | None = None,
    cfg_scale: float | None = None,
    solver: str | None = None,
    spacing: str | None = None,
    guidance: str | None = None,
    noise: Literal["independent", "brownian"] | None = None,
    seed: int | None = None,
    count: int = 1,
    out: Path = Path("pictures"),
    start: Path | None = None,
    strength: float | None = None,
    mask: Path | None = None,
    invert: str | None = None,
    model: Path | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    threads: int | None = None,
    strip: bool = False,
    gif: bool = False,
    metadata: bool = True,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Draw pictures for a prompt. Picture i is drawn with seed + i, and depends on no other.

    Args:
        prompt: what to draw, in English.
        negative: what to steer away from.
        steps: solver steps; more is finer and slower. The model's default if left out.
        cfg_scale: how hard to steer by the prompt: 0 ignores it, 1 is plain, above 8 fries the picture.
        solver: the rule of one step, with settings in brackets: "ddim(eta=0.5)"; see `unnoise solvers`.
        spacing: which noise levels are visited, such as karras or "shifted(3)"; see `unnoise list spacings`.
        guidance: how to steer, such as "interval(rescale, high=8)"; see `unnoise list guidances`.
        noise: of solvers that draw it: anew for each step, or along one Brownian path, which more steps refine.
        seed: the same seed and settings give the same picture; chosen and printed if left out.
        count: how many pictures.
        out: the folder for PNG files; nothing in it is overwritten.
        start: a picture to start from in place of noise.
        strength: how much of the way to noise it is taken, 0.02 to 1; 0.6 if left out, 1 with a mask or --invert.
        mask: a picture as large as the start: what is light is drawn anew, what is dark stays.
        invert: what the start shows, in words: it is led back to its noise, and drawn from there with the prompt.
        model: a model folder or a finished training; the model that comes with unnoise if left out.
        device: cpu, cuda, or auto.
        dtype: precision of the computation; auto is what the device computes fastest.
        threads: processor threads.
        strip: also write each run as a film strip: the state, and below it the picture that is predicted from it.
        gif: also write each run as a moving picture of what is predicted.
        metadata: write into each PNG how it was made, which `unnoise replay` reads.
        as_json: print what was made as JSON on the standard output.
    """
    if not 1 <= count <= MAX_COUNT:
        raise UnnoiseError(f"--count {count} cannot be drawn", f"ask for 1 to {MAX_COUNT} pictures")
    if seed is not None and not 0 <= seed < 2**63:
        raise UnnoiseError(f"--seed {seed} is out of range", "choose it from 0 to 2^63 - 1")
    for text in (prompt, negative):
        if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
            raise UnnoiseError("the prompt has control characters", "remove line breaks and the like")
    seed = secrets.randbelow(2**31) if seed is None else seed

    from unnoise.pipelines.load import load_pipeline
    from unnoise.pipelines.metadata import run_record, to_png
    from unnoise.pipelines.words import warning

    pipeline = load_pipeline(model, device, dtype, threads)
    changes = {"steps": steps, "cfg_scale": cfg_scale, "solver": solver, "spacing": spacing, "guidance": guidance}
    changes["noise"] = noise
    settings = pipeline.settings(**changes)
    pipeline.tokenizer([prompt, negative])
    if pipeline.taught is not None and (note := warning(prompt, pipeline.taught)):
        print(note, file=sys.stderr)
    begin = begun(pipeline, start, strength, mask, invert, settings)
    started = time.perf_counter()
    record = run_record(pipeline, prompt, negative, settings)
    if begin is not None:
        record["start"] = {"strength": begin.strength, "mask": mask is not None, "invert": invert}
    made: list[dict[str, Any]] = []
    with ready_folder(out):
        for picture in draw(pipeline, prompt, negative, seed, count, settings, strip or gif, begin):
            own = {**record, "seed": picture.seed, "row": picture.row, "batch": picture.batch}
            stem = f"{slug(prompt)}-{picture.seed}"
            each = {
                "path": str(save(to_png(picture.image, own if metadata else None), out, stem)),
                "seed": picture.seed,
            }
            made.append(each | films(picture.frames, out, stem, strip, gif))
    seconds = time.perf_counter() - started
    if as_json:
        print(json.dumps({"pictures": made, **record, "seconds": round(seconds, 3)}))
        return
    for each in made:
        print(f"{each['path']}  seed {each['seed']}")
        for kind in {"strip", "gif"} & each.keys():
            print(each[kind])
    seeds = f"seed {seed}" if count == 1 else f"seeds {seed} to {seed + count - 1}"
    how = f"{settings.steps} steps of {settings.solver}, guidance {settings.cfg_scale:g}"
    print(f"{prompt}: {seeds}, {how}, {seconds:.1f} s")


def begun(
    pipeline: Pipeline,
    start: Path | None,
    strength: float | None,
    mask: Path | None,
    invert: str | None,
    settings: Settings,
) -> Start | None:
    """What the run starts from; None for noise.

    Raises:
        UnnoiseError: options that speak of a start where there is none, or pictures that cannot be read or do not fit.
    """
    from unnoise.data.square import open_picture
    from unnoise.pipelines.start import check_strength

    if start is None:
        given = {"--strength": strength, "--mask": mask, "--invert": invert}
        for option, value in given.items():
            if value is not None:
                raise UnnoiseError(f"{option} speaks of a picture to start from", "name it with --start")
        return None
    strength = strength if strength is not None else 1.0 if mask or invert is not None else 0.6
    check_strength(strength)
    begin = pipeline.start(open_picture(start), strength, open_picture(mask) if mask else None)
    return begin if invert is None else pipeline.invert(begin, invert, settings)


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
) -> Iterator[Drawn]:
    """Yields pictures, batch by batch, with a progress line on the standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from unnoise.study.film import evenly

    columns = (TextColumn("drawing"), BarColumn(None), TextColumn("{task.completed}/{task.total} steps  ETA"))
    console = Console(file=sys.stderr)
    hidden = not console.is_terminal
    kept = set(evenly(settings.steps, GIF_FRAMES)) if film else set()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden) as progress:
        batches = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
        task = progress.add_task("", total=settings.steps * len(batches))
        for batch in batches:
            moments: list[list[Frame]] = []
            for step in pipeline.run([prompt] * len(batch), [seed + i for i in batch], negative, settings, begin):
                progress.advance(task)
                last = step
                if step.index in kept:
                    moments.append(look(pipeline, step))
            for row, image in enumerate(pipeline.decode(last.run.x)):
                yield Drawn(image, seed + batch[row], row, len(batch), [moment[row] for moment in moments])


def look(pipeline: Pipeline, step: Step) -> list[Frame]:
    """The frames of all rows at one step."""
    caption = f"sigma {float(step.here.sigma):.2f}"
    states, predicted = pipeline.decode(step.x), pipeline.decode(step.estimate.x0)
    return [Frame(caption, *pair) for pair in zip(states, predicted, strict=True)]


def films(frames: Sequence[Frame], out: Path, stem: str, strip: bool, gif: bool) -> dict[str, str]:
    """Writes a run's film strip and moving picture where they were asked for; {what: path}."""
    import io

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
