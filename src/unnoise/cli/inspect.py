"""``unnoise inspect``: what any file or folder is, without loading it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import tyro

from unnoise.errors import UnnoiseError
from unnoise.foreign import quoted
from unnoise.inspection.answer import Answer
from unnoise.inspection.look import look
from unnoise.weights.header import Header
from unnoise.weights.record import read_record

MAX_ROWS, PARTS = 200, 40  # facts and strings, and parts of a model, that are printed


def inspect(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    depth: int = 2,
    verify: bool = False,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Tell what a file or folder is: weights by their header, adapters, configurations, pictures, workflows and more.

    Nothing is loaded and nothing in it is run. The status is 1 if it is damaged, is not what its name says, or would
    run code. A model is read whole with --verify alone.

    Args:
        file: any file, or a folder.
        depth: how many words of a tensor's name make a part, 1 or more.
        verify: read a model whole: each weight must be finite; in unnoise's own folders each file must have the SHA-256
            in model.json.
        as_json: print it as JSON on the standard output.
    """
    answer = verified(file) if verify else look(file)
    if as_json:
        print(json.dumps(summary(answer, max(1, depth))))
    else:
        show(file, answer, max(1, depth))
    if answer.fault:
        raise UnnoiseError(f"{file}: {answer.fault}", answer.mend)


def verified(file: Path) -> Answer:
    """The answer for a model that is read whole: our folder or a finished training's, where "default" is unnoise's own
    model, or a published model.

    Raises:
        UnnoiseError: there is no model, or what ``look`` raises.
    """
    from unnoise.engine.load import model_folder  # these import torch
    from unnoise.weights.opening import is_foreign
    from unnoise.weights.verify import verify_model, verify_published

    folder = model_folder(file)
    if is_foreign(folder) and (answer := look(folder)).header is not None:
        try:
            result = verify_published(folder)
        except UnnoiseError as error:
            return answer._replace(fault=error.what.removeprefix(f"{file} "), mend=error.hint)
        text = f"{result.numbers:,} numbers in {result.parts} parts are finite"
        return answer._replace(facts={**answer.facts, "verified": text})
    read_record(folder)  # refused where it is no model
    answer = look(folder)
    try:
        result = verify_model(folder)
    except UnnoiseError as error:
        return answer._replace(fault=error.what, mend=error.hint)
    text = f"{result.files} files by SHA-256; {result.numbers:,} numbers in {result.parts} parts are finite"
    return answer._replace(facts={**answer.facts, "verified": text})


def summary(answer: Answer, depth: int) -> dict[str, Any]:
    """The whole answer, as plain values."""
    record: dict[str, Any] = {"kind": answer.what, "format": answer.format, "facts": dict(answer.facts)}
    record |= {"note": answer.note, "fault": answer.fault, "mend": answer.mend}
    if (header := answer.header) is not None:
        parts = {name: {"tensors": n, "parameters": p} for name, (n, p) in header.groups(depth).items()}
        record |= {"bytes": header.size, "tensors": len(header.tensors), "parameters": header.parameters}
        record |= {"dtypes": header.dtypes(), "parts": parts, "metadata": dict(header.metadata)}
    if answer.model is not None:
        record["model"] = answer.model._asdict()
    return record


def show(file: Path, answer: Answer, depth: int) -> None:
    """Prints it for people; strings from the file are spelt out, so that they cannot command a terminal."""
    print(f"{quoted(file, 4096)}: {quoted(answer.what)} ({quoted(answer.format)})")
    for key, value in list(answer.facts.items())[:MAX_ROWS]:
        number = type(value) is int and abs(value) < 2**200 and key != "seed"
        print(f"  {quoted(key, 60)}: {f'{value:,}' if number else quoted(value, 400)}")
    if answer.note:
        print(f"  note: {quoted(answer.note, 1000)}")
    if answer.header is not None:
        show_tensors(answer.header, depth)


def show_tensors(header: Header, depth: int) -> None:
    """Prints how many numbers there are, of which types, and in which parts, and the header's metadata."""
    dtypes = ", ".join(f"{quoted(dtype, 20)} {count:,}" for dtype, count in header.dtypes().items() if dtype != "?")
    size = f"{header.size:,} bytes, " if header.size else ""
    print(
        f"  {size}{len(header.tensors):,} tensors, {header.parameters:,} parameters{f' ({dtypes})' if dtypes else ''}"
    )
    groups = list(header.groups(depth).items())
    for name, (tensors, numbers) in groups[:PARTS]:
        print(f"  {quoted(name, 60):<60} {tensors:>6,} tensors {numbers:>15,}")
    if len(groups) > PARTS:
        print(f"  and {len(groups) - PARTS:,} parts more, which --json lists")
    for key, value in list(header.metadata.items())[:MAX_ROWS]:
        print(f"  {quoted(key, 60)}: {quoted(value)}")
