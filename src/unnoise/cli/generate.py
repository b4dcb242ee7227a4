"""``unnoise generate``: pictures for a prompt."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from unnoise.errors import UnnoiseError
from unnoise.files import explain, new_name

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.pipelines.text_to_picture import Pipeline

BATCH = 16
MAX_COUNT = 10_000


def generate(
    prompt: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")],
    negative: str = "",
    steps: int | None = None,
    cfg_scale: float | None = None,
    solver: str | None = None,
    spacing: str | None = None,
    guidance: str | None = None,
    seed: int | None = None,
    count: int = 1,
    out: Path = Path("pictures"),
    model: Path | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    threads: int | None = None,
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
        seed: the same seed and settings give the same picture; chosen and printed if left out.
        count: how many pictures.
        out: the folder for PNG files; nothing in it is overwritten.
        model: a model folder or a finished training; the model that comes with unnoise if left out.
        device: cpu, cuda, or auto.
        dtype: precision of the computation; auto is what the device computes fastest.
        threads: processor threads.
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

    pipeline = load_pipeline(model, device, dtype, threads)
    changes = {"steps": steps, "cfg_scale": cfg_scale, "solver": solver}
    changes |= {"spacing": spacing, "guidance": guidance}
    settings = pipeline.settings(**changes)
    pipeline.tokenizer([prompt, negative])
    started = time.perf_counter()
    record = {"prompt": prompt, "negative": negative, "steps": settings.steps, "cfg_scale": settings.cfg_scale}
    record |= {
        "solver": settings.solver,
        "spacing": settings.spacing,
        "guidance": str(settings.guidance),
        "model": pipeline.record.get("name", str(model or "default")),
    }
    made: list[dict[str, Any]] = []
    with ready_folder(out):
        for number, image in draw(pipeline, prompt, negative, seed, count, changes):
            path = save(image, out, prompt, seed + number, record)
            made.append({"path": str(path), "seed": seed + number})
    seconds = time.perf_counter() - started
    if as_json:
        print(json.dumps({"pictures": made, **record, "seconds": round(seconds, 3)}))
        return
    for each in made:
        print(f"{each['path']}  seed {each['seed']}")
    seeds = f"seed {seed}" if count == 1 else f"seeds {seed} to {seed + count - 1}"
    how = f"{settings.steps} steps of {settings.solver}, guidance {settings.cfg_scale:g}"
    print(f"{prompt}: {seeds}, {how}, {seconds:.1f} s")


def draw(pipeline: Pipeline, prompt: str, negative: str, seed: int, count: int, changes: dict[str, Any]) -> Any:
    """Yields (number, image), batch by batch, with a progress line on the standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    settings = pipeline.settings(**changes)
    columns = (TextColumn("drawing"), BarColumn(None), TextColumn("{task.completed}/{task.total} steps  ETA"))
    console = Console(file=sys.stderr)
    hidden = not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden) as progress:
        batches = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
        task = progress.add_task("", total=settings.steps * len(batches))
        for batch in batches:
            for step in pipeline.run([prompt] * len(batch), [seed + i for i in batch], negative, settings):
                progress.advance(task)
                last = step
            yield from zip(batch, pipeline.decode(last.run.x), strict=True)


@contextlib.contextmanager
def ready_folder(out: Path) -> Iterator[None]:
    """Makes the folder and sees that it can be written, before any work; folders that stay empty are removed again.

    Raises:
        UnnoiseError: it cannot.
    """
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    probe = out / f".write-{secrets.token_hex(4)}"
    try:
        try:
            out.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"unnoise")
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
    except FileExistsError:
        raise UnnoiseError(f"{out} is a file, not a folder", "name a folder with --out") from None
    except OSError as error:
        _remove_empty(new)
        raise explain(error, out) from None
    try:
        yield
    finally:
        _remove_empty(new)


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):  # the first that holds something ends it
        for folder in folders:
            folder.rmdir()


def save(image: Image.Image, out: Path, prompt: str, seed: int, record: dict[str, Any]) -> Path:
    """Writes one PNG under a new name, whole or not at all; its settings travel in it as JSON.

    Raises:
        UnnoiseError: the disk is full or cannot be written.
    """
    import io

    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("unnoise", json.dumps({**record, "seed": seed}, ensure_ascii=False))
    data = io.BytesIO()
    image.save(data, "PNG", pnginfo=info)
    stem = f"{slug(prompt)}-{seed}"
    scratch = out / f".partial-{secrets.token_hex(4)}.png"
    try:
        scratch.write_bytes(data.getvalue())
        while True:
            path = new_name(out, stem, ".png")
            with contextlib.suppress(FileExistsError):
                _name(scratch, path)
                return path
    except OSError as error:
        raise explain(error, out) from None
    finally:
        scratch.unlink(missing_ok=True)


def _name(scratch: Path, path: Path) -> None:
    """Gives a finished file its name, which must be free: a plain rename would overwrite."""
    try:
        path.hardlink_to(scratch)
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links, such as a memory stick's
        path.touch(exist_ok=False)
        scratch.replace(path)


def slug(prompt: str) -> str:
    """A prompt as a file name: lower-case letters, digits and dashes, at most 48 of them."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].strip("-") or "picture"
