"""``unnoise replay``: makes a picture again from its record, and reports whether it is the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from unnoise.errors import UnnoiseError

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.engine.engine import Engine
    from unnoise.engine.metadata import Record

CLOSE_DB = 40.0


def replay(
    picture: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")],
    start: Path | None = None,
    mask: Path | None = None,
    model: Path | None = None,
    part: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=FILE")] = (),
    family: str | None = None,
    prediction: str | None = None,
    decoder: Annotated[str | None, tyro.conf.arg(metavar="own|tiny|linear|FILE")] = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    threads: int | None = None,
    out: Path | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Make a picture again from the record in it, and say: equal, close or different. Status 1 if different.

    Args:
        picture: a PNG that `unnoise generate` made.
        start: the picture that it was drawn from, where it was.
        mask: the mask that it was drawn with, where it was.
        model: what it was made with, as `unnoise generate` takes it; the model that comes with unnoise if left out.
        part, family, prediction: as `unnoise generate` was given them.
        decoder: as `unnoise generate` takes it; the recorded one if left out, where it is at hand.
        device: cpu, cuda, or auto.
        dtype: precision of the computation; auto takes the recorded one.
        threads: processor threads; the recorded number if left out.
        out: a folder to write the new picture to.
        as_json: print the answer as JSON on the standard output.
    """
    from unnoise.cli.choices import choices
    from unnoise.cli.like import foreign
    from unnoise.cli.output import ready_folder, save
    from unnoise.engine.decoders import recorded
    from unnoise.engine.load import load_engine
    from unnoise.engine.metadata import about_maker, about_model, read_pictures, to_png

    try:
        pairs = read_pictures(picture)
    except UnnoiseError:
        if (why := foreign(picture)) is not None:
            raise why from None
        raise
    for _, each in pairs:
        check_sources(picture, each, start, mask)
    if out is not None and len(pairs) > 1:
        raise UnnoiseError(f"{picture} is a grid, which is compared cell by cell", "leave --out out")
    record = pairs[0][1]
    then = record.made_by.get("dtype")
    if dtype == "auto" and then in ("float32", "bfloat16"):
        dtype = then
    before = record.made_by.get("threads")
    if threads is None and isinstance(before, int) and 1 <= before <= 256:
        threads = before
    if decoder is None:
        decoder = recorded(record.model.get("decoder"))
    engine = load_engine(model, device, dtype, threads, choices=choices(part, family, prediction, decoder=decoder))
    new = [again(engine, each, start, mask) for _, each in pairs]
    verdict, distance = worst([compare(old, image) for (old, _), image in zip(pairs, new, strict=True)])
    here = about_maker(engine.model)
    with ready_folder(out) if out else nullcontext():
        data = to_png(new[0], record._replace(model=about_model(engine.model), made_by=here))
        path = save(data, out, f"{picture.stem}-replayed") if out else None
    notes = changed(record, here, about_model(engine.model))
    if as_json:
        print(json.dumps({"verdict": verdict, **distance, "notes": notes, "path": str(path) if path else None}))
    else:
        lines = [answer(picture, verdict, distance, len(pairs)), *(f"  {note}" for note in notes)]
        print("\n".join([*lines, *([str(path)] if path else [])]))
    if verdict == "different":
        raise SystemExit(1)


def changed(record: Record, here: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """Notes on what has changed since a picture was made: weights, decoder, versions, device, pictures beside it."""
    from unnoise.engine.decoders import difference

    notes = []
    if model["sha256"] != record.model["sha256"]:
        notes.append(f"made with other weights ({str(record.model.get('name'))[:40]!r}); name theirs with --model")
    if (other := difference(record.model.get("decoder"), model.get("decoder"))) is not None:
        notes.append(other)
    if record.shared:
        notes.append("it was drawn beside others, which changes bits by rounding")
    then = record.made_by
    return notes + [
        f"{key} is {now}, it was {str(then[key])[:40]!r}" for key, now in here.items() if then.get(key, now) != now
    ]


def check_sources(picture: Path, record: Record, start: Path | None, mask: Path | None) -> None:
    """Ensures that the start and the mask that a picture's record names are given, and are the same pictures.

    Raises:
        UnnoiseError: one is missing, one too many, or another.
    """
    pictures = sources(record, start, mask)
    for what, path in (("start", start), ("mask", mask)):
        digest = getattr(record.request, what)
        if path is None and digest:
            raise UnnoiseError(f"{picture} was drawn from a {what}, which is not in it", f"name it with --{what}")
        if path is not None and not digest:
            raise UnnoiseError(f"{picture} was drawn without a {what}", f"leave --{what} out")
        if digest and digest not in pictures:
            raise UnnoiseError(f"{path} is not the {what} that {picture} was drawn from", "name the one that was used")


def sources(record: Record, start: Path | None, mask: Path | None) -> dict[str, Image.Image]:
    """The start and mask that a picture was drawn from, by their SHA-256."""
    from unnoise.data.square import open_picture, open_unchanged
    from unnoise.engine.engine import sources_of

    opened = None if start is None else open_picture(start), None if mask is None else open_unchanged(mask)
    return sources_of(*opened, record.request.rules)[0]


def again(engine: Engine, record: Record, start: Path | None, mask: Path | None) -> Image.Image:
    """The picture of a record, drawn in a batch of the same size and at the same place in it."""
    request, first = record.request, record.request.seed - record.row
    beside = [replace(request, seed=first + i) for i in range(record.batch)]
    return engine.pictures(beside, sources(record, start, mask))[record.row]


def compare(old: Image.Image, new: Image.Image) -> tuple[str, dict[str, Any]]:
    """(verdict, distances) of two RGB pictures: "equal" to the last bit, "close" from 40 dB on, else "different"."""
    import numpy as np

    if old.size != new.size:
        return "different", {"largest": None, "psnr": None}
    gap = np.abs(np.asarray(old, dtype=np.int32) - np.asarray(new, dtype=np.int32))
    if not gap.any():
        return "equal", {"largest": 0, "psnr": None}
    psnr = 10 * math.log10(255**2 / float((gap**2).mean()))
    return ("close" if psnr >= CLOSE_DB else "different"), {"largest": int(gap.max()), "psnr": round(psnr, 2)}


def worst(comparisons: Sequence[tuple[str, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    """The result of ``compare`` whose pictures are farthest apart."""

    def rank(each: tuple[str, dict[str, Any]]) -> tuple[int, float]:
        psnr = each[1]["psnr"]
        return ("equal", "close", "different").index(each[0]), -math.inf if psnr is None else -psnr

    return max(comparisons, key=rank)


def answer(picture: Path, verdict: str, distance: dict[str, Any], cells: int = 1) -> str:
    """The answer in one line; for a grid, that of the worst cell."""
    if verdict == "equal":
        return f"{picture}: equal, every pixel is the same" + f" in all {cells} pictures" * (cells > 1)
    if distance["psnr"] is None:
        return f"{picture}: different, not even the size is the same"
    apart = f"at most {distance['largest']} of 255 apart, {distance['psnr']} dB"
    return f"{picture}: {verdict}, {apart}" + f" in the worst of {cells} pictures" * (cells > 1)
