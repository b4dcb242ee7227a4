"""Keeps tensors that are computed from a picture set, under a key that hashes everything they depend on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.errors import UnnoiseError
from unnoise.files import write_whole

log = logging.getLogger(__name__)


def feature_key(dataset_sha256: str, transform: Mapping[str, Any], weights_sha256: str) -> str:
    """SHA-256 (hex) of the data's bytes, the transform's settings (JSON values) and the encoder's weights.

    Any change of one of them changes the key, so that a stale file is never used.
    """
    record = {"data": dataset_sha256, "transform": dict(transform), "weights": weights_sha256}
    return hashlib.sha256(json.dumps(record, sort_keys=True, allow_nan=False).encode()).hexdigest()


def load_or_compute(folder: Path, key: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors kept in ``folder`` under ``key``, or else those of ``compute()``, which are then kept.

    The file contains its key and a hash of its tensors; a damaged one is computed again, with a warning.

    Args:
        folder: created if it does not exist.
        key: from ``feature_key``.
        compute: returns named tensors of any shape and dtype; they are saved from the CPU.

    Returns:
        The tensors, on the CPU.

    A folder that cannot be written costs a warning and the time to compute them again.
    """
    path = Path(folder) / f"{key[:32]}.safetensors"
    if path.exists():
        try:
            return _load(path, key)
        except Exception as error:  # safetensors raises its own errors; for any of them the remedy is the same
            log.warning("%s is damaged (%s) and computed again", path, " ".join(str(error).split()))
    tensors = {name: t.detach().cpu().contiguous() for name, t in compute().items()}
    _save(path, key, tensors)
    return tensors


def _load(path: Path, key: str) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    if metadata.get("key") != key:
        raise ValueError("it has another key")
    if metadata.get("content_sha256") != content_sha256(tensors):
        raise ValueError("its tensors do not match their hash")
    return tensors


def _save(path: Path, key: str, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(tensors, metadata={"key": key, "content_sha256": content_sha256(tensors)}))
    except (OSError, UnnoiseError) as error:  # this only costs time the next time
        log.warning("not kept for the next time: %s", error)


def content_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of tensors: names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {t.dtype} {tuple(t.shape)}\n".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
