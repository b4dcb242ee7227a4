"""``unnoise generate``: pictures for a prompt."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from unnoise.cli.like import Example
from unnoise.cli.options import with_request_options
from unnoise.cli.output import ready_folder
from unnoise.cli.prompts import Prompt, checked, read_prompts
from unnoise.core import checks
from unnoise.errors import UnnoiseError, one_line
from unnoise.notes import say, tell

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.cli.job import Job
    from unnoise.engine.request import Request

SHOWN = 16  # pictures at most in the terminal


@with_request_options
def generate(
    prompt: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")] = None,
    prompts: Path | None = None,
    like: Path | None = None,
    literal: bool = False,
    count: int = 1,
    strict: bool = False,
    grid: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SETTING=A,B,C")] = (),
    out: Path = Path("pictures"),
    model: Path | None = None,
    part: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=FILE")] = (),
    family: str | None = None,
    prediction: str | None = None,
    decoder: Annotated[str | None, tyro.conf.arg(metavar="own|tiny|linear|FILE")] = None,
    download: bool = False,
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
    **settings: Any,
) -> None:
    """Draw pictures for a prompt. Picture i is drawn with seed + i, and depends on no other.

    Args:
        prompt: what to draw, in English; "(red:1.3) apple" wants more red, "[red] apple" less.
        prompts: a file with a prompt on each line, # before comments; - reads the standard input.
        like: a picture of unnoise or of another tool, or a JSON file of settings: what is not given is taken from it.
        literal: take brackets in prompts as text.
        count: how many pictures of each prompt.
        strict: draw each picture alone, so that its bits do not depend on how many there are; slower.
        grid: one picture for each value of a setting, such as steps=5,10,20; given twice, for each pair of values.
        out: the folder for PNG files; nothing in it is overwritten.
        model: a model folder or a finished training; a file or folder of Stable Diffusion; a name of `unnoise models`;
            the model that comes with unnoise if left out.
        part: a part of a model of other tools, such as autoencoder=FILE or text.clip-l=FILE; may be given again.
        family: of such a model, where its file is taken for another: sd1, sd2, sdxl, sdxl-refiner.
        prediction: what such a model predicts, where its file does not say: noise or v.
        decoder: what turns latents into pictures: the model's own; a tiny one, quick and rough; a linear map, rougher;
            a file of TAESD. Left out: the own, and a rough one for the frames of --strip and --gif if the own is slow.
        download: fetch the model if it is a name on a hub, such as owner/name, and not here yet.
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
    axes = grids.parse(grid)
    films = {"--strip": strip, "--gif": gif, "--nearest": nearest}
    grids.check(axes, settings, count, films)
    example = None if like is None else Example.read(like)
    cfg_scale = settings["cfg_scale"]
    if example is not None:
        plain = settings["start"] is not None and all(settings[name] is None for name in ("mask", "invert", "outpaint"))
        words = {"prompt": prompt if prompts is None else ""}
        values = example.take(settings | words, [axis.field for axis in axes], plain)
        prompt, literal = values.get("prompt", prompt), example.literal(literal)
        settings |= {name: value for name, value in values.items() if name in settings}
    if settings["seed"] is not None:
        whose = "--seed" if example is None or "seed" not in example.values else f"the seed of {like}"
        checks.seed(whose, settings["seed"], count)
    if settings["outpaint"] is not None:
        from unnoise.engine.outpaint import margins

        margins(settings["outpaint"])
        for option in (f"--{name}" for name, on in {"grid": bool(axes), "strip": strip, "gif": gif}.items() if on):
            raise UnnoiseError(f"{option} and --outpaint do not go together", "leave one of them out")
    if show and as_json:
        raise UnnoiseError("--show and --json both want the standard output", "leave one of them out")
    way = terminal.choose(os.environ, sys.stdout) if show else None
    all_prompts = read_prompts(prompt, prompts)
    settings["negative"] = checked(Prompt(settings["negative"] or "", "--negative")).text
    if settings["invert"] is not None:
        settings["invert"] = checked(Prompt(settings["invert"], "--invert")).text
    if len(all_prompts) * count > checks.PICTURES:
        what = f"{len(all_prompts)} prompts with {count} pictures each are too many"
        raise UnnoiseError(what, f"{checks.PICTURES} at most")
    seed = secrets.randbelow(2**31) if settings["seed"] is None else settings["seed"]

    from unnoise.cli.choices import choices
    from unnoise.cli.job import Job, check_prompts
    from unnoise.cli.nearest import training_pictures
    from unnoise.data.square import open_picture, open_unchanged
    from unnoise.engine.decoders import with_preview
    from unnoise.engine.engine import Engine, sources_of
    from unnoise.engine.load import load_engine

    engine = load_engine(model, device, dtype, threads, compiled, choices(part, family, prediction, download, decoder))
    if example is not None:
        settings |= example.fit(engine, settings["negative"], not literal)
    others = [Prompt(settings["negative"], "--negative"), Prompt(settings["invert"] or "", "--invert")]
    check_prompts(engine, all_prompts, others, not literal)
    index = training_pictures(model) if nearest else None
    start, mask = (settings.pop(name) for name in ("start", "mask"))
    opened = None if start is None else open_picture(start), None if mask is None else open_unchanged(mask)
    sources, own = sources_of(*opened)
    settings = {name: value for name, value in settings.items() if value is not None and name != "seed"}
    settings |= own | {"weights": not literal}
    job = Job(engine, settings, sources, out, metadata, strict, strip, gif, index, tuple(axes))
    first = job.prepare(all_prompts[0].text, seed)
    if (strip or gif) and first.size is not None:
        job = replace(job, engine=Engine(with_preview(engine.model, first.size)))
    started = time.perf_counter()
    entries: list[dict[str, Any]] = []
    images: list[Image.Image] = []
    if example is not None:
        say("\n".join(example.report(first, cfg_scale)))
    if compiled:
        say("compiling the network as its first calls come: half a minute for each size of a batch")
    with ready_folder(out):
        for each in all_prompts:
            for image, about in job.run(each.text, seed, count):
                entries.append(about | ({"prompt": each.text} if len(all_prompts) > 1 else {}))
                images = [*images, image][: SHOWN if way else 0]
    seconds = time.perf_counter() - started
    if as_json:
        more = {} if example is None else {"like": example.to_json()}
        whole = {"pictures": entries, **common(job, first, len(all_prompts)), **more, "seconds": round(seconds, 3)}
        print(json.dumps(whole))
        return
    list_entries(entries)
    if way:
        from unnoise.pictures import sheet

        terminal.show(images[0] if len(images) == 1 else sheet(images), way)
    what = all_prompts[0].text if len(all_prompts) == 1 else f"{len(all_prompts)} prompts"
    what = what if example is None else one_line(what)
    seeds = f"seed {seed}" if count == 1 else f"seeds {seed} to {seed + count - 1}"
    seeds = "seeds of the grid" if any(axis.name == "seed" for axis in axes) else seeds
    tell(f"{what}: {seeds}, {job.how(first)}, {seconds:.1f} s")


def common(job: Job, first: Request, prompts: int) -> dict[str, Any]:
    """The settings that all pictures of a command share, as JSON; those that differ from cell to cell are left out."""
    from unnoise.engine.metadata import about_maker, about_model

    model = job.engine.model
    record = {**first.to_json(), "model": about_model(model), "made_by": about_maker(model)}
    left_out = {"seed", *(axis.field for axis in job.axes)} | ({"prompt"} if prompts > 1 else set())
    if left_out & {"cfg_scale", "guidance"}:
        left_out.add("guidance")
    return {name: value for name, value in record.items() if name not in left_out}


def list_entries(entries: list[dict[str, Any]]) -> None:
    """Prints the paths of pictures, and the training pictures nearest to each."""
    from unnoise.cli.nearest import lines

    for each in entries:
        first = f"{each['path']}  " + ("grid" if "grid" in each else f"seed {each['seed']}")
        tell("\n".join([first, *(each[kind] for kind in ("strip", "gif") if kind in each), *lines(each)]))
