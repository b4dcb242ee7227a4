"""Tensors of any file written as safetensors, storage after storage, in little memory and without torch.

Each storage is read once from front to back; the numbers of each of its tensors are converted on their way and written
to their place. So a file of any size needs some megabytes, and the whole of a storage only where a tensor's numbers
do not lie in its order.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from unnoise.errors import UnnoiseError
from unnoise.weights.header import BITS, MAX_HEADER
from unnoise.weights.nested import Piece, contiguous
from unnoise.weights.stores import CHUNK, Store

Array = np.ndarray[Any, Any]
FLOATS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # what --dtype can ask for
REAL = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
GROWTH, SPARE = 8, 2**26  # of the output: so many times the input's bytes, and some more
MAX_SPREAD = 2**30  # bytes of a storage that is kept whole


class Place(NamedTuple):
    """A tensor's place in the file that is written: the type of its numbers, and its first and last byte."""

    piece: Piece
    dtype: str
    start: int
    end: int


def size_of(dtype: str) -> int:
    """The bytes of a number."""
    return BITS[dtype] // 8


def places(pieces: Sequence[Piece], dtype: str) -> list[Place]:
    """Where each tensor goes, in the pieces' order: wide numbers come first, so that each lies at a multiple of its
    size. ``dtype`` is "keep" or a key of ``FLOATS``."""
    kinds = [FLOATS[dtype] if dtype in FLOATS and each.dtype in (*REAL, "BF16") else each.dtype for each in pieces]
    starts, at = [0] * len(pieces), 0
    for index in sorted(range(len(pieces)), key=lambda i: -size_of(kinds[i])):
        starts[index] = at
        at += math.prod(pieces[index].shape) * size_of(kinds[index])
    return [
        Place(each, kind, start, start + math.prod(each.shape) * size_of(kind))
        for each, kind, start in zip(pieces, kinds, starts, strict=True)
    ]


def rewrite(target: int, pieces: Sequence[Piece], stores: Mapping[str, Store], dtype: str, source_size: int) -> None:
    """Writes tensors as a safetensors file.

    Args:
        target: the file to write, empty and open.
        pieces: what to write, in the order of the header.
        stores: their numbers.
        dtype: what real numbers become: "keep", or a key of ``FLOATS``.
        source_size: bytes of the file that they come from.

    Raises:
        ValueError: a storage is missing, too short or damaged, or the output would be out of all proportion.
        UnnoiseError: a number is out of the range of ``dtype``.
    """
    plan = places(pieces, dtype)
    total, most = max((place.end for place in plan), default=0), GROWTH * source_size + SPARE
    if total > most:
        raise ValueError(f"its tensors would unfold to {total:,} bytes from {source_size:,}")
    record: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    record |= {
        place.piece.name: {"dtype": place.dtype, "shape": place.piece.shape, "data_offsets": [place.start, place.end]}
        for place in plan
    }
    head = json.dumps(record, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    if len(head) > MAX_HEADER:
        raise ValueError(f"the names of its tensors take {len(head):,} bytes")
    write(target, struct.pack("<Q", len(head)) + head, 0)
    if total:
        write(target, b"\0", 8 + len(head) + total - 1)  # the file has its size from the beginning
    groups: dict[str, list[Place]] = {}
    for place in plan:
        groups.setdefault(place.piece.storage, []).append(place)
    for name, group in groups.items():
        if name not in stores:
            raise ValueError(f"the numbers of {group[0].piece.name[:80]} are not in it")
        _fill(target, 8 + len(head), group, stores[name])


def write(target: int, data: bytes | memoryview, at: int) -> None:
    """Writes all bytes at a place of a file."""
    view = memoryview(data)
    while view:
        count = os.pwrite(target, view, at)
        view, at = view[count:], at + count


class _Spread:
    """A tensor whose numbers do not lie in its order: they are gathered from the bytes that hold them all."""

    def __init__(self, place: Place) -> None:
        self.place, piece = place, place.piece
        self.item = size_of(piece.dtype)
        count = 1 + sum((n - 1) * step for n, step in zip(piece.shape, piece.strides, strict=True))
        if count * self.item > MAX_SPREAD:
            raise ValueError(f"{piece.name[:80]} lies scattered over {count * self.item:,} bytes")
        self.bytes = bytearray(count * self.item)

    def blocks(self) -> Iterator[bytes]:
        """Its numbers in order."""
        flat = np.frombuffer(self.bytes, dtype=f"V{self.item}")
        piece = self.place.piece
        view = as_strided(flat, piece.shape, [step * self.item for step in piece.strides], writeable=False)
        for block in _blocks(view):
            yield np.ascontiguousarray(block).tobytes()


def _blocks(array: Array) -> Iterator[Array]:
    """Parts of an array, in order, of at most ``CHUNK`` bytes."""
    if array.nbytes <= CHUNK:
        yield array
        return
    if len(array) == 1:
        yield from _blocks(array[0])
        return
    step = max(1, len(array) * CHUNK // array.nbytes)
    for start in range(0, len(array), step):
        yield from _blocks(array[start : start + step])


def _fill(target: int, begin: int, group: list[Place], store: Store) -> None:
    """Writes all tensors of one storage."""
    whole: list[Place] = []
    spread: list[Place] = []
    for place in group:
        piece = place.piece
        if 0 in piece.shape:
            continue
        count = 1 + sum((n - 1) * step for n, step in zip(piece.shape, piece.strides, strict=True))
        if (piece.offset + count) * size_of(piece.dtype) > store.size:
            raise ValueError(f"the numbers of {piece.name[:80]} are not all in it")
        steps = zip(piece.shape, piece.strides, contiguous(piece.shape), strict=True)
        in_order = all(n == 1 or ours == theirs for n, ours, theirs in steps)
        (whole if in_order else spread).append(place)
    gathered = [_Spread(place) for place in spread]
    if sum(len(each.bytes) for each in gathered) > MAX_SPREAD:
        raise ValueError(f"tensors lie scattered over one storage of {store.size:,} bytes")
    at = 0
    for chunk in store.chunks():
        for place in whole:
            item = size_of(place.piece.dtype)
            start = place.piece.offset * item
            end = start + math.prod(place.piece.shape) * item
            low, high = max(start, at), min(end, at + len(chunk))
            if low < high:
                data = converted(memoryview(chunk)[low - at : high - at], place)
                write(target, data, begin + place.start + (low - start) // item * size_of(place.dtype))
        for each in gathered:
            start = each.place.piece.offset * each.item
            low, high = max(start, at), min(start + len(each.bytes), at + len(chunk))
            if low < high:
                each.bytes[low - start : high - start] = chunk[low - at : high - at]
        at += len(chunk)
    if at < store.size:
        raise ValueError("it is cut short")
    for each in gathered:
        position = begin + each.place.start
        for block in each.blocks():
            data = converted(memoryview(block), each.place)
            write(target, data, position)
            position += len(data)


def converted(data: memoryview, place: Place) -> memoryview | bytes:
    """Numbers of a tensor as those that are written: the same bytes, or each rounded as torch does, to the nearest
    float32 and from there to the nearest of the new type.

    Raises:
        UnnoiseError: one is out of the range of its new type.
    """
    source, target = place.piece.dtype, place.dtype
    if source == target:
        return data
    values = widened(data, source)
    with np.errstate(over="ignore"):
        single = values.astype("<f4")
        result: Array = narrowed(single) if target == "BF16" else single.astype(REAL[target])
    finite = np.isfinite(widened(result.data, target))
    if not finite.all() and np.isfinite(values[~finite]).any():
        dtype = next(name for name, kind in FLOATS.items() if kind == target)
        raise UnnoiseError(f"{place.piece.name} has numbers that {dtype} cannot hold", "choose another --dtype")
    return result.tobytes()


def widened(data: memoryview, dtype: str) -> Array:
    """Real numbers as an array; bfloat16, which NumPy does not know, as float32."""
    if dtype != "BF16":
        return np.frombuffer(data, REAL[dtype])
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")


def narrowed(values: Array) -> Array:
    """The bits of bfloat16 nearest to each float32, of two equally near the even one; NaN stays NaN."""
    bits = values.view("<u4")
    rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
    return np.where(np.isnan(values), bits >> 16 | 0x40, rounded).astype("<u2")
