"""Checkpoints: folders of JSON and safetensors, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unnoise.errors import UnnoiseError
from unnoise.files import discard, explain, new_folder, save_tensors, sha256, sweep, write_json

FORMAT = 1
MANIFEST = "manifest.json"
UNKNOWN = ("BF", "F8")  # how types begin that numpy does not have
_NAME = re.compile(r"step-(\d{8})")


def write(folder: Path, step: int, manifest: Mapping[str, Any], files: Mapping[str, Mapping[str, Tensor]]) -> Path:
    """Writes ``folder/step-00000123``: a safetensors file for each of ``files``, and last the manifest with the hashes.

    Returns:
        the new checkpoint's path, read back and verified.

    Raises:
        UnnoiseError: the disk is full or cannot be written; nothing is left behind.
    """
    path = folder / f"step-{step:08d}"
    with new_folder(path) as scratch:
        hashes = {}
        for name, tensors in files.items():
            file = scratch / f"{name}.safetensors"
            save_tensors(file, tensors)
            hashes[file.name] = sha256(file)
        record = {"format": FORMAT, "step": step, **manifest, "files": hashes}
        write_json(scratch / MANIFEST, {**record, "sha256": _digest(record)})
    verify(path)
    return path


def save(
    folder: Path, step: int, manifest: Mapping[str, Any], files: Mapping[str, Mapping[str, Tensor]], keep: int
) -> None:
    """``write``, where no whole one of that step is there already; then older ones go, but for the newest ``keep``."""
    path = folder / f"step-{step:08d}"
    sweep(folder)
    if path.exists() and not healthy(path):
        try:
            discard(path)  # damaged, and passed over when the training was resumed
        except OSError as error:
            raise explain(error, path) from None
    if not path.exists():
        write(folder, step, manifest, files)
    retain(folder, keep, path)


def _digest(record: Mapping[str, Any]) -> str:
    """The SHA-256 (hex) of a manifest's other fields."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def verify(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest, after it and every file were found to be what its hashes say.

    Raises:
        UnnoiseError: no checkpoint, another format, or a file that is missing or damaged.
    """
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files, version = dict(manifest["files"]), int(manifest["format"])
    except FileNotFoundError:
        raise UnnoiseError(f"no checkpoint at {path}", f"name a folder that holds {MANIFEST}") from None
    except (KeyError, OSError, OverflowError, RecursionError, TypeError, ValueError):
        raise UnnoiseError(f"{path / MANIFEST} is damaged", "use an older checkpoint") from None
    if version != FORMAT:
        raise UnnoiseError(f"{path} has format {version}, this program reads {FORMAT}", "use the unnoise that wrote it")
    if manifest.pop("sha256", None) != _digest(manifest):
        raise UnnoiseError(f"{path / MANIFEST} is damaged", "use an older checkpoint")
    for name, expected in files.items():
        file = path / name
        if Path(name).name != name or not file.is_file() or sha256(file) != expected:
            raise UnnoiseError(f"{file} is missing or damaged", "use an older checkpoint, or copy the folder again")
    return manifest


class Saved(Mapping[str, Tensor]):
    """The tensors of a file by name, each read when it is asked for: memory need not hold them twice.

    Raises:
        SafetensorError, OSError: it is no whole file of tensors.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        with safe_open(file, "np") as opened:
            self.names = frozenset(opened.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        with safe_open(self.file, "np") as opened:
            if not opened.get_slice(name).get_dtype().startswith(UNKNOWN):
                return torch.from_numpy(opened.get_tensor(name))
        with safe_open(self.file, "pt") as opened:  # which maps the whole file, and counts it as memory of its own
            tensor: Tensor = opened.get_tensor(name)
            return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.names))

    def __len__(self) -> int:
        return len(self.names)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Saved]]:
    """(manifest, tensors by file), verified. Tensors are on the CPU, and are read as they are asked for."""
    manifest = verify(path)
    try:
        return manifest, {name.removesuffix(".safetensors"): Saved(path / name) for name in manifest["files"]}
    except (SafetensorError, OSError) as error:
        raise UnnoiseError(f"{path} cannot be read ({error})", "use an older checkpoint") from None


def match(own: Mapping[str, Mapping[str, Tensor]], content: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Ensures that a checkpoint holds exactly what its training needs: files, names, shapes and dtypes.

    Raises:
        KeyError: something is missing, is not ours, or is of another kind.
    """

    def kinds(files: Mapping[str, Mapping[str, Tensor]]) -> set[tuple[str, str, str]]:
        return {(f, n, f"{t.dtype} {tuple(t.shape)}") for f, named in files.items() for n, t in named.items()}

    differing = kinds(own) ^ kinds(content)
    if differing or own.keys() != content.keys():
        names = {f"{file}: {name}" for file, name, _ in differing} or own.keys() ^ content.keys()
        raise KeyError(f"tensors that differ in {', '.join(sorted(names)[:3])}")


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first. Scratch folders of a killed save are not among them."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name) and (p / MANIFEST).is_file())


def latest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole and finite; others are passed over."""
    return next((path for path in reversed(checkpoints(folder)) if healthy(path)), None)


def retain(folder: Path, keep: int, newest: Path) -> None:
    """Deletes all but the newest ``keep`` checkpoints, once ``newest`` has been read back whole and finite.

    While ``newest`` is not healthy nothing is deleted, so the last healthy one stays. Unhealthy ones do not count among
    those that are kept.
    """
    if not healthy(newest):
        return
    kept = [newest]
    for path in reversed(checkpoints(folder)):
        if path == newest:
            continue
        if len(kept) < keep and healthy(path):
            kept.append(path)
        else:
            with contextlib.suppress(OSError):  # what cannot be deleted is tried again after the next save
                discard(path)


def healthy(path: Path) -> bool:
    """Whether a checkpoint is whole and all its numbers are finite."""
    try:
        _, files = read(path)
    except UnnoiseError:
        return False
    tensors = (t for named in files.values() for t in named.values())
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())
