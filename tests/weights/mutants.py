"""Valid small models as headers without numbers, and mutations of them: what an attacker or a broken disk makes."""

# ruff: noqa: E501
from __future__ import annotations

import copy
import json
import os
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from small_models import diffusers_folder, single_file
from weights.test_opening import write_gguf

WEIRD: tuple[Any, ...] = (
    0, -1, 1, 3, 2**31, 2**53, 2**63, 10**9, 10**12, 10**30, 1e308, float("nan"), float("inf"), -0.5, 0.1, "x", "", True,
    False, None, [], {}, [[[[]]]], [10**9] * 3, [0], [-1, 4], {"a": [1]}, "../../etc/passwd", "\x1b[2J\x07", "a\nb",
    ["torch", "nn"], "x" * 100_000, [1] * 10_000, "F8_E4M3", "I64", "\ud800", ["os", "system"], 32, 64, 7.0,
)  # fmt: skip
SCHEDULE = {
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "steps_offset": 1, "set_alpha_to_one": False, "num_train_timesteps": 1000, "prediction_type": "epsilon",
    "timestep_spacing": "leading", "original_inference_steps": 50, "rescale_betas_zero_snr": False,
}  # fmt: skip


def header_of(path: Path) -> tuple[dict[str, Any], int]:
    """(header, bytes behind it) of a safetensors file."""
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        return json.loads(file.read(length)), path.stat().st_size - 8 - length


def write_header(path: Path, header: dict[str, Any] | bytes, room: int) -> Path:
    """Writes a header, and behind it a hole of so many bytes in place of numbers."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + room)
    return path


class Models:
    """A single file, a folder with shards, and a GGUF file, of which mutants are made.

    Attributes:
        file, folder, gguf: the models.
        header, room: of the single file.
    """

    def __init__(self, root: Path) -> None:
        small = {"channels": (32, 32), "text_width": 64}
        parts = single_file(root / "real.safetensors", "sd1", dtype=torch.float16, **small)
        self.header, self.room = header_of(root / "real.safetensors")
        self.file = write_header(root / "file.safetensors", self.header, self.room)
        tensors = load_file(root / "real.safetensors")
        write_gguf(root / "real.gguf", tensors)
        self.gguf = root / "real.gguf"
        self.gguf_head = 4 + 4 + 16 + sum(8 + len(n) + 4 + 8 * t.ndim + 12 for n, t in tensors.items())
        (root / "real.safetensors").unlink()
        self.folder = root / "folder"
        diffusers_folder(self.folder, "sd1", parts)
        for file in self.folder.rglob("*.safetensors"):
            write_header(file, *header_of(file))
        (self.folder / "scheduler").mkdir()
        (self.folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULE))
        whole = self.folder / "unet/diffusion_pytorch_model.safetensors"
        header, room = header_of(whole)
        names = [name for name in header if name != "__metadata__"]
        self.shard = "diffusion_pytorch_model-00001-of-00001.safetensors"
        write_header(whole.with_name(self.shard), header, room)
        whole.unlink()
        self.index = self.folder / "unet/diffusion_pytorch_model.safetensors.index.json"
        self.index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, self.shard)}))

    def copy(self, path: Path) -> Path:
        """A copy of the folder; holes stay holes."""
        for file in self.folder.rglob("*"):
            target = path / file.relative_to(self.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".safetensors":
                write_header(target, *header_of(file))
            elif file.is_file():
                shutil.copy(file, target)
        return path

    def mutant(self, seed: int, place: Path) -> Path:
        """The file or folder of a mutation that the seed chooses; ``place`` is a folder that it may write in."""
        dice = random.Random(seed)
        kind = dice.choice(("bytes", "fields", "fields", "config", "config", "config", "gguf"))
        if kind == "bytes":
            text = _stirred(dice, json.dumps(self.header).encode())
            path = write_header(place / "m.safetensors", text, self.room)
            if dice.random() < 0.2:
                os.truncate(path, dice.randrange(path.stat().st_size))
            return path
        if kind == "fields":
            header = json.loads(json.dumps(self.header))
            for _ in range(dice.randint(1, 4)):
                _change_tensor(dice, header)
            return write_header(place / "m.safetensors", header, self.room)
        if kind == "gguf":
            data = bytearray(self.gguf.read_bytes()[: self.gguf_head])
            path = place / "m.gguf"
            path.write_bytes(_stirred(dice, bytes(data)))
            os.truncate(path, self.gguf.stat().st_size)
            return path
        folder = place / "m"
        if not folder.is_dir():
            self.copy(folder)
        names = sorted(file.relative_to(self.folder) for file in self.folder.rglob("*.json"))
        for name in names:  # a place is used again, and only one file of it differs
            shutil.copy(self.folder / name, folder / name)
        target = dice.choice(names)
        text = (self.folder / target).read_bytes()
        if dice.random() < 0.15:
            (folder / target).write_bytes(_stirred(dice, text))
        else:
            record = json.loads(text)
            for _ in range(dice.randint(1, 3)):
                _change(dice, record)
            (folder / target).write_text(json.dumps(record), "utf-8", "surrogatepass")
        return folder


def _weird(dice: random.Random) -> Any:
    return copy.deepcopy(dice.choice(WEIRD))


def _stirred(dice: random.Random, data: bytes) -> bytes:
    """The bytes with some changed, left out, or written twice."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8))):
        at = dice.randrange(len(changed))
        match dice.randrange(4):
            case 0:
                changed[at] = dice.randrange(256)
            case 1:
                del changed[at : at + dice.choice((1, 2, 30))]
            case 2:
                changed[at:at] = changed[at : at + dice.choice((1, 2, 30))]
            case _:
                changed[at : at + 8] = struct.pack("<Q", dice.choice((0, 1, 2**31, 2**53, 2**63, 2**64 - 1)))
    return bytes(changed)


def _change(dice: random.Random, record: dict[str, Any]) -> None:
    """Changes a value of a record, takes it away, or adds one."""
    key = dice.choice(list(record) or ["x"])
    inner = record.get(key)
    if isinstance(inner, dict) and inner and dice.random() < 0.7:
        _change(dice, inner)
    elif isinstance(inner, list) and inner and dice.random() < 0.4:
        inner[dice.randrange(len(inner))] = _weird(dice)
    elif dice.random() < 0.1:
        record.pop(key, None)
    elif dice.random() < 0.1:
        record[str(_weird(dice))[:50]] = _weird(dice)
    else:
        record[key] = _weird(dice)


def _change_tensor(dice: random.Random, header: dict[str, Any]) -> None:
    """Changes an entry of a header."""
    name = dice.choice(list(header) or ["x"])
    entry = header.get(name)
    match dice.randrange(7):
        case 0:
            header.pop(name, None)
        case 1:
            header[name + dice.choice(("x", "\x1b[2J", "/../..", ".weight", "\0"))] = header.pop(name, {})
        case 2:
            header[str(_weird(dice))[:2000]] = _weird(dice)
        case 3 if isinstance(entry, dict) and isinstance(entry.get("shape"), list):
            shape = [*entry["shape"], 1]
            shape[dice.randrange(len(shape))] = _weird(dice)
            entry["shape"] = shape
        case 4 if isinstance(entry, dict) and isinstance(entry.get("data_offsets"), list):
            entry["data_offsets"] = [0, entry["data_offsets"][0]]
        case 5:
            header["__metadata__"] = dice.choice((WEIRD[18], {"modelspec.prediction_type": _weird(dice)}, {"a": "b"}))
        case _ if isinstance(entry, dict):
            entry[dice.choice(("dtype", "shape", "data_offsets"))] = _weird(dice)
