"""Small models in the layouts in which Stable Diffusion is published, with random weights, as users have them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unnoise.core import registry
from unnoise.weights import keys
from unnoise.weights.families.family import DENOISER, Family, families

SMALL: dict[str, dict[str, Any]] = {
    "sd1": {"channels": (32, 64), "depth": (1, 0), "middle": 1, "heads": (8, 8), "text_width": 64},
    "sd2": {"channels": (64, 64), "depth": (1, 0), "middle": 1, "heads": (1, 1), "text_width": 64, "linear": True},
    "sdxl": {
        "channels": (64, 128), "depth": (0, 2), "middle": 2, "heads": (1, 2), "text_width": 192, "linear": True,
        "added_width": 128 + 6 * 256,
    },
    "sdxl-refiner": {
        "channels": (64, 128), "depth": (0, 2), "middle": 2, "heads": (1, 2), "text_width": 128, "linear": True,
        "added_width": 128 + 5 * 256,
    },
}  # fmt: skip
WIDTHS = {"text.clip-l": 64, "text.clip-h": 64, "text.clip-g": 128}
VOCABULARY = 49408


def random_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with weights that keep the spread of what passes; norms about 1, and nothing that is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            fresh = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                weight.copy_(0.1 * fresh + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
            else:
                weight.copy_(fresh * weight[0].numel() ** -0.5)
    return module


def configs(family: Family, **changes: Any) -> dict[str, Any]:
    """{part: config} of a small model of that family; ``changes`` are fields of the denoiser's."""
    found: dict[str, Any] = {}
    for name, piece in family.pieces.items():
        cls = registry.find(piece.kind, piece.name).Config
        if name == DENOISER:
            found[name] = cls(**{"blocks": 1, **SMALL[family.name], **changes})
        elif name == "autoencoder":
            found[name] = cls(channels=(32, 32, 32, 32), blocks=1, **piece.hints)
        else:
            width = WIDTHS[name]
            depth = 3 + piece.cut  # an odd number of blocks is taken for a tower whose last one is left out
            shape = {
                "vocabulary": VOCABULARY,
                "length": 77,
                "width": width,
                "depth": depth,
                "heads": max(1, width // 64),
            }
            own = {**shape, "hidden": 2 * width, "end": VOCABULARY - 1, **piece.hints, **piece.settings}
            found[name] = cls(**own, projection=128 if name == "text.clip-g" else 0)
    return found


def modules(family: Family, **changes: Any) -> dict[str, nn.Module]:
    """{part: module} of a small model."""
    built = {}
    for seed, (name, config) in enumerate(configs(family, **changes).items()):
        piece = family.pieces[name]
        built[name] = random_weights(registry.find(piece.kind, piece.name)(config), seed).eval()
    return built


def single_file(
    path: Path,
    family: str,
    parts: Mapping[str, nn.Module] | None = None,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
    only: tuple[str, ...] = (),
    extra: Mapping[str, Tensor] | None = None,
    **changes: Any,
) -> dict[str, nn.Module]:
    """Writes a single file in original names, and returns its parts."""
    kind = families()[family]
    parts = dict(parts or modules(kind, **changes))
    tensors: dict[str, Tensor] = dict(extra or {})
    for name, module in parts.items():
        piece = kind.pieces[name]
        prefix, layout = piece.prefixes[0]
        if not only or name in only:
            rows = piece.names.table(module.config, layout)
            for theirs, tensor in keys.state_to_theirs(rows, module.state_dict()).items():
                tensors[prefix + theirs] = tensor.to(dtype).contiguous().clone()
    save_file(tensors, path, dict(metadata) if metadata else None)
    return parts


def diffusers_folder(path: Path, family: str, parts: Mapping[str, nn.Module] | None = None, **changes: Any) -> Any:
    """Writes a folder in diffusers' layout, without tokenizers, and returns its parts."""
    kind = families()[family]
    parts = dict(parts or modules(kind, **changes))
    index = {"_class_name": kind.pipelines[0], **kind.index}
    for name, module in parts.items():
        piece, config = kind.pieces[name], module.config
        if piece.cut:  # of such a tower the last block is left out
            config = dataclasses.replace(config, depth=config.depth - piece.cut, cut=piece.cut)
        folder = path / piece.folder
        folder.mkdir(parents=True)
        rows = piece.names.table(config, piece.layout)
        wanted = {ours for row in rows for ours in row.ours}
        state = {key: tensor for key, tensor in module.state_dict().items() if key in wanted}
        stem = "model" if piece.kind == "encoders" else "diffusion_pytorch_model"
        theirs = {key: tensor.contiguous().clone() for key, tensor in keys.state_to_theirs(rows, state).items()}
        save_file(theirs, folder / f"{stem}.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(piece.names.to_config(config)))
        index[piece.folder] = list(piece.library)
    (path / "model_index.json").write_text(json.dumps(index))
    return parts
