"""Files of weights as other programs write them, and as nobody should: for the tests of ``unnoise convert``."""

from __future__ import annotations

import functools
import io
import os
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn


def saved(value: Any, legacy: bool = False) -> bytes:
    """The bytes of ``torch.save``, as it writes today or as it did before version 1.6."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Tensors of every kind that checkpoints have: types, views, shared storages, no numbers, one number."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(6, 8, generator=generator)
    floats = (torch.float16, torch.bfloat16, torch.float64)
    whole = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    return OrderedDict(
        {
            "first.weight": base,
            "first.tied": base,
            "a.row": base[2],
            "a.transposed": base.t(),
            "a.strided": base[::2, 1::3],
            "a.permuted": torch.randn(2, 3, 4, 5, generator=generator).permute(3, 0, 2, 1),
            "a.last": torch.randn(2, 3, 4, 4, generator=generator).to(memory_format=torch.channels_last),
            "a.expanded": torch.randn(1, 3, generator=generator).expand(4, 3),
            "empty": torch.zeros(0, 3),
            "scalar": torch.tensor(3.5),
            "parameter": nn.Parameter(torch.randn(3, generator=generator)),
            "special": torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45]),
            **{f"b.{dtype}": torch.randn(5, generator=generator).to(dtype) for dtype in floats},
            **{f"c.{dtype}": torch.tensor([0, 1, 1, 0, 1]).to(dtype) for dtype in whole},
            "d.float8": torch.randn(4, generator=generator).to(torch.float8_e4m3fn),
            "d.uint16": torch.tensor([1, 2, 3], dtype=torch.int32).to(torch.uint16),
        }
    )


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have one type, one shape and the same bits."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    one, other = (t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (one, other))
    return bool(torch.equal(one, other))


def rezipped(data: bytes, change: Callable[[dict[str, bytes]], Any], packed: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with other entries, whose checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    change(entries)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packed) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return stream.getvalue()


def with_pickle(change: Callable[[bytes], bytes], value: Any = None) -> bytes:
    """A file of torch.save whose pickle is another, with a right checksum."""

    def apply(entries: dict[str, bytes]) -> None:
        entries["archive/data.pkl"] = change(entries["archive/data.pkl"])

    return rezipped(saved({"w": torch.arange(6.0).reshape(2, 3)} if value is None else value), apply)


# traps: each touches a file called "boom" where it is opened as pickles are


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


TOUCH = "open('boom', 'w').close()"
SYSTEM = b"cos\nsystem\n(S'touch boom'\ntR."
EVAL = f"cbuiltins\neval\n(S{TOUCH!r}\ntR.".encode()


def traps() -> Mapping[str, tuple[bytes, str]]:
    """{kind: (a file, what it would call)}; ``pickle.load`` or ``torch.load`` of each touches "boom"."""
    state = {"w": torch.ones(2), "x": Calls(os.system, "touch boom")}
    hidden = pickle.dumps(Calls(eval, TOUCH))
    return {
        "os.system": (pickle.dumps(Calls(os.system, "touch boom")), "posix.system"),
        "eval": (pickle.dumps({"w": Calls(eval, TOUCH)}), "builtins.eval"),
        "exec": (pickle.dumps([Calls(exec, TOUCH)], protocol=0), "exec"),
        "in a zip": (saved(state), "system"),
        "in the old format": (saved(state, legacy=True), "system"),
        "by hand": (SYSTEM, "os.system"),
        "in the middle": (with_pickle(lambda data: data[:-1] + b"0" + EVAL), "builtins.eval"),
        "an instance": (b"(S'touch boom'\nios\nsystem\n.", "os.system"),
        "an object": (b"(cos\nsystem\nS'touch boom'\no.", "os.system"),
        "a name put together": (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0atouch boom\x85R.", "os.system"),
        "by another's module": (DETOUR, "os.system"),
        "getattr": (GETATTR, "builtins.getattr"),
        "a pickle in a pickle": (pickle.dumps(Calls(pickle.loads, hidden)), "_pickle.loads"),
        "after the end": (pickle.dumps(Calls(os.system, "touch boom")) + b"\x00garbage", "posix.system"),
        "cut short": (SYSTEM[:-1] + b"X\xff\xff\xff\x7f", "os.system"),
    }  # fmt: skip


DETOUR = b"\x80\x04\x8c\x0ctorch._utils\x8c\x09os.system\x93\x8c\x0atouch boom\x85R."
GETATTR = b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'touch boom'\ntR."


def untried_traps() -> Mapping[str, tuple[bytes, str]]:
    """{kind: (a file, what it would call)} of those that need more than a loader to strike."""
    partial = functools.partial(torch.load, "other.bin", weights_only=False)
    return {
        "torch.load by functools.partial": (pickle.dumps(partial), "functools.partial, torch.serialization.load"),
        "a pickle kept for later": (pickle.dumps({"payload": pickle.dumps(Calls(eval, TOUCH))}), "builtins.eval"),
        "storages that are pickles": (pickle.dumps(torch.ones(2)), "torch.storage._load_from_bytes"),
        "a registered extension": (b"\x80\x02\x82\x01.", "a registered extension"),
        "a result that is called": (b"cbuiltins\nint\n(tR(tR.", "something that it makes itself"),
        "memory that was not kept": (b"\x80\x04cos\nsystem\nV touch boom\n\x85h\x63.", "os.system"),
        "a module of torch": (b"ctorch.hub\nload\n(S'x'\ntR.", "torch.hub.load"),
    }


# zips that lie


def mismatched(data: bytes) -> bytes:
    """The name in front of an entry is not the one in the directory."""
    at = data.index(b"archive/data.pkl")
    return data[:at] + b"archive/datap.kl" + data[at + 16 :]


def flipped(data: bytes) -> bytes:
    """A byte of a storage is another, and its checksum is not."""
    at = data.index(b"archive/data/0") + 200
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def directory_of(data: bytes, name: bytes) -> int:
    """Where an entry's record begins in the directory."""
    at = data.index(b"PK\x01\x02")
    while data[at + 46 : at + 46 + len(name)] != name or struct.unpack_from("<H", data, at + 28)[0] != len(name):
        at = data.index(b"PK\x01\x02", at + 4)
    return at


def patched(data: bytes, name: bytes, offset: int, code: str, *values: int) -> bytes:
    """The directory's record of an entry has other numbers."""
    at = directory_of(data, name) + offset
    room = struct.calcsize(code)
    return data[:at] + struct.pack(code, *values) + data[at + room :]


def vast(data: bytes) -> bytes:
    """The directory claims two gigabytes."""
    at = data.index(b"PK\x06\x06") + 40
    return data[:at] + struct.pack("<Q", 2**31) + data[at + 8 :]
