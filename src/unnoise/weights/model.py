"""Model folders: the networks that make pictures, with everything needed to run them.

A folder holds ``model.json`` (what each component is, in names of the registry and plain settings), safetensors in
shards of at most 15 MiB, and whatever text files belong to a component (``tokenizer.json``). Nothing in it is code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unnoise.core import registry
from unnoise.core.denoiser import NOISE_LABELS, Denoiser
from unnoise.errors import UnnoiseError
from unnoise.files import new_folder, sha256, write_json
from unnoise.weights.config import from_json, to_json

FORMAT = 1
MODEL = "model.json"
SHARD_BYTES = 15 * 2**20
KINDS = {
    "autoencoder": "autoencoders",
    "text": "encoders",
    "image": "encoders",
    "pair": "encoders",
    "denoiser": "networks",
}


def describe(component: nn.Module) -> dict[str, Any]:
    """A component as JSON: its registered name and its config; a denoiser's path and prediction too."""
    if isinstance(component, Denoiser):
        return {
            **describe(component.network),
            "path": component.path.name,
            "prediction": component.prediction.name,
            "noise_label": component.noise_label,
        }
    return {"name": component.name, "config": to_json(component.config)}


def build(part: str, record: Mapping[str, Any]) -> nn.Module:
    """The component that a record describes, with fresh weights.

    Raises:
        UnnoiseError: the record names something that does not exist.
    """
    try:
        cls = registry.find(KINDS[part], str(record["name"]))
        config = from_json(cls.Config, record["config"], f"{MODEL}: {part}")
        module: nn.Module = cls(config)
        if part == "denoiser":
            if record["noise_label"] not in NOISE_LABELS:
                raise UnnoiseError(f"{MODEL} names the unknown noise label {record['noise_label']!r}", "update unnoise")
            path = registry.find("paths", str(record["path"]))()
            prediction = registry.find("predictions", str(record["prediction"]))()
            return Denoiser(module, path, prediction, str(record["noise_label"]))
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise UnnoiseError(f"{MODEL} does not describe a {part} ({error})", "the model is damaged") from None
    return module


def save_model(
    path: Path,
    components: Mapping[str, nn.Module],
    info: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Writes a model folder, whole or not at all.

    Args:
        path: the folder; must not exist.
        components: by part: "autoencoder", "text", "image", "denoiser".
        info: what else to record: how it was trained, defaults of generation.
        texts: further files by name, such as tokenizer.json and MODEL_CARD.md.
        dtype: of the weights; buffers keep theirs.
    """
    tensors: dict[str, Tensor] = {}
    for part, module in components.items():
        weights = {name for name, _ in module.named_parameters()}
        for name, tensor in module.state_dict().items():
            kept = tensor.to(dtype) if name in weights else tensor
            tensors[f"{part}.{name}"] = kept.detach().cpu().contiguous().clone()
    with new_folder(path) as scratch:
        files: dict[str, str] = {}
        shards = _shards(tensors)
        for number, names in enumerate(shards, 1):
            file = scratch / f"weights-{number:02d}-of-{len(shards):02d}.safetensors"
            save_file({name: tensors[name] for name in names}, file)
            files[file.name] = sha256(file)
        for name, text in (texts or {}).items():
            (scratch / name).write_text(text, encoding="utf-8")
            files[name] = sha256(scratch / name)
        record = {
            "format": FORMAT,
            "components": {part: describe(module) for part, module in components.items()},
            **(info or {}),
            "files": files,
        }
        write_json(scratch / MODEL, record)


def _shards(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        weight = tensor.numel() * tensor.element_size() + 256
        if size + weight > SHARD_BYTES - 65536 and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += weight
    return shards


def read_record(path: Path) -> dict[str, Any]:
    """The record of a model folder, every file of it verified.

    Raises:
        UnnoiseError: no model there, a newer format, or a file that is missing or damaged.
    """
    try:
        record = json.loads((path / MODEL).read_text(encoding="utf-8"))
        files, version, _ = dict(record["files"]), int(record["format"]), dict(record["components"])
    except (FileNotFoundError, NotADirectoryError):
        raise UnnoiseError(f"no model at {path}", f"name a folder that holds {MODEL}, or leave --model out") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UnnoiseError(f"{path / MODEL} is damaged", "copy or train the model again") from None
    if version > FORMAT:
        raise UnnoiseError(f"{path} has format {version}, this program reads up to {FORMAT}", "update unnoise")
    for name, expected in files.items():
        file = path / name
        if Path(name).name != name or not file.is_file() or sha256(file) != expected:
            raise UnnoiseError(f"{file} is missing or damaged", "copy or train the model again")
    return dict(record)


def load_model(
    path: Path, parts: Sequence[str], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """({part: module in evaluation mode}, the folder's record).

    Raises:
        UnnoiseError: no such model, a part that it lacks, a damaged file, or weights that are not finite or do not fit.
    """
    path = Path(path)
    record = read_record(path)
    missing = [part for part in parts if part not in record["components"]]
    if missing:
        held = ", ".join(record["components"])
        raise UnnoiseError(f"the model at {path} has no {missing[0]}, only {held}", "name another model folder")
    tensors = _tensors(path, record, parts)
    modules: dict[str, nn.Module] = {}
    for part in parts:
        module = build(part, record["components"][part])
        own = {n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")}
        for name, tensor in own.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise UnnoiseError(
                    f"the model at {path} has weights that are not numbers ({part}.{name})", "train it again"
                )
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:160]
            raise UnnoiseError(
                f"the weights at {path} do not fit their {part}: {reason}", "the model is damaged"
            ) from None
        modules[part] = module.to(device=device, dtype=dtype).eval().requires_grad_(False)
    return modules, record


def _tensors(path: Path, record: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    wanted = tuple(f"{part}." for part in parts)
    for name in record["files"]:
        if not name.endswith(".safetensors"):
            continue
        try:
            with safe_open(path / name, "pt") as file:
                tensors |= {key: file.get_tensor(key) for key in file.keys() if key.startswith(wanted)}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UnnoiseError(f"{path / name} is damaged ({error})", "copy or train the model again") from None
    return tensors
