"""Files of weights for tests: true names of tensors, tiny shapes, and the numbers that a test wants."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

Shape = tuple[int, ...]
UNET = "model.diffusion_model."
CROSS = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
CLIP = "text_model.embeddings.token_embedding.weight"
LAYER = "text_model.encoder.layers.0.self_attn.q_proj.weight"
OPENCLIP = {"token_embedding.weight": 2, "transformer.resblocks.0.attn.in_proj_weight": 6}


def unet(width: int, prefix: str = "", channels: int = 4) -> dict[str, Shape]:
    """The U-Net of a Stable Diffusion whose prompts are so wide, original names."""
    return {f"{prefix}input_blocks.0.0.weight": (2, channels, 3, 3), f"{prefix}{CROSS}": (2, width)}


def diffusers_unet(width: int) -> dict[str, Shape]:
    """The same with diffusers' names."""
    cross = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    more = {"time_embedding.linear_1.weight": (2, 2), "down_blocks.0.resnets.0.conv1.weight": (2, 2, 3, 3)}
    return {"conv_in.weight": (2, 4, 3, 3), **more, cross: (2, width)}


def vae(prefix: str = "", channels: int = 4) -> dict[str, Shape]:
    """An autoencoder, original names."""
    return {f"{prefix}decoder.conv_in.weight": (2, channels, 3, 3), f"{prefix}decoder.mid.block_1.conv1.weight": (2,)}


def diffusers_vae() -> dict[str, Shape]:
    """An autoencoder with diffusers' names."""
    names = ("decoder.up_blocks.0.resnets.0.conv1.weight", "encoder.down_blocks.0.resnets.0.conv1.weight")
    return {"decoder.conv_in.weight": (2, 4, 3, 3), **dict.fromkeys(names, (2,))}


def clip(width: int, prefix: str = "") -> dict[str, Shape]:
    """A CLIP text tower, transformers' names."""
    return {f"{prefix}{CLIP}": (2, width), f"{prefix}{LAYER}": (2, width)}


def openclip(width: int, prefix: str = "") -> dict[str, Shape]:
    """A CLIP text tower, OpenCLIP's names."""
    return {f"{prefix}{name}": (rows, width) for name, rows in OPENCLIP.items()}


SD1 = {**unet(768, UNET), **clip(768, "cond_stage_model.transformer."), **vae("first_stage_model.")}
SD2 = {**unet(1024, UNET), **openclip(1024, "cond_stage_model.model."), **vae("first_stage_model.")}
SDXL = {
    **unet(2048, UNET), **clip(768, "conditioner.embedders.0.transformer."),
    **openclip(1280, "conditioner.embedders.1.model."), **vae("first_stage_model."),
}  # fmt: skip
REFINER = {**unet(1280, UNET), **openclip(1280, "conditioner.embedders.0.model."), **vae("first_stage_model.")}
LORA = {
    f"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_{half}.weight": shape
    for half, shape in (("down", (4, 2048)), ("up", (2, 4)))
}
TAESD = {f"decoder.layers.{n}.conv.0.weight": (2, 2) for n in range(1, 4)} | {"decoder.layers.0.weight": (2, 4, 3, 3)}


def write(path: Path, shapes: Mapping[str, Shape], fill: int = 0, metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file with float16 tensors of these names and shapes, all bytes ``fill``; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header, at = head(shapes, metadata)
    path.write_bytes(header + bytes([fill]) * at)
    return path


def sparse(path: Path, shapes: Mapping[str, Shape]) -> Path:
    """The same with all numbers zero, taking no room on the disk."""
    header, at = head(shapes, None)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + at)
    return path


def head(shapes: Mapping[str, Shape], metadata: Mapping[str, str] | None) -> tuple[bytes, int]:
    """(the header of such a file, how many bytes follow)."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, shape in shapes.items():
        end = at + 2 * math.prod(shape)
        entries[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    data = json.dumps(entries).encode()
    return struct.pack("<Q", len(data)) + data, at


def cached(
    hub: Path, name: str, files: Mapping[str, Mapping[str, Shape] | str], commit: str = "0123456789abcdef"
) -> Path:
    """A repository in a hub's cache, as huggingface_hub lays it out; returns the folder of its snapshot."""
    root = hub / f"models--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs/main").write_text(commit)
    (root / "blobs").mkdir(exist_ok=True)
    snapshot = root / "snapshots" / commit
    for number, (file, content) in enumerate(files.items()):
        blob = root / "blobs" / f"{commit}{number:02}"
        if isinstance(content, str):
            blob.write_text(content)
        else:
            write(blob, content, number)
        (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / file).unlink(missing_ok=True)
        up = "../" * (len(Path(file).parts) + 1)
        (snapshot / file).symlink_to(f"{up}blobs/{blob.name}")
    return snapshot
