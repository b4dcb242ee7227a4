"""``unnoise replay``: makes a picture again from what it carries, and says whether it is the same."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from unnoise.errors import UnnoiseError

if TYPE_CHECKING:
    from PIL import Image

CLOSE_DB = 40.0


def replay(
    picture: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")],
    model: Path | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    threads: int | None = None,
    out: Path | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Make a picture again from the record in it, and say: equal, close or different. Status 1 if different.

    Args:
        picture: a PNG that `unnoise generate` made.
        model: the model folder it was made with; the model that comes with unnoise if left out.
        device: cpu, cuda, or auto.
        dtype: precision of the computation; auto takes the recorded one.
        threads: processor threads; the recorded number if left out.
        out: a folder to write the new picture to.
        as_json: print the answer as JSON on the standard output.
    """
    from unnoise.cli.output import ready_folder, save
    from unnoise.pipelines.load import load_pipeline
    from unnoise.pipelines.metadata import read_picture, run_record, to_png, weights_sha256

    old, record = read_picture(picture)
    if "start" in record:
        hint = "draw it again with `unnoise generate --start`"
        raise UnnoiseError(f"{picture} was drawn from a picture, which is not in it", hint)
    made_by = record["made_by"]
    then = made_by.get("dtype")
    if dtype == "auto" and then in ("float32", "bfloat16"):
        dtype = then
    if threads is None and isinstance(made_by.get("threads"), int) and 1 <= made_by["threads"] <= 256:
        threads = made_by["threads"]
    pipeline = load_pipeline(model, device, dtype, threads)
    notes = []
    if weights_sha256(pipeline.record) != record["model"]["sha256"]:
        notes.append(f"made with other weights ({str(record['model'].get('name'))[:40]!r}); name theirs with --model")
    new = again(pipeline, record)
    verdict, distance = compare(old, new)
    again_by = {**record, "made_by": run_record(pipeline, "", "", pipeline.defaults)["made_by"]}
    with ready_folder(out) if out else nullcontext():
        path = save(to_png(new, again_by), out, f"{picture.stem}-replayed") if out else None
    here = again_by["made_by"]
    notes += [
        f"{key} is {now}, it was {str(made_by[key])[:40]!r}"
        for key, now in here.items()
        if made_by.get(key, now) != now
    ]
    if as_json:
        print(json.dumps({"verdict": verdict, **distance, "notes": notes, "path": str(path) if path else None}))
    else:
        print(
            "\n".join(
                [said(picture, verdict, distance), *(f"  {note}" for note in notes), *([str(path)] if path else [])]
            )
        )
    if verdict == "different":
        raise SystemExit(1)


def again(pipeline: Any, record: dict[str, Any]) -> Image.Image:
    """The picture of a record, drawn in a batch of the same size and at the same place in it."""
    names = ("steps", "cfg_scale", "solver", "spacing", "guidance", "noise")
    settings = pipeline.settings(**{name: record[name] for name in names})
    seeds = [record["seed"] - record["row"] + i for i in range(record["batch"])]
    for step in pipeline.run([record["prompt"]] * len(seeds), seeds, record["negative"], settings):
        last = step
    image: Image.Image = pipeline.decode(last.run.x)[record["row"]]
    return image


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


def said(picture: Path, verdict: str, distance: dict[str, Any]) -> str:
    """The answer in one line."""
    if verdict == "equal":
        return f"{picture}: equal, every pixel is the same"
    if distance["psnr"] is None:
        return f"{picture}: different, not even the size is the same"
    return f"{picture}: {verdict}, at most {distance['largest']} of 255 apart, {distance['psnr']} dB"
