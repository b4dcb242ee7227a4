"""Hashes of large files: a quick one, which reads some megabytes, and the SHA-256 of all bytes, with progress."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path

from unnoise.errors import UnnoiseError
from unnoise.weights.header import MAX_HEADER

BLOCKS, BLOCK = 64, 2**16  # of the data, evenly spread, and the bytes of each
SHORT = 10  # hex digits that people see, as other tools show them
PIECE = 2**22


def quick_hash(path: Path) -> str:
    """A hash (64 hex digits) of a file's size, header and 64 evenly spread blocks of 64 KiB of its data.

    It tells the files apart that people have, in milliseconds: no two trainings leave the same numbers in all blocks.
    It proves nothing against a forger, for which ``full_hash`` is there. The header is the whole header of a
    safetensors file, and of other files their first 64 KiB. Data of 4 MiB and less are read whole.

    Raises:
        UnnoiseError: the file cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _quick(handle, os.fstat(handle).st_size)
        finally:
            os.close(handle)
    except OSError as error:
        raise UnnoiseError(f"{path} cannot be read ({error.strerror})", "check the path and its rights") from None


def _quick(handle: int, size: int) -> str:
    length = struct.unpack("<Q", os.pread(handle, 8, 0).ljust(8, b"\0"))[0]
    begin = min(size, 8 + length if 2 <= length <= min(size - 8, MAX_HEADER) else BLOCK)
    digest = hashlib.sha256(struct.pack("<QQ", size, begin))
    digest.update(os.pread(handle, begin, 0))
    room = size - begin
    if room <= BLOCKS * BLOCK:
        digest.update(os.pread(handle, room, begin))
    else:
        for number in range(BLOCKS):  # the first begins with the data and the last ends with them
            digest.update(os.pread(handle, BLOCK, begin + number * (room - BLOCK) // (BLOCKS - 1)))
    return digest.hexdigest()


def full_hash(path: Path, advance: Callable[[int], object] = lambda count: None) -> str:
    """The SHA-256 (hex) of a file's bytes; ``advance`` hears after each piece how many bytes it had.

    Raises:
        UnnoiseError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(PIECE):
                digest.update(piece)
                advance(len(piece))
    except OSError as error:
        raise UnnoiseError(f"{path} cannot be read ({error.strerror})", "check the path and its rights") from None
    return digest.hexdigest()
