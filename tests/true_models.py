"""Files of published models at their true sizes that hold headers alone: their numbers are holes in a sparse file."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from unnoise.core import registry
from unnoise.weights import keys
from unnoise.weights.config import to_json
from unnoise.weights.families.family import DENOISER, families
from unnoise.weights.parts import build

WIDE = {"channels": (320, 640, 1280), "depth": (0, 2, 10), "middle": 10, "heads": (5, 10, 20), "linear": True}
TRUE: dict[str, dict[str, Any]] = {
    "sd1": {},
    "sd2": {"heads": (5, 10, 20, 20), "text_width": 1024, "linear": True},
    "sdxl": {**WIDE, "text_width": 2048, "added_width": 2816},
    "sdxl-refiner": {
        "channels": (384, 768, 1536, 1536), "depth": (0, 4, 4, 0), "middle": 4, "heads": (6, 12, 24, 24),
        "text_width": 1280, "added_width": 2560, "linear": True,
    },
}  # fmt: skip
TOWERS: dict[str, dict[str, Any]] = {
    "text.clip-l": {"width": 768, "depth": 12, "heads": 12, "hidden": 3072},
    "text.clip-h": {"width": 1024, "depth": 24, "heads": 16, "hidden": 4096},
    "text.clip-g": {"width": 1280, "depth": 32, "heads": 20, "hidden": 5120, "projection": 1280},
}
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}


@cache
def shapes(family: str, part: str, layout: str, **changes: Any) -> dict[str, tuple[int, ...]]:
    """{bare name: shape} of a part at its true size, in a layout."""
    piece = families()[family].pieces[part]
    cls: Any = registry.find(piece.kind, piece.name)
    if part == DENOISER:
        config = cls.Config(**{**TRUE[family], **changes})
    elif part == "autoencoder":
        config = cls.Config()
    else:
        config = cls.Config(vocabulary=49408, length=77, **TOWERS[part], **piece.settings)
    entry = {"kind": piece.kind, "name": piece.name, "config": to_json(config)}
    own = {name: tuple(tensor.shape) for name, tensor in build(part, entry).state_dict().items()}
    return {row.theirs: keys.shapes_to_theirs(row, own) for row in piece.names.table(config, layout)}


def single_file(family: str, parts: Iterable[str] = (), **changes: Any) -> dict[str, tuple[int, ...]]:
    """{name: shape} of a single file with these parts, or all, in original names."""
    found = {}
    for part in parts or families()[family].pieces:
        prefix, layout = families()[family].pieces[part].prefixes[0]
        own = changes if part == DENOISER else {}
        found |= {prefix + name: shape for name, shape in shapes(family, part, layout, **own).items()}
    return found


def write_sparse(
    path: Path, tensors: dict[str, tuple[int, ...]], dtype: str = "F16", metadata: dict[str, str] | None = None
) -> int:
    """Writes a safetensors file whose numbers take no room on the disk; its size in bytes."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in tensors.items():
        size = BYTES[dtype]
        for axis in shape:
            size *= axis
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + end)
    return path.stat().st_size


def folder(path: Path, family: str, dtype: str = "F16", **changes: Any) -> None:
    """Writes a folder in diffusers' layout whose numbers take no room."""
    kind = families()[family]
    index: dict[str, Any] = {"_class_name": kind.pipelines[0]}
    for part, piece in kind.pieces.items():
        own = path / piece.folder
        own.mkdir(parents=True)
        stem = "model" if piece.kind == "encoders" else "diffusion_pytorch_model"
        changed = changes if part == DENOISER else {}
        write_sparse(own / f"{stem}.safetensors", shapes(family, part, piece.layout, **changed), dtype)
        index[piece.folder] = list(piece.library)
    (path / "model_index.json").write_text(json.dumps(index))
