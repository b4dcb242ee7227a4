"""Model folders: the networks that make pictures, with everything needed to run them.

A folder holds ``model.json`` (its parts under names of their own, each in names of the registry and plain settings),
safetensors in shards of 15 MiB (larger ones where there would be very many), and text files that belong to a part
(``tokenizer.json``). Nothing in it is code. Weights are mapped from their files, not read. What their headers show is
checked at each load; hashes and numbers are ``weights.verify``'s to check.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unnoise.errors import UnnoiseError
from unnoise.files import expanded, new_folder, save_tensors, sha256, write_json
from unnoise.weights.parts import describe
from unnoise.weights.record import FORMAT, MODEL, check_part_name, read_record
from unnoise.weights.shards import DIGEST, Shards
from unnoise.weights.verify import verify_written

SHARD_BYTES, MANY = 15 * 2**20, 64  # a shard's size, which grows where a part would have more than so many shards
PLANAR = (nn.Conv2d, nn.ConvTranspose2d)
Device = torch.device | str


def load_model(
    path: Path,
    parts: Sequence[str],
    device: Device | Mapping[str, Device] = "cpu",
    dtype: torch.dtype | Mapping[str, torch.dtype] | None = torch.float32,
) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """({part: module in evaluation mode}, the folder's record).

    A weight is copied only where it must be: to another device or dtype, or, of a convolution in two dimensions, into
    the order in which processors compute it twice as fast (channels last). All others stay mapped.

    Args:
        path: the folder.
        parts: their names; the weights of others are left alone.
        device: where the parts go, or {part: device}; the processor for those that are not named.
        dtype: of their weights, or {part: dtype}; None, as for parts that are not named, is the one in the files.

    Raises:
        UnnoiseError: no such model, a part that it lacks, a damaged file, or weights that do not fit. Whether weights
            are finite is not asked: that would read them all. A run that meets such a number ends with an error.
    """
    path = expanded(path)
    record = read_record(path)
    missing = [part for part in parts if part not in record["parts"]]
    if missing:
        names = ", ".join(record["parts"])
        raise UnnoiseError(f"the model at {path} has no {missing[0]}, only {names}", "name another model folder")
    shards = Shards(path, record)
    modules: dict[str, nn.Module] = {}
    for part in parts:
        module, places = shards.fitted(part)
        to_device = device.get(part, "cpu") if isinstance(device, Mapping) else device
        to_dtype = dtype.get(part) if isinstance(dtype, Mapping) else dtype
        planes = planar(module)
        state = {name: placed(tensor, to_device, to_dtype, name in planes) for name, tensor in shards.tensors(places)}
        module.load_state_dict(state, assign=True)
        modules[part] = module.eval().requires_grad_(False)
    return modules, record


def planar(module: nn.Module) -> set[str]:
    """The names of the weights of convolutions in two dimensions."""
    return {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, PLANAR)}


def placed(tensor: Tensor, device: Device, dtype: torch.dtype | None, flat: bool) -> Tensor:
    """A weight where it is needed, in that precision; ``flat`` ones are laid out channels last."""
    dtype = dtype if tensor.is_floating_point() else None
    order = torch.channels_last if flat else torch.preserve_format
    return tensor.to(device=device, dtype=dtype or tensor.dtype, memory_format=order)


def save_model(
    path: Path,
    parts: Mapping[str, nn.Module],
    info: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
    dtype: torch.dtype | Mapping[str, torch.dtype] = torch.bfloat16,
    replace: bool = False,
) -> None:
    """Writes a model folder, whole or not at all, and reads it back before it gets its name.

    Args:
        path: the folder; must not exist, unless ``replace`` is True.
        parts: {name: module}; a name has small letters and digits with dots, dashes or underscores between.
        info: what else to record: how it was trained, defaults of generation.
        texts: further files by name, such as tokenizer.json and MODEL_CARD.md.
        dtype: of the weights, or {part: dtype}, bfloat16 for parts that are not named; buffers keep theirs.

    Raises:
        UnnoiseError: the folder exists, the disk is full or cannot be written, a part cannot be described, weights are
            not finite, or what was written is not what was read back.
    """
    entries = {part: describe(module) for part, module in parts.items()}
    for part in parts:
        check_part_name(part)
    for name in texts or {}:
        if Path(name).name != name or not name.strip("."):
            raise UnnoiseError(f"{name} is no name for a file of a model", "name it without folders")
    with new_folder(expanded(path), replace) as scratch:
        files: dict[str, str] = {}
        for part, module in parts.items():
            weights = dtype.get(part, torch.bfloat16) if isinstance(dtype, Mapping) else dtype
            digests = _write_shards(scratch, part, module, weights)
            entries[part] |= {"dtype": str(weights).removeprefix("torch."), "shards": digests}
            files |= {name: sha256(scratch / name) for name in digests}
        for name, text in (texts or {}).items():
            (scratch / name).write_text(text, encoding="utf-8")
            files[name] = sha256(scratch / name)
        write_json(scratch / MODEL, {"format": FORMAT, "parts": entries, **(info or {}), "files": files})
        verify_written(scratch, parts)


def _write_shards(folder: Path, part: str, module: nn.Module, dtype: torch.dtype) -> dict[str, str]:
    """Writes the weights of a part; {file: what distinguishes its header from all others}."""
    weights = {name for name, _ in module.named_parameters()}
    state = {name: (tensor, dtype if name in weights else tensor.dtype) for name, tensor in module.state_dict().items()}
    shards = _shards({name: tensor.numel() * kind.itemsize for name, (tensor, kind) in state.items()})
    digests: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = folder / f"{part}-{number:02d}-of-{len(shards):02d}.safetensors"
        tensors = {f"{part}.{name}": state[name][0].detach().cpu().to(state[name][1]) for name in names}
        digests[file.name] = _digest(tensors)
        save_tensors(file, tensors, {DIGEST: digests[file.name]})
    return digests


def _shards(sizes: Mapping[str, int]) -> list[list[str]]:
    """Names, in their order, in groups whose tensors fit into a shard together."""
    shards: list[list[str]] = [[]]
    size, limit = 0, max(SHARD_BYTES, sum(sizes.values()) // MANY)
    for name, count in sizes.items():
        if size + count + 256 > limit - 65536 and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += count + 256
    return shards


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 (hex) of the tensors' names and numbers."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
