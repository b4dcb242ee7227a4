"""``unnoise generate``: pictures for a prompt."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from unnoise.cli.like import Followed
from unnoise.cli.output import ready_folder
from unnoise.cli.prompts import Prompt, checked, read_prompts
from unnoise.core import checks
from unnoise.errors import UnnoiseError, one_line
from unnoise.notes import say, tell

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.engine.outpaint import Margins

SHOWN = 16  # pictures that a terminal is shown


def generate(
    prompt: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")] = None,
    prompts: Path | None = None,
    like: Path | None = None,
    negative: str | None = None,
    literal: bool = False,
    steps: int | None = None,
    cfg_scale: float | None = None,
    solver: str | None = None,
    spacing: str | None = None,
    guidance: str | None = None,
    noise: Literal["independent", "brownian"] | None = None,
    seed: int | None = None,
    count: int = 1,
    strict: bool = False,
    grid: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SETTING=A,B,C")] = (),
    out: Path = Path("pictures"),
    start: Path | None = None,
    strength: float | None = None,
    mask: Path | None = None,
    invert: str | None = None,
    outpaint: str | None = None,
    model: Path | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    compiled: Annotated[bool, tyro.conf.arg(name="compile")] = False,
    threads: int | None = None,
    strip: bool = False,
    gif: bool = False,
    nearest: bool = False,
    show: bool = False,
    metadata: bool = True,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Draw pictures for a prompt. Picture i is drawn with seed + i, and depends on no other.

    Args:
        prompt: what to draw, in English; "(red:1.3) apple" wants more red, "[red] apple" less.
        prompts: a file with a prompt on each line, # before comments; - reads the standard input.
        like: a picture of unnoise or of another tool, or a JSON file of settings: what is not given is taken from it.
        negative: what to steer away from.
        literal: take brackets in prompts as text.
        steps: solver steps; more is finer and slower. The model's default if left out.
        cfg_scale: how hard to steer by the prompt: 0 ignores it, 1 is plain, from about 7 on it fries the picture.
        solver: the rule of one step, with settings in brackets: "ddim(eta=0.5)"; see `unnoise solvers`.
        spacing: which noise levels are visited, such as karras or "shifted(3)"; see `unnoise list spacings`.
        guidance: how to steer, such as "interval(rescale, high=8)"; see `unnoise list guidances`.
        noise: of solvers that draw it: anew for each step, or along one Brownian path, which more steps refine.
        seed: the same seed and settings give the same picture; chosen and printed if left out.
        count: how many pictures of each prompt.
        strict: draw each picture alone, so that its bits do not depend on how many there are; slower.
        grid: one picture for each value of a setting, such as steps=5,10,20; given twice, for each pair of values.
        out: the folder for PNG files; nothing in it is overwritten.
        start: a picture to start from in place of noise.
        strength: how much of the way to noise it is taken, 0.02 to 1; 0.6 if left out, 1 with a mask or --invert.
        mask: a picture as large as the start: what is white, or painted on clear, is drawn anew; the rest stays.
        invert: what the start shows, in words: it is led back to its noise, and drawn from there with the prompt.
        outpaint: grow the start beyond its borders: "64" pixels a side, or "right=64,top=32".
        model: a model folder or a finished training; the model that comes with unnoise if left out.
        device: cpu, cuda, or auto.
        dtype: precision of the computation; auto is what the device computes fastest.
        compiled: compile the network for this machine, half a minute for each size of a batch: for many pictures.
        threads: processor threads.
        strip: also write each run as a film strip: the state, and below it the picture that is predicted from it.
        gif: also write each run as a moving picture of what is predicted.
        nearest: also find, write and print the training pictures that each picture is nearest to.
        show: also show the pictures in the terminal.
        metadata: write into each PNG how it was made, which `unnoise replay` reads.
        as_json: print what was made as JSON on the standard output.
    """
    from unnoise.cli import grid as grids
    from unnoise.cli import terminal

    checks.whole("--count", count, 1, checks.PICTURES)
    if seed is not None:
        checks.seed("--seed", seed, count)
    said = {"steps": steps, "cfg-scale": cfg_scale, "solver": solver, "spacing": spacing, "guidance": guidance}
    said |= {"noise": noise, "seed": seed, "strength": strength, "count": None if count == 1 else count}
    axes = grids.parse(grid)
    grids.check(axes, said, {"--strip": strip, "--gif": gif, "--nearest": nearest})
    followed = None if like is None else Followed.read(like)
    if followed is not None:
        words = {"prompt": prompt if prompts is None else "", "negative": negative}
        plain = start is not None and mask is None and invert is None and outpaint is None
        taken = followed.take(said | words, [axis.name for axis in axes], plain)
        prompt, negative = taken.get("prompt", prompt), taken.get("negative", negative)
        literal = followed.literal(literal)
        seed, strength = taken.get("seed", seed), taken.get("strength", strength)
        said |= {name: taken[name] for name in grids.SETTINGS if name in taken}
        checks.seed(f"the seed of {like}", seed or 0, count)
    margins = None if outpaint is None else margins_of(outpaint, start)
    if margins is not None:
        other = {"--strength": strength, "--mask": mask, "--invert": invert, "--grid": grid or None}
        other |= {"--strip": strip or None, "--gif": gif or None, "--nearest": nearest or None}
        for option in (option for option, value in other.items() if value is not None):
            raise UnnoiseError(f"{option} and --outpaint do not go together", "leave one of them out")
    if show and as_json:
        raise UnnoiseError("--show and --json both want the standard output", "leave one of them out")
    way = terminal.choose(os.environ, sys.stdout) if show else None
    wanted = read_prompts(prompt, prompts)
    negative = checked(Prompt(negative or "", "--negative")).text
    invert = None if invert is None else checked(Prompt(invert, "--invert")).text
    if len(wanted) * count > checks.PICTURES:
        what = f"{len(wanted)} prompts with {count} pictures each are too many"
        raise UnnoiseError(what, f"{checks.PICTURES} at most")
    seed = secrets.randbelow(2**31) if seed is None else seed

    from unnoise.cli.draw import Given
    from unnoise.cli.job import Job, check_prompts
    from unnoise.cli.nearest import training_pictures
    from unnoise.engine.load import load_pipeline

    pipeline = load_pipeline(model, device, dtype, threads, compiled)
    changes = {name.replace("-", "_"): said[name] for name in grids.SETTINGS} | {"weights": not literal}
    given = Given(start, strength, mask, invert)
    if followed is not None:
        negative = followed.fit(pipeline, negative, not literal)
    check_prompts(pipeline, wanted, [Prompt(negative, "--negative"), Prompt(invert or "", "--invert")], not literal)
    index = training_pictures(model) if nearest else None
    job = Job(pipeline, changes, negative, given, out, metadata, strict, strip, gif, index, tuple(axes), margins)
    started = time.perf_counter()
    made: list[dict[str, Any]] = []
    shown: list[Image.Image] = []
    job.prepare(seed)
    if followed is not None:
        say("\n".join(followed.report(job.settings, cfg_scale)))
    if compiled:
        say("compiling the network as its first calls come: half a minute for each size of a batch")
    with ready_folder(out):
        for each in wanted:
            for image, told in job.run(each.text, seed, count):
                made.append(told | ({"prompt": each.text} if len(wanted) > 1 else {}))
                shown = [*shown, image][: SHOWN if way else 0]
    seconds = time.perf_counter() - started
    if as_json:
        record = job.record(wanted[0].text, job.settings)
        if len(wanted) > 1:
            del record["prompt"]
        for axis in axes:  # what differs from cell to cell stands in no one place
            for name in ("cfg-scale", "guidance") if axis.name in ("cfg-scale", "guidance") else (axis.name,):
                record.pop(name.replace("-", "_"), None)
        more = {} if followed is None else {"like": followed.told()}
        print(json.dumps({"pictures": made, **record, **more, "seconds": round(seconds, 3)}))
        return
    list_made(made)
    if way:
        from unnoise.pictures import sheet

        terminal.show(shown[0] if len(shown) == 1 else sheet(shown), way)
    what = wanted[0].text if len(wanted) == 1 else f"{len(wanted)} prompts"
    what = what if followed is None else one_line(what)
    seeds = f"seed {seed}" if count == 1 else f"seeds {seed} to {seed + count - 1}"
    seeds = "seeds of the grid" if any(axis.name == "seed" for axis in axes) else seeds
    tell(f"{what}: {seeds}, {job.how()}, {seconds:.1f} s")


def margins_of(outpaint: str, start: Path | None) -> Margins:
    """What ``--outpaint`` asks for.

    Raises:
        UnnoiseError: it names no margins, or there is nothing to grow.
    """
    from unnoise.engine.outpaint import margins

    if start is None:
        raise UnnoiseError("--outpaint speaks of a picture to start from", "name it with --start")
    return margins(outpaint)


def list_made(made: list[dict[str, Any]]) -> None:
    """Prints where pictures lie, and what they are nearest to."""
    from unnoise.cli.nearest import lines

    for each in made:
        first = f"{each['path']}  " + ("grid" if "grid" in each else f"seed {each['seed']}")
        tell("\n".join([first, *(each[kind] for kind in ("strip", "gif") if kind in each), *lines(each)]))
