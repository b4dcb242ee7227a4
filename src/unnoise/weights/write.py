"""Safetensors files written tensor by tensor, so that a model larger than memory can be: header first, then numbers."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.errors import UnnoiseError
from unnoise.weights.shapes import FLOATS
from unnoise.weights.shards import WHOLE

ALIGNED = 8  # bytes of which the header's length is a multiple, as the format's own library has it
NAMES = {getattr(torch, name): short for name, short in FLOATS.items()} | WHOLE | {torch.float64: "F64"}
PIECE = 2**24  # numbers that are written at a time


class Planned(NamedTuple):
    """A tensor that will be written: its name, dtype and shape, and what gives its numbers when their turn comes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(path: Path, planned: Iterable[Planned], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file. The caller renames it once it is whole.

    Raises:
        UnnoiseError: a tensor is not of the shape that was planned, or has numbers that its dtype cannot hold.
        OSError: the disk is full or cannot be written.
    """
    planned = list(planned)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for each in planned:
        offsets = [at, at + each.size]
        header[each.name] = {"dtype": NAMES[each.dtype], "shape": list(each.shape), "data_offsets": offsets}
        at += each.size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNED)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for each in planned:
            tensor = each.make()
            if tuple(tensor.shape) != each.shape:
                raise UnnoiseError(f"{each.name} became {list(tensor.shape)}", "the model is damaged")
            for piece in torch.split(tensor.detach().contiguous().flatten(), PIECE) if tensor.numel() else ():
                file.write(_cast(piece, each).view(torch.uint8).numpy().data)


def _cast(piece: Tensor, planned: Planned) -> Tensor:
    """The piece in the dtype that was planned.

    Raises:
        UnnoiseError: a finite number became infinite.
    """
    cast = piece.cpu().to(planned.dtype)
    if (
        cast.dtype != piece.dtype
        and cast.is_floating_point()
        and not bool(cast.isfinite().all())
        and bool(piece.isfinite().all())
    ):
        what = f"{planned.name} has numbers that {str(planned.dtype).removeprefix('torch.')} cannot hold"
        raise UnnoiseError(what, "write it in bfloat16 or float32")
    return cast
