"""What a picture carries: everything that is needed to make it again, and the text that other tools read.

A PNG has two text chunks: ``unnoise``, one JSON record, and ``parameters``, the lines that other programs for diffusion
models write and show (prompt, negative prompt, settings with commas between them), in their names and not in ours. A
grid of pictures has its cells' records and boxes in ``unnoise-grid`` in place of the first.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from unnoise import __version__
from unnoise.core.notation import make
from unnoise.data.intake import MAX_PICTURE, LeftOut, read_file
from unnoise.data.lean import PNG_MAGIC, lean
from unnoise.engine.names import TABLES, changed, written
from unnoise.engine.outpaint import SIDES, WIDEST
from unnoise.engine.settings import RULES, Settings
from unnoise.engine.text_to_picture import Pipeline
from unnoise.errors import UnnoiseError
from unnoise.files import expanded
from unnoise.foreign import HEAD, kind_of
from unnoise.kernels.compiled import is_compiled

GRID = "unnoise-grid"
MAX_PIXELS = 2**26
NEGATIVE = "Negative prompt:"
AXES = {"steps": "Steps", "cfg-scale": "CFG Scale", "solver": "Sampler", "spacing": "Schedule type", "seed": "Seed",
        "strength": "Denoising"}  # fmt: skip  # as that script names what it varies
FIELDS = {
    "format": int, "prompt": str, "negative": str, "seed": int, "row": int, "batch": int, "steps": int,
    "cfg_scale": float | None, "solver": str, "spacing": str, "guidance": str, "noise": str, "size": list,
    "model": dict, "made_by": dict,
}  # fmt: skip


def weights_sha256(record: Mapping[str, Any]) -> str:
    """What identifies a model's weights and tokenizer: one SHA-256 (hex) over those of its files."""
    files = {name: sha for name, sha in record.get("files", {}).items() if not name.endswith(".md")}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def run_record(pipeline: Pipeline, prompt: str, negative: str, settings: Settings) -> dict[str, Any]:
    """What is the same for all pictures of one command; a picture's own ``seed``, ``row`` and ``batch`` are added.

    Bits depend on the batch that a picture was drawn in, by rounding: ``row`` of ``batch`` rows, whose seeds are
    consecutive.
    """
    return {
        "format": settings.rules,
        "prompt": prompt,
        "negative": negative,
        "steps": settings.steps,
        "cfg_scale": None if settings.scale is None else float(settings.scale),
        "solver": settings.solver,
        "spacing": settings.spacing,
        "guidance": str(settings.guidance),
        "noise": settings.noise,
        "weights": settings.weights,
        "model": {"name": str(pipeline.record.get("name", "")), "sha256": weights_sha256(pipeline.record)},
        "made_by": {
            "unnoise": __version__,
            "torch": torch.__version__,
            "device": pipeline.device.type,
            "dtype": str(pipeline.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "compiled": is_compiled(pipeline.denoiser.network),
        },
    }


def infotext(record: Mapping[str, Any], more: Mapping[str, str] | None = None) -> str:
    """The ``parameters`` text: the prompt, the negative prompt and one line of settings, ``more`` at its end.

    It is for other programs, in the names that they have: sampler, schedule and scale are said as they were used, in
    ``names``' words. What has no such name is in our own record alone.
    """
    settings = make("solvers", record["solver"])
    eta = changed("solvers", settings).get("eta")
    scale, start = record["cfg_scale"], record.get("start") or {}
    fields = {
        "Steps": record["steps"],
        "Sampler": written("solvers", record["solver"]),
        "Schedule type": written("spacings", record["spacing"]),
        "CFG scale": "" if scale is None else f"{scale:g}",
        "Seed": record["seed"],
        "Size": "x".join(map(str, record["size"])),
        "Model hash": record["model"]["sha256"][:10],
        "Model": re.sub(r'[,:"\s]+', " ", record["model"]["name"]).strip(),
        "Denoising strength": f"{start['strength']:g}" if "strength" in start else "",
        "Eta DDIM" if settings.name == "ddim" else "Eta": "" if eta is None else f"{eta:g}",
        "Emphasis": "" if record.get("weights") or not set(record["prompt"]) & set("()[]") else "None",
        "Version": f"unnoise {record['made_by']['unnoise']}",
        **(more or {}),
    }
    quoted = {k: json.dumps(str(v), ensure_ascii=False) if set(str(v)) & set(',:"\n') else v for k, v in fields.items()}
    lines = [apart(record["prompt"]), ", ".join(f"{key}: {value}" for key, value in quoted.items() if value != "")]
    if record["negative"]:
        lines.insert(1, f"{NEGATIVE} {apart(record['negative'])}")
    return "\n".join(lines)


def apart(prompt: str) -> str:
    """The prompt with a blank in what others would take for the start of the negative one; our record has it whole."""
    return prompt.replace(NEGATIVE, f"{NEGATIVE[:-1]} :")


def to_png(image: Image.Image, record: Mapping[str, Any] | None) -> bytes:
    """A PNG file, with its record in it unless that is None."""
    texts = {}
    if record is not None:
        record = {**record, "size": list(image.size)}
        texts = {"parameters": infotext(record), "unnoise": json.dumps(record, ensure_ascii=False)}
    return _png(image, texts)


def _png(image: Image.Image, texts: Mapping[str, str]) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)
    data = io.BytesIO()
    image.save(data, "PNG", pnginfo=info)
    return data.getvalue()


def grid_to_png(
    image: Image.Image,
    axes: Mapping[str, Sequence[str]],
    cells: Sequence[tuple[Mapping[str, Any], Sequence[int]]] | None,
) -> bytes:
    """A PNG file of a grid of pictures, which says of each cell how it was made.

    Args:
        axes: {setting: its values}, across and then down.
        cells: (record, box) of each, row by row; None writes nothing of it.
    """
    if cells is None:
        return _png(image, {})
    whole: list[dict[str, Any]] = [
        {"box": list(box), "record": {**record, "size": [box[2] - box[0], box[3] - box[1]]}} for record, box in cells
    ]
    more = {"Script": "X/Y/Z plot"}  # as the web interface's script for such plots writes it, after the first cell's
    for letter, (name, values) in zip("XY", axes.items(), strict=False):
        kind = f"{name}s"
        told = [written(kind, value) for value in values] if kind in TABLES else values
        more |= {f"{letter} Type": AXES.get(name, name), f"{letter} Values": ", ".join(told)}
    grid = {"format": RULES, "axes": {name: list(values) for name, values in axes.items()}, "cells": whole}
    return _png(image, {"parameters": infotext(whole[0]["record"], more), GRID: json.dumps(grid, ensure_ascii=False)})


def read_pictures(path: Path) -> list[tuple[Image.Image, dict[str, Any]]]:
    """(RGB picture, its record) of a PNG that ``generate`` made: one, or of a grid each cell's.

    Raises:
        UnnoiseError: no such file, no PNG, damaged or too large, without a record, or with one that was tampered with.
    """
    own = "name a PNG that `unnoise generate` made"
    if not path.exists():
        raise UnnoiseError(f"there is no picture at {path}", own)
    path = expanded(path)
    try:
        data, left_out = lean(read_file(path, MAX_PICTURE), ("unnoise", GRID))
        if not data.startswith(PNG_MAGIC):
            kind = kind_of(data[:HEAD])
            raise UnnoiseError(f"{path} is {kind.name}, no PNG" if kind else f"{path} is no PNG", own)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as file:
            if file.width * file.height > MAX_PIXELS:
                raise UnnoiseError(f"{path} has {file.width} x {file.height} pixels", "it was not made by unnoise")
            file.load()
            text, grid, image = file.info.get("unnoise"), file.info.get(GRID), file.convert("RGB")
    except LeftOut as why:
        raise UnnoiseError(f"{path} cannot be read: {why}", own) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is damaged" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UnnoiseError(f"{path} cannot be read: {reason}", "copy it again") from None
    if text is None and grid is None and left_out:
        raise UnnoiseError(f"the record in {path} is damaged or too large", "copy the picture again")
    if grid is not None:
        return [(image.crop(box), record) for box, record in parse_grid(grid, path, image.size)]
    if text is None:
        raise UnnoiseError(
            f"{path} does not say how it was made",
            "pictures of other programs, and of --no-metadata, cannot be replayed",
        )
    return [(image, parse(text, path))]


def parse_grid(text: str, path: Path, size: Sequence[int]) -> list[tuple[tuple[int, int, int, int], dict[str, Any]]]:
    """(box, record) of each cell of a grid of that size.

    Raises:
        UnnoiseError: it is of a newer format, or not the record of a grid.
    """
    damaged = UnnoiseError(f"the record in {path} is damaged", "generate the grid again")
    found = []
    try:
        for cell in json.loads(text)["cells"]:
            left, top, right, bottom = (int(side) for side in cell["box"])
            if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
                raise damaged
            found.append(((left, top, right, bottom), parse(json.dumps(cell["record"]), path)))
    except (LookupError, OverflowError, RecursionError, TypeError, ValueError):
        raise damaged from None
    if not found:
        raise damaged
    return found


def parse(text: str, path: Path) -> dict[str, Any]:
    """The record in the text.

    Raises:
        UnnoiseError: it is of a newer format, or not a record.
    """
    damaged = UnnoiseError(f"the record in {path} is damaged", "generate the picture again")
    try:
        record = json.loads(text)
        if record["format"] > RULES:
            raise UnnoiseError(f"{path} was made by a newer unnoise", "update unnoise")
        if any(type(record[name]) not in (get_args(kind) or (kind,)) for name, kind in FIELDS.items()):
            raise damaged
    except (LookupError, RecursionError, TypeError, ValueError):
        raise damaged from None
    record.setdefault("weights", False)  # made before there were any: brackets were text
    row, batch, seed = record["row"], record["batch"], record["seed"]
    if not (record["format"] >= 1 and 0 <= row < batch <= 64 and 0 <= seed - row < 2**63) or not isinstance(
        record["model"].get("sha256"), str
    ):
        raise damaged
    if not isinstance(record["weights"], bool) or not _sane_start(record.get("start")):
        raise damaged
    return dict(record)


def _sane_start(start: Any) -> bool:
    """Whether a record's ``start`` is None or says, with the right types, how a picture was used and which."""
    if start is None:
        return True
    if not isinstance(start, dict) or not isinstance(start.get("sha256"), str):
        return False
    if any(not isinstance(start.get(name, ...), str | None) for name in ("mask", "invert")):
        return False
    if "outpaint" in start:
        by = start["outpaint"]
        sides = isinstance(by, dict) and by.keys() == set(SIDES)
        return sides and all(type(value) is int and 0 <= value <= WIDEST for value in by.values())
    return type(start.get("strength")) in (int, float)
