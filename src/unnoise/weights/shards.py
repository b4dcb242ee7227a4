"""The safetensors files of a model folder: whose weights are in which, by their headers, and the weights, mapped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from unnoise.errors import UnnoiseError
from unnoise.weights.header import Header, read_header
from unnoise.weights.parts import build
from unnoise.weights.record import AGAIN, MODEL, check_file
from unnoise.weights.shapes import FLOATS, Place

DIGEST = "sha256"  # the key of a header's metadata that distinguishes one shard from all others: of its numbers
WHOLE = {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}  # of buffers


class Shards:
    """The shards of one model folder; each header is read once.

    Args:
        path: the folder.
        record: its record, as ``read_record`` has it.
    """

    def __init__(self, path: Path, record: Mapping[str, Any]) -> None:
        self.path, self.record = path, record
        self.headers: dict[str, Header] = {}

    def header(self, name: str, digest: str | None) -> Header:
        """The header of a shard, which must be the one that the record means.

        Raises:
            UnnoiseError: it is missing, damaged, cut short, or of another model.
        """
        if name not in self.headers:
            file = check_file(self.path, name)
            try:
                self.headers[name] = read_header(file)
            except UnnoiseError as error:
                raise UnnoiseError(error.what, AGAIN) from None
            if digest is not None and self.headers[name].metadata.get(DIGEST) != digest:
                raise UnnoiseError(f"{file} is damaged: it is not the file that {MODEL} means", AGAIN)
        return self.headers[name]

    def places(self, part: str) -> dict[str, Place]:
        """{name in the part: where it lies} of all tensors of a part.

        A tensor is called by its part, a dot and its name in it. Names of parts may have dots themselves: a file's
        tensors are of those parts that name the file, and of no other.

        Raises:
            UnnoiseError: a damaged file, a tensor that is there twice, or one that is of no part, or of two.
        """
        places: dict[str, Place] = {}
        entries = self.record["parts"]
        for name, digest in entries[part]["shards"].items():
            owners = [other for other, entry in entries.items() if name in entry["shards"]]
            for tensor, (dtype, shape) in self.header(name, digest).tensors.items():
                own = [other for other in owners if tensor.startswith(f"{other}.")]
                short = tensor.removeprefix(f"{part}.")
                if len(own) != 1 or (own == [part] and short in places):
                    raise UnnoiseError(f"{self.path / name} holds the unknown weight {tensor!r}", "it is damaged")
                if own == [part]:
                    places[short] = Place(self.path / name, tensor, dtype, tuple(shape or ()))
        return places

    def fitted(self, part: str) -> tuple[nn.Module, dict[str, Place]]:
        """(the part on the meta device, where its tensors lie), which fit by name, shape and type.

        Raises:
            UnnoiseError: they do not, or the record does not describe the part.
        """
        places = self.places(part)
        entry = self.record["parts"][part]
        module = build(part, entry, len(places))
        tensors = module.state_dict()
        where = f"the weights at {self.path} do not fit their {part}"
        for faults, what in (
            (tensors.keys() - places.keys(), "lack"),
            (places.keys() - tensors.keys(), "have besides"),
        ):
            if faults:
                raise UnnoiseError(f"{where}: they {what} {_some(faults)}", "it is damaged")
        weights, stored = {name for name, _ in module.named_parameters()}, entry.get("dtype")
        for name, tensor in tensors.items():
            place = places[name]
            if tensor.shape != place.shape:
                shapes = f"{list(place.shape)}, not {list(tensor.shape)}"
                raise UnnoiseError(f"{where}: {name} has the shape {shapes}", "it is damaged")
            kinds = FLOATS.values() if tensor.is_floating_point() else [WHOLE.get(tensor.dtype, "")]
            if place.dtype not in kinds:
                fault = f"the model at {self.path} has weights that are not numbers ({part}.{name} is {place.dtype})"
                raise UnnoiseError(fault, f"write it as one of: {', '.join(kinds)}")
            if stored is not None and name in weights and place.dtype != FLOATS.get(str(stored)):
                raise UnnoiseError(f"{where}: {name} is {place.dtype}, not {str(stored)[:20]}", "it is damaged")
        return module, places

    def tensors(self, places: Mapping[str, Place]) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of all places; see ``mapped``."""
        yield from mapped(places)


def mapped(places: Mapping[str, Place]) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of all places, mapped: memory that the system reads from the file when it is looked at.

    What is written to such a tensor stays in memory, and does not reach the file.

    Raises:
        UnnoiseError: a file is damaged.
    """
    files: dict[Path, list[str]] = {}
    for name, place in places.items():
        files.setdefault(place.file, []).append(name)
    for file, names in files.items():
        try:
            if places[names[0]].start is not None:
                whole = torch.from_file(str(file), size=file.stat().st_size, dtype=torch.uint8)
                for name in names:
                    yield name, _at(whole, places[name])
                continue
            with safe_open(file, "pt") as shard:
                for name in names:
                    yield name, shard.get_tensor(places[name].name)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise UnnoiseError(f"{file} is damaged ({error})", AGAIN) from None


def _at(whole: Tensor, place: Place) -> Tensor:
    """The tensor at a place of a file's bytes: a view, unless it begins between numbers."""
    dtype = next(getattr(torch, name) for name, short in FLOATS.items() if short == place.dtype)
    start = place.start or 0
    piece = whole[start : start + math.prod(place.shape) * dtype.itemsize]
    return (piece if start % dtype.itemsize == 0 else piece.clone()).view(dtype).reshape(place.shape)


def _some(names: set[str]) -> str:
    first = ", ".join(name[:80] for name in sorted(names)[:3])
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first
