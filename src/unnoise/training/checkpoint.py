"""Checkpoints: folders of JSON and safetensors, written whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unnoise.errors import UnnoiseError
from unnoise.files import new_folder, sha256, sync, write_json

FORMAT = 1
MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8})")


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors as one safetensors file. Names are kept; storage that two names share is written twice."""
    save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, path)


def write(folder: Path, step: int, manifest: Mapping[str, Any], files: Mapping[str, Mapping[str, Tensor]]) -> Path:
    """Writes ``folder/step-00000123``: one safetensors file for each of ``files``, and last the manifest with hashes.

    Returns:
        the new checkpoint's path, read back and verified.

    Raises:
        UnnoiseError: the disk is full or cannot be written; nothing is left behind.
    """
    path = folder / f"step-{step:08d}"
    try:
        with new_folder(path) as scratch:
            hashes = {}
            for name, tensors in files.items():
                file = scratch / f"{name}.safetensors"
                save_tensors(file, tensors)
                sync(file)
                hashes[file.name] = sha256(file)
            write_json(scratch / MANIFEST, {"format": FORMAT, "step": step, **manifest, "files": hashes})
    except SafetensorError as error:
        raise UnnoiseError(f"{path} cannot be written ({error})", "free some space or name another folder") from None
    verify(path)
    return path


def verify(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest, after every file was found to be what the manifest says.

    Raises:
        UnnoiseError: no checkpoint, a newer format, or a file that is missing or damaged.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files, version = dict(manifest["files"]), int(manifest["format"])
    except FileNotFoundError:
        raise UnnoiseError(f"no checkpoint at {path}", f"name a folder that holds {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UnnoiseError(f"{path / MANIFEST} is damaged", "use an older checkpoint") from None
    if version > FORMAT:
        raise UnnoiseError(f"{path} has format {version}, this program reads up to {FORMAT}", "update unnoise")
    for name, expected in files.items():
        file = path / name
        if Path(name).name != name or not file.is_file() or sha256(file) != expected:
            raise UnnoiseError(f"{file} is missing or damaged", "use an older checkpoint, or copy the folder again")
    return manifest


def read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """(manifest, tensors by file), verified. Tensors are on the CPU."""
    manifest = verify(path)
    return manifest, {name.removesuffix(".safetensors"): load_file(path / name) for name in manifest["files"]}


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first. Scratch folders of a killed save are not among them."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name) and (p / MANIFEST).is_file())


def latest(folder: Path) -> Path | None:
    """The newest checkpoint that verifies; damaged ones are passed over."""
    for path in reversed(checkpoints(folder)):
        try:
            verify(path)
        except UnnoiseError:
            continue
        return path
    return None


def sweep(folder: Path) -> None:
    """Removes what killed saves left behind."""
    for path in folder.glob(".partial-step-*"):
        shutil.rmtree(path, ignore_errors=True)


def retain(folder: Path, keep: int, newest: Path) -> None:
    """Deletes all but the newest ``keep`` checkpoints, once ``newest`` has been read back whole and finite.

    While ``newest`` is not healthy nothing is deleted, so the last healthy one stays. Unhealthy ones do not count among
    those that are kept.
    """
    if not _healthy(newest):
        return
    healthy = [newest]
    for path in reversed(checkpoints(folder)):
        if path == newest:
            continue
        if len(healthy) < keep and _healthy(path):
            healthy.append(path)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _healthy(path: Path) -> bool:
    try:
        _, files = read(path)
    except UnnoiseError:
        return False
    tensors = [t for named in files.values() for t in named.values() if t.is_floating_point()]
    return all(bool(torch.isfinite(t).all()) for t in tensors)
