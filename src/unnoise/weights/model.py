"""Model folders: the networks that make pictures, with everything needed to run them.

A folder holds ``model.json`` (what each component is, in names of the registry and plain settings), safetensors in
shards of at most 15 MiB, and whatever text files belong to a component (``tokenizer.json``). Nothing in it is code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from os.path import isfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unnoise.core import registry
from unnoise.core.denoiser import NOISE_LABELS, Denoiser
from unnoise.core.level import NoiseLevel
from unnoise.core.packages import check_installed
from unnoise.errors import UnnoiseError
from unnoise.files import expanded, new_folder, save_tensors, sha256, write_json
from unnoise.foreign import EMPTY, HEAD, PAGE, POINTER, head_of, kind_of
from unnoise.weights.config import from_json, to_json

FORMAT = 1
MODEL = "model.json"
MODEL_BYTES = 2**20
SHARD_BYTES = 15 * 2**20
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
KINDS = {
    "autoencoder": "autoencoders",
    "text": "encoders",
    "image": "encoders",
    "pair": "encoders",
    "denoiser": "networks",
}


def describe(component: nn.Module) -> dict[str, Any]:
    """A component as JSON: its registered name and its config; a denoiser's path and prediction too; and the other
    packages that it is made with, if any."""
    if isinstance(component, Denoiser):
        _as_registered(component)
        return {
            **describe(component.network),
            **_packages(component.network, component.path, component.prediction),
            "path": component.path.name,
            "prediction": component.prediction.name,
            "noise_label": component.noise_label,
        }
    return {"name": component.name, "config": to_json(component.config), **_packages(component)}


def _packages(*things: object) -> dict[str, list[str]]:
    names = {registry.package_of(type(thing)) for thing in things} - {""}
    return {"packages": sorted(names)} if names else {}


def _as_registered(denoiser: Denoiser) -> None:
    """Sees that a name alone is enough to make the denoiser's path and prediction again.

    Raises:
        UnnoiseError: they were made with settings of their own, which a model folder does not keep.
    """
    path, prediction = type(denoiser.path)(), type(denoiser.prediction)()
    level = NoiseLevel(0.8, 0.6)
    same = all(denoiser.path.at(t) == path.at(t) for t in (path.t_min, 0.3, 1.0))
    same = same and denoiser.path.t_min == path.t_min
    same = same and denoiser.prediction.target(level) == prediction.target(level)
    if not same:
        raise UnnoiseError(
            f"the path {denoiser.path.name} or the prediction {denoiser.prediction.name} has settings of its own",
            "register it under a name of its own, with these settings as its defaults",
        )


class Budget(TorchFunctionMode):
    """Ends the building of a network that wants far more tensors than there are weights for: what a file says of a
    network is believed only as far as its weights bear it out."""

    def __init__(self, tensors: int) -> None:
        super().__init__()
        self.calls_left = 1000 + 30 * tensors  # a layer makes about ten calls for each of its tensors

    def __torch_function__(self, call: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise ValueError("it wants more than its weights hold")
        if getattr(call, "__module__", "") == "torch.nn.init":  # first numbers are not needed here, and cost a second:
            return None  # on the meta device torch would import its compiler to draw them
        return call(*args, **(kwargs or {}))


def build(part: str, record: Any, tensors: int = 10_000) -> nn.Module:
    """The component that a record describes, on the meta device: shapes alone, to be filled with so many tensors.

    Raises:
        UnnoiseError: the record names something that does not exist, or a package that is not installed, or makes no
            sense.
    """
    try:
        check_installed(record.get("packages", []))
        cls = registry.find(KINDS[part], str(record["name"]))
        config = from_json(cls.Config, record["config"], f"{MODEL}: {part}")
        with Budget(tensors), torch.device("meta"):
            module: nn.Module = cls(config)
        if part == "denoiser":
            if record["noise_label"] not in NOISE_LABELS:
                raise UnnoiseError(f"{MODEL} names the unknown noise label {record['noise_label']!r}", "update unnoise")
            path = registry.find("paths", str(record["path"]))()
            prediction = registry.find("predictions", str(record["prediction"]))()
            return Denoiser(module, path, prediction, str(record["noise_label"]))
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UnnoiseError(f"{MODEL} does not describe a {part} ({error})", "the model is damaged") from None
    return module


def save_model(
    path: Path,
    components: Mapping[str, nn.Module],
    info: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.bfloat16,
    replace: bool = False,
) -> None:
    """Writes a model folder, whole or not at all.

    Args:
        path: the folder; must not exist, unless ``replace`` is True.
        components: by part: "autoencoder", "text", "image", "denoiser".
        info: what else to record: how it was trained, defaults of generation.
        texts: further files by name, such as tokenizer.json and MODEL_CARD.md.
        dtype: of the weights; buffers keep theirs.

    Raises:
        UnnoiseError: the folder exists, or the disk is full or cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for part, module in components.items():
        weights = {name for name, _ in module.named_parameters()}
        for name, tensor in module.state_dict().items():
            tensors[f"{part}.{name}"] = tensor.to(dtype) if name in weights else tensor
    with new_folder(expanded(path), replace) as scratch:
        files: dict[str, str] = {}
        shards = _shards(tensors)
        for number, names in enumerate(shards, 1):
            file = scratch / f"weights-{number:02d}-of-{len(shards):02d}.safetensors"
            save_tensors(file, {name: tensors[name] for name in names})
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
    damaged = UnnoiseError(f"{path / MODEL} is damaged", "copy or train the model again")
    if not isfile(path / MODEL):
        raise no_model(path)
    kind = kind_of(head_of(path / MODEL))
    if kind is not None and kind.format in (POINTER, PAGE):
        raise UnnoiseError(f"{path / MODEL} is {kind.name}", kind.mend)
    try:
        if (path / MODEL).stat().st_size > MODEL_BYTES:
            raise damaged
        record = json.loads((path / MODEL).read_bytes())
        files, version, components = record["files"], record["format"], record["components"]
    except (OSError, LookupError, RecursionError, TypeError, ValueError):
        raise damaged from None
    if type(version) is not int or version < 1 or not isinstance(files, dict) or not isinstance(components, dict):
        raise damaged
    if version > FORMAT:
        raise UnnoiseError(f"{path} has format {version}, this program reads up to {FORMAT}", "update unnoise")
    for name in files:
        read_file(path, record, name)
    return dict(record)


def no_model(path: Path) -> UnnoiseError:
    """Why there is no model of ours at a path: nothing is there, or something else, which is named."""
    hint = f"name a folder that holds {MODEL}, or leave --model out"
    if isfile(path):
        kind = kind_of(head_of(path))
        return UnnoiseError(f"no model at {path}: it is a file{f' ({kind.name})' if kind else ''}, not a folder", hint)
    if isfile(path / "model_index.json"):
        return UnnoiseError(f"no model at {path}: it holds one in diffusers' layout, which is not loaded yet", hint)
    return UnnoiseError(f"no model at {path}", hint)


def read_file(path: Path, record: Mapping[str, Any], name: str) -> bytes:
    """The bytes of a file that belongs to a model folder, after they were found to be what the record says.

    Raises:
        UnnoiseError: the record has no such file, it is not in the folder, or it is missing or damaged.
    """
    file = path / name
    data = None
    with contextlib.suppress(
        OSError, RuntimeError, ValueError
    ):  # a loop of links is a RuntimeError, a NUL a ValueError
        if Path(name).name != name or file.resolve().parent != path.resolve():
            raise UnnoiseError(f"{file} lies outside of its model", "copy the model's own files into its folder")
        data = file.read_bytes() if file.is_file() else None
    if data is not None and (kind := kind_of(data[:HEAD])) is not None and kind.format in (EMPTY, POINTER, PAGE):
        raise UnnoiseError(f"{file} is {kind.name}", kind.mend)
    if data is None or hashlib.sha256(data).hexdigest() != record["files"].get(name):
        raise UnnoiseError(f"{file} is missing or damaged", "copy or train the model again")
    return data


def load_model(
    path: Path, parts: Sequence[str], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """({part: module in evaluation mode}, the folder's record).

    Raises:
        UnnoiseError: no such model, a part that it lacks, a damaged file, or weights that are not finite or do not fit.
    """
    path = expanded(path)
    record = read_record(path)
    missing = [part for part in parts if part not in record["components"]]
    if missing:
        held = ", ".join(record["components"])
        raise UnnoiseError(f"the model at {path} has no {missing[0]}, only {held}", "name another model folder")
    tensors = _tensors(path, record)
    modules: dict[str, nn.Module] = {}
    for part in parts:
        own = {n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")}
        for name, tensor in own.items():
            if tensor.dtype not in FLOATS or not torch.isfinite(tensor).all():
                raise UnnoiseError(
                    f"the model at {path} has weights that are not numbers ({part}.{name})", "train it again"
                )
        module = build(part, record["components"][part], len(own))
        try:
            module.load_state_dict(own, assign=True)
        except RuntimeError as error:
            raise UnnoiseError(f"the weights at {path} do not fit their {part}: {error}", "it is damaged") from None
        # channels last: convolutions are about twice as fast on a processor, and no slower on a GPU
        module = module.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        modules[part] = module.eval().requires_grad_(False)
    return modules, record


def _tensors(path: Path, record: Mapping[str, Any]) -> dict[str, Tensor]:
    """All tensors of a folder, by name; each belongs to one of its components."""
    tensors: dict[str, Tensor] = {}
    parts = tuple(f"{part}." for part in record["components"])
    for file in record["files"]:
        if not file.endswith(".safetensors"):
            continue
        try:
            found = load(read_file(path, record, file))
        except SafetensorError as error:
            raise UnnoiseError(f"{path / file} is damaged ({error})", "copy or train the model again") from None
        strange = [name for name in found if name in tensors or not name.startswith(parts)]
        if strange:
            raise UnnoiseError(f"{path / file} holds the unknown weight {strange[0]!r}", "the model is damaged")
        tensors |= found
    return tensors
