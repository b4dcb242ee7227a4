"""``unnoise inspect``: what a weight file or a model folder is, without loading it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from unnoise.weights.header import Header, read_header

SHOWN = 200
MODEL, MODEL_BYTES = "model.json", 2**20  # as weights.model has them, which imports torch
SAID = ("path", "prediction", "noise_label")


def inspect(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    depth: int = 2,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Tell what a weight file is, from its header alone: kind, numbers, precision, parts, metadata.

    Args:
        file: a .safetensors file, or a folder that holds a model.
        depth: how many words of a tensor's name make a part, 1 or more.
        as_json: print it as JSON on the standard output.
    """
    folder = file / "model" if (file / "model" / "model.json").is_file() else file
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else [folder]
    headers = [read_header(each) for each in files or [folder]]
    whole = Header(
        {name: tensor for header in headers for name, tensor in header.tensors.items()},
        {key: value for header in headers for key, value in header.metadata.items()},
        sum(header.size for header in headers),
    )
    made_of = components(folder)
    if as_json:
        print(json.dumps(summary(whole, max(1, depth)) | {"components": made_of}))
    else:
        show(file, whole, max(1, depth), made_of)


def summary(header: Header, depth: int) -> dict[str, Any]:
    """All that is shown, as plain values."""
    parts = {name: {"tensors": n, "parameters": p} for name, (n, p) in header.groups(depth).items()}
    return {
        "kind": header.kind(),
        "bytes": header.size,
        "tensors": len(header.tensors),
        "parameters": header.parameters,
        "dtypes": header.dtypes(),
        "parts": parts,
        "metadata": header.metadata,
    }


def components(folder: Path) -> dict[str, str]:
    """What each component of a model folder is, by its record: {"denoiser": "unet, path flow, prediction data"}.

    Empty for a single file, and where the record cannot be read: the weights are told all the same.
    """
    try:
        with (folder / MODEL).open("rb") as file:
            record = json.loads(file.read(MODEL_BYTES))
        told = {str(part): dict(said) for part, said in record["components"].items()}
    except (OSError, KeyError, RecursionError, TypeError, ValueError, AttributeError):
        return {}
    return {
        part: ", ".join(
            [str(said.get("name")), *(f"{key.replace('_', ' ')} {said[key]}" for key in SAID if key in said)]
        )
        for part, said in told.items()
    }


def show(file: Path, header: Header, depth: int, made_of: Mapping[str, str]) -> None:
    """Prints it for people; strings from the file are quoted, so that they cannot command a terminal."""
    dtypes = ", ".join(f"{dtype} {count:,}" for dtype, count in header.dtypes().items())
    print(f"{file}: {header.kind()}")
    print(f"  {header.size:,} bytes, {len(header.tensors):,} tensors, {header.parameters:,} parameters ({dtypes})")
    for part, what in list(made_of.items())[:SHOWN]:
        print(f"  {ascii(part)[1:-1][:60]}: {ascii(what)[1:-1][:200]}")
    groups = list(header.groups(depth).items())
    for name, (tensors, numbers) in groups[:SHOWN]:
        print(f"  {ascii(name)[1:-1][:60]:<60} {tensors:>6,} tensors {numbers:>15,}")
    if len(groups) > SHOWN:
        print(f"  and {len(groups) - SHOWN:,} parts more; --depth 1 has fewer")
    for key, value in list(header.metadata.items())[:SHOWN]:
        print(f"  {ascii(key)[1:-1][:60]}: {ascii(value)[1:-1][:200]}")
