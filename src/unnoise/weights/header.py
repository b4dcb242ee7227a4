"""What a weight file is, read from its header alone: no tensor is loaded, and no torch."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.errors import UnnoiseError
from unnoise.files import expanded

MAX_HEADER = 100_000_000  # what the safetensors library itself accepts
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "U16": 16,
    "U32": 32, "U64": 64, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
    "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64,
}  # fmt: skip
# (what it is, parts of names of which all must occur), the most special first
KINDS = (
    ("an unnoise model: autoencoder, text tower and denoiser", ("denoiser.network.", "text.token.", "autoencoder.")),
    ("a part of an unnoise model", ("denoiser.network.",)),
    ("a part of an unnoise model", ("autoencoder.latent_mean",)),
    ("a part of an unnoise model", ("text.token.weight",)),
    ("a Flux adapter (LoRA), kohya's names", ("lora_unet_double_blocks_", ".lora_down.weight")),
    ("an SDXL adapter (LoRA), kohya's names", ("lora_te2_", ".lora_down.weight")),
    ("an adapter (LoRA), kohya's names", (".lora_down.weight", ".lora_up.weight")),
    ("an adapter (LoRA), the names of diffusers and PEFT", (".lora_A.weight", ".lora_B.weight")),
    ("an adapter (LoHa)", (".hada_w1_a",)),
    ("an adapter (LoKr)", (".lokr_w1",)),
    ("textual inversion for SDXL", ("clip_l", "clip_g")),
    ("textual inversion", ("emb_params",)),
    ("Stable Diffusion XL, one file", ("conditioner.embedders.1.model.", "model.diffusion_model.")),
    ("Stable Diffusion 3, one file", ("joint_blocks.", "x_embedder.")),
    ("Flux", ("double_blocks.", "single_blocks.")),
    ("Flux, the names of diffusers", ("single_transformer_blocks.", "transformer_blocks.")),
    ("Stable Diffusion 2, one file", ("cond_stage_model.model.", "model.diffusion_model.")),
    ("Stable Diffusion 1, one file", ("cond_stage_model.transformer.", "model.diffusion_model.")),
    ("a Stable Diffusion U-Net, the names of diffusers", ("down_blocks.", "mid_block.", "time_embedding.")),
    ("an autoencoder, the names of diffusers", ("decoder.up_blocks.", "encoder.down_blocks.")),
    ("a CLIP text encoder", ("text_model.encoder.layers.",)),
    ("a T5 text encoder", ("encoder.block.", "SelfAttention")),
)


class Header(NamedTuple):
    """What the header of a safetensors file says.

    Attributes:
        tensors: {name: (dtype, shape)}.
        metadata: its strings.
        size: of the file in bytes.
    """

    tensors: dict[str, tuple[str, tuple[int, ...]]]
    metadata: dict[str, str]
    size: int

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return sum(math.prod(shape) for _, shape in self.tensors.values())

    def kind(self) -> str:
        """What it is, by its tensors' names; "unknown" where no name is known."""
        names = "\n".join(self.tensors)
        return next((what for what, parts in KINDS if all(part in names for part in parts)), "unknown")

    def dtypes(self) -> dict[str, int]:
        """{dtype: how many numbers}, the most frequent first."""
        counts: Counter[str] = Counter()
        for dtype, shape in self.tensors.values():
            counts[dtype] += math.prod(shape)
        return dict(counts.most_common())

    def groups(self, depth: int = 2) -> dict[str, tuple[int, int]]:
        """{beginning of the names: (tensors, numbers)}, in the order of the file."""
        found: dict[str, tuple[int, int]] = {}
        for name, (_, shape) in self.tensors.items():
            parts = name.split(".")
            key = ".".join(parts[: max(1, min(depth, len(parts) - 1))])
            tensors, numbers = found.get(key, (0, 0))
            found[key] = (tensors + 1, numbers + math.prod(shape))
        return found


def read_header(path: Path) -> Header:
    """The header of a safetensors file, checked against the file's size.

    Raises:
        UnnoiseError: no such file, another format (a pickle among them, which is never read), or damaged.
    """
    path = expanded(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = file.read(8)
            # zeros behind it are those of a length: a header of 640 bytes begins as a pickle does
            if begin[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04") and begin[2:].strip(b"\0"):
                raise UnnoiseError(f"{path} is a pickle, which can run code", "convert it to safetensors elsewhere")
            if begin[:4] == b"GGUF":
                raise UnnoiseError(f"{path} is a GGUF file, which is not read yet", "name a safetensors file")
            length = struct.unpack("<Q", begin)[0] if len(begin) == 8 else size
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise UnnoiseError(f"{path} is no safetensors file, or cut short", "copy it again")
            text = file.read(length)
    except FileNotFoundError:
        raise UnnoiseError(f"there is no file at {path}", "name a .safetensors file or a model folder") from None
    except IsADirectoryError:
        raise UnnoiseError(f"{path} is a folder that holds no model", "name a .safetensors file") from None
    except OSError as error:
        raise UnnoiseError(f"{path} cannot be read ({error.strerror})", "check the path") from None
    try:
        return _parse(json.loads(text), size - 8 - length, size)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UnnoiseError(f"the header of {path} is damaged ({error})", "copy it again") from None


def _parse(header: dict[str, Any], room: int, size: int) -> Header:
    metadata = header.pop("__metadata__", {})
    if any(type(value) is not str for value in metadata.values()):
        raise ValueError("its metadata are no strings")
    tensors = {}
    for name, entry in header.items():
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if any(type(n) is not int or n < 0 for n in (*shape, start, end)):
            raise ValueError(f"{name[:80]!r} has no shape")
        if not start <= end <= room:
            raise ValueError(f"{name[:80]!r} ends behind the file's end")
        if dtype in BITS and (end - start) * 8 != -(-math.prod(shape) * BITS[dtype] // 8) * 8:
            raise ValueError(f"{name[:80]!r} has {end - start} bytes for {math.prod(shape)} numbers of {dtype}")
        tensors[name] = (str(dtype), shape)
    return Header(tensors, metadata, size)
