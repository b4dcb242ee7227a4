"""``unnoise convert``: weights of other formats as safetensors, without running anything that is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import tyro

from unnoise.errors import UnnoiseError
from unnoise.foreign import quoted
from unnoise.inspection.look import what_are_tensors
from unnoise.notes import tell
from unnoise.weights.jail import Unpacked, unpack

NAMED = 8  # things left out that are named


def convert(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    out: Path,
    dtype: Literal["keep", "float32", "float16", "bfloat16"] = "keep",
    key: str = "",
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Write the weights of a .ckpt, .pt, .pth, .bin, .pkl or GGUF file as a safetensors file.

    The file is read by a process of its own, which runs nothing that is in it and is ended if it reaches for the
    network, another program or another file. A file that would run code is refused, and so is one that is damaged.

    Args:
        file: the file to read.
        out: the safetensors file to write; it must not exist.
        dtype: what real numbers become; keep leaves every bit as it is.
        key: the record of a training's checkpoint to take, such as model.ema; the model's is found by itself.
        as_json: print the result as one line of JSON.
    """
    if out.suffix != ".safetensors":
        raise UnnoiseError(f"{out} would be a safetensors file", f"call it {out.with_suffix('.safetensors').name}")
    result = unpack(file, out, dtype, key)
    if as_json:
        print(json.dumps(summary(out, result)))
    else:
        show(out, result)


def summary(out: Path, result: Unpacked) -> dict[str, object]:
    """The result as plain values."""
    header = result.header
    return {
        "path": str(out),
        "kind": what_are_tensors(header.tensors, result.listed).what,
        "from": result.form,
        "tensors": len(header.tensors),
        "parameters": header.parameters,
        "dtypes": header.dtypes(),
        "taken": result.taken,
        "left": list(result.left),
        "left_out": result.left_out,
        "listed": result.listed,
    }


def show(out: Path, result: Unpacked) -> None:
    """Prints the result for people."""
    header, source = result.header, f" from {result.form}" if result.form else ""
    dtypes = ", ".join(f"{quoted(dtype, 20)} {count:,}" for dtype, count in header.dtypes().items())
    count = len(header.tensors)
    tell(f"{out}: {count:,} tensor{'s' * (count != 1)}, {header.parameters:,} numbers ({dtypes}){source}")
    what = what_are_tensors(header.tensors, result.listed).what
    tell(f"  {quoted('weights of no model that is known here' if what == 'unknown' else what, 200)}")
    if result.listed:
        tell(f"  its tensors had no names: they are called 0 to {count - 1}")
    if result.taken:
        tell(f"  taken: {quoted(result.taken, 200)}")
    if result.left_out:
        more = f" and {result.left_out - NAMED:,} more" if result.left_out > NAMED else ""
        tell(f"  left out: {', '.join(quoted(name, 80) for name in result.left[:NAMED])}{more}")
