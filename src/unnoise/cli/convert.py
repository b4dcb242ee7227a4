"""``unnoise convert``: weights of other formats as safetensors, without running anything that is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from unnoise.errors import UnnoiseError
from unnoise.foreign import quoted
from unnoise.inspection.look import what_are_tensors
from unnoise.notes import say, tell
from unnoise.weights.jail import Unpacked, unpack

if TYPE_CHECKING:
    from unnoise.engine.foreign import Choices

LAYOUTS = {
    "original": "one file in original names",
    "diffusers": "a folder in diffusers' layout",
    "unnoise": "a model folder of unnoise",
}
NAMED = 8  # things left out that are named


def convert(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    out: Path,
    to: Literal["safetensors", "original", "diffusers", "unnoise"] = "safetensors",
    dtype: Literal["keep", "float32", "float16", "bfloat16"] = "keep",
    key: str = "",
    part: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=FILE")] = (),
    family: str | None = None,
    prediction: str | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Write weights as safetensors, or a model of Stable Diffusion in another layout.

    A .ckpt, .pt, .pth, .bin, .pkl or GGUF file becomes a safetensors file with the same names. It is read by a process
    of its own, which runs nothing that is in it and is ended if it reaches for the network, another program or another
    file. A file that would run code is refused, and so is one that is damaged.

    Args:
        file: the file to read; a folder or a name that --model takes, where a model is written in another layout.
        out: the file or folder to write; it must not exist.
        to: safetensors keeps names as they are; original is one file, as it was published and as other tools open it;
            diffusers is a folder in that library's layout; unnoise is a model folder of ours.
        dtype: what real numbers become; keep leaves every bit as it is.
        part, family, prediction: of a model that is written in another layout, as `unnoise generate` takes them.
        key: the record of a training's checkpoint to take, such as model.ema; the model's is found by itself.
        as_json: print the result as one line of JSON.
    """
    if to != "safetensors":
        from unnoise.cli.choices import choices  # which imports torch

        convert_model(file, out, to, dtype, choices(part, family, prediction), as_json)
        return
    if out.suffix != ".safetensors":
        raise UnnoiseError(f"{out} would be a safetensors file", f"call it {out.with_suffix('.safetensors').name}")
    result = unpack(file, out, dtype, key)
    if as_json:
        print(json.dumps(summary(out, result)))
    else:
        show(out, result)


def convert_model(file: Path, out: Path, to: str, dtype: str, about: Choices, as_json: bool) -> None:
    """Writes a model in another layout.

    Raises:
        UnnoiseError: it cannot be opened, or is of no published family; or the target exists or cannot be written.
    """
    import torch

    from unnoise.engine.foreign import open_decided, save_as_ours
    from unnoise.engine.load import named_model
    from unnoise.weights.layouts import contents, own_contents, write_diffusers, write_original
    from unnoise.weights.opening import is_foreign

    if to == "original" and out.suffix != ".safetensors":
        raise UnnoiseError(f"{out} would be a safetensors file", f"call it {out.with_suffix('.safetensors').name}")
    path, kind = named_model(file), None if dtype == "keep" else getattr(torch, dtype)
    opened = open_decided(path, about) if is_foreign(path) else None
    if opened is not None:
        say("\n".join(opened.report()))
    if to == "unnoise":
        if opened is None:
            raise UnnoiseError(f"{path} is a model folder of unnoise already", "write it --to original, or diffusers")
        save_as_ours(opened, out, kind)
    else:
        model = contents(opened) if opened is not None else own_contents(path)
        (write_original if to == "original" else write_diffusers)(model, out, kind)
    if as_json:
        print(json.dumps({"path": str(out), "layout": to, "dtype": dtype}))
    else:
        tell(f"{out}: written, {LAYOUTS[to]}")


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
