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
from typing import Any, NamedTuple

import torch
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from unnoise import __version__
from unnoise.core.notation import make
from unnoise.data.intake import MAX_PICTURE, LeftOut, read_file
from unnoise.data.lean import PNG_MAGIC, lean
from unnoise.engine.events import Finished
from unnoise.engine.model import Model
from unnoise.engine.names import TABLES, changed, written
from unnoise.engine.request import FORMAT, Request
from unnoise.errors import UnnoiseError
from unnoise.files import expanded
from unnoise.foreign import HEAD, kind_of
from unnoise.kernels.compiled import is_compiled

GRID = "unnoise-grid"
MAX_PIXELS = 2**26
NEGATIVE = "Negative prompt:"
AXES = {"steps": "Steps", "cfg-scale": "CFG Scale", "solver": "Sampler", "spacing": "Schedule type", "seed": "Seed",
        "strength": "Denoising"}  # fmt: skip  # as that script names what it varies


def weights_sha256(record: Mapping[str, Any]) -> str:
    """What identifies a model's weights and tokenizer: one SHA-256 (hex) over those of its files."""
    files = {name: sha for name, sha in record.get("files", {}).items() if not name.endswith(".md")}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


class Record(NamedTuple):
    """The record in a picture: its request, its place in a batch, and the model and software that drew it.

    Attributes:
        request: it, complete.
        row, batch, shared: as in ``events.Finished``.
        model: "name" and "sha256" of the model; "decoder", if another than its own drew, as ``engine.decoders`` has it.
        made_by: versions, device, precision and threads.
    """

    request: Request
    row: int
    batch: int
    shared: bool
    model: dict[str, Any]
    made_by: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The request's own JSON, and the rest beside it."""
        rest = self._asdict()
        del rest["request"]
        return {**self.request.to_json(), **{name: value for name, value in rest.items() if value is not False}}

    @classmethod
    def from_json(cls, values: Any, where: str) -> Record:
        """The record that plain values describe, of any format so far.

        Raises:
            UnnoiseError: they are of a newer format, or not a record.
        """
        named = f"the record in {where}"
        damaged = UnnoiseError(f"{named} is damaged", "generate the picture again")
        if isinstance(values, Mapping) and isinstance(values.get("format"), int) and values["format"] > FORMAT:
            raise UnnoiseError(f"{where} was made by a newer unnoise", "update unnoise")
        try:
            request = Request.from_json(values, named)
            rest = (values["row"], values["batch"], values.get("shared", False), values["model"], values["made_by"])
            own = cls(request, *rest)
        except KeyError:
            raise damaged from None
        except UnnoiseError as error:
            if error.what == damaged.what:
                raise damaged from None
            if error.what.startswith(named):
                raise
            raise UnnoiseError(f"{named} cannot be drawn: {error.what}", error.hint) from None
        kinds = (int, int, bool, dict, dict)
        whole = request.size is not None and isinstance(own.model, dict) and isinstance(own.model.get("sha256"), str)
        if not whole or any(type(value) is not kind for value, kind in zip(own[1:], kinds, strict=True)):
            raise damaged
        if not isinstance(own.model.get("decoder", {}), dict):
            raise damaged
        if not (0 <= own.row < own.batch <= 64 and 0 <= request.seed - own.row < 2**63):
            raise damaged
        return own


def about_model(model: Model) -> dict[str, Any]:
    """The entry of a record on its model, and on what decodes in its autoencoder's place."""
    about = {"name": str(model.record.get("name", "")), "sha256": weights_sha256(model.record)}
    return about | ({"decoder": model.record["decoder"]} if "decoder" in model.record else {})


def about_maker(model: Model) -> dict[str, Any]:
    """The entry of a record on the software and device that draw: bits depend on them."""
    return {
        "unnoise": __version__,
        "torch": torch.__version__,
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "compiled": is_compiled(model.denoiser.network),
    }


def record_of(model: Model, done: Finished) -> Record:
    """The record of a picture."""
    return Record(done.request, done.row, done.batch, done.shared, about_model(model), about_maker(model))


def infotext(record: Record, size: Sequence[int], more: Mapping[str, str] | None = None) -> str:
    """The ``parameters`` text: the prompt, the negative prompt and one line of settings, ``more`` at its end.

    It is for other programs, in the names that they have: sampler, schedule and scale as they were used, in
    ``names``' words. What has no such name is in our own record alone.
    """
    request = record.request
    solver = make("solvers", request.solver)
    eta = changed("solvers", solver).get("eta")
    decoder = record.model.get("decoder", {}).get("kind")
    fields = {
        "Steps": request.steps,
        "Sampler": written("solvers", request.solver),
        "Schedule type": written("spacings", request.spacing),
        "CFG scale": "" if request.scale is None else f"{request.scale:g}",
        "Seed": request.seed,
        "Size": "x".join(map(str, size)),
        "Model hash": record.model["sha256"][:10],
        "Model": re.sub(r'[,:"\s]+', " ", str(record.model.get("name", ""))).strip(),
        "VAE Decoder": "TAESD" if decoder == "tiny" else "",
        "Clip skip": "" if request.clip_skip is None else request.clip_skip,
        "Denoising strength": "" if request.strength is None else f"{request.strength:g}",
        "Eta DDIM" if solver.name == "ddim" else "Eta": "" if eta is None else f"{eta:g}",
        "Emphasis": "" if request.weights or not set(request.prompt) & set("()[]") else "None",
        "Version": f"unnoise {record.made_by.get('unnoise', '')}",
        **(more or {}),
    }
    quoted = {k: json.dumps(str(v), ensure_ascii=False) if set(str(v)) & set(',:"\n') else v for k, v in fields.items()}
    lines = [apart(request.prompt), ", ".join(f"{key}: {value}" for key, value in quoted.items() if value != "")]
    if request.negative:
        lines.insert(1, f"{NEGATIVE} {apart(request.negative)}")
    return "\n".join(lines)


def apart(prompt: str) -> str:
    """The prompt with a blank in what others would take for the start of the negative one; our record has it whole."""
    return prompt.replace(NEGATIVE, f"{NEGATIVE[:-1]} :")


def to_png(image: Image.Image, record: Record | None) -> bytes:
    """A PNG file, with its record in it unless that is None."""
    texts = {}
    if record is not None:
        text = json.dumps(record.to_json(), ensure_ascii=False)
        texts = {"parameters": infotext(record, image.size), "unnoise": text}
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
    cells: Sequence[tuple[Record, Sequence[int]]] | None,
) -> bytes:
    """A PNG file of a grid of pictures, with the record of each cell.

    Args:
        axes: {setting: its values}, across and then down.
        cells: (record, box) of each, row by row; None writes nothing of it.
    """
    if cells is None:
        return _png(image, {})
    whole = [{"box": list(box), "record": record.to_json()} for record, box in cells]
    first, box = cells[0]
    more = {"Script": "X/Y/Z plot"}  # as the web interface's script for such plots writes it, after the first cell's
    for letter, (name, values) in zip("XY", axes.items(), strict=False):
        kind = f"{name}s"
        labels = [written(kind, value) for value in values] if kind in TABLES else values
        more |= {f"{letter} Type": AXES.get(name, name), f"{letter} Values": ", ".join(labels)}
    grid = {"format": FORMAT, "axes": {name: list(values) for name, values in axes.items()}, "cells": whole}
    text = infotext(first, (box[2] - box[0], box[3] - box[1]), more)
    return _png(image, {"parameters": text, GRID: json.dumps(grid, ensure_ascii=False)})


def read_pictures(path: Path) -> list[tuple[Image.Image, Record]]:
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


def parse_grid(text: str, path: Path, size: Sequence[int]) -> list[tuple[tuple[int, int, int, int], Record]]:
    """(box, record) of each cell of a grid of that size.

    Raises:
        UnnoiseError: it is of a newer format, or not the record of a grid.
    """
    damaged = UnnoiseError(f"the record in {path} is damaged", "generate the grid again")
    cells = []
    try:
        for cell in json.loads(text)["cells"]:
            left, top, right, bottom = (int(side) for side in cell["box"])
            if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
                raise damaged
            cells.append(((left, top, right, bottom), Record.from_json(cell["record"], str(path))))
    except (LookupError, OverflowError, RecursionError, TypeError, ValueError):
        raise damaged from None
    if not cells:
        raise damaged
    return cells


def parse(text: str, path: Path) -> Record:
    """The record in the text.

    Raises:
        UnnoiseError: it is of a newer format, or not a record.
    """
    try:
        values = json.loads(text)
    except (RecursionError, ValueError):
        values = None
    return Record.from_json(values, str(path))
