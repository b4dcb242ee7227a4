"""Verification of models, whole: every weight a finite number, and in our own folders every file by its hash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unnoise.core.sample import all_finite
from unnoise.errors import UnnoiseError
from unnoise.files import expanded, sha256
from unnoise.weights.fitting import check_shapes
from unnoise.weights.parts import describe
from unnoise.weights.record import AGAIN, MODEL, read_record
from unnoise.weights.shards import Shards
from unnoise.weights.survey import survey

AT_A_TIME = 2**24  # numbers that are looked at together, so that little memory is needed beside the file's


class Verified(NamedTuple):
    """How much was verified: files by their hashes, parts by their shapes, and their numbers."""

    files: int
    parts: int
    numbers: int


def verify_model(path: Path) -> Verified:
    """Reads a model folder whole: files have the hashes in the record, weights fit their parts and are finite.

    Raises:
        UnnoiseError: they are not, or there is no model; the first fault is named.
    """
    path = expanded(path)
    record = read_record(path)
    for name, expected in record["files"].items():
        try:
            actual = sha256(path / name)
        except OSError as error:
            raise UnnoiseError(f"{path / name} cannot be read ({error.strerror})", "check its rights") from None
        if actual != expected:
            raise UnnoiseError(f"{path / name} is damaged: its SHA-256 is not the one in {MODEL}", AGAIN)
    shards, numbers = Shards(path, record), 0
    for part in record["parts"]:
        _, places = shards.fitted(part)
        for name, tensor in shards.tensors(places):
            numbers += tensor.numel()
            if not finite(tensor):
                raise UnnoiseError(f"{path} has weights that are not finite ({part}.{name})", "train it again")
    return Verified(len(record["files"]), len(record["parts"]), numbers)


def verify_published(path: Path) -> Verified:
    """Reads all numbers of a published model's parts: shapes fit their networks, and all are finite.

    Parts that are missing are not looked for.

    Raises:
        UnnoiseError: they are not, or there is no model that is known here; the first fault is named.
    """
    found, numbers = survey(path), 0
    for name, fault in found.faults.items():
        if name not in found.missing:
            raise fault
    for name, part in found.parts.items():
        check_shapes(name, part)
        for tensor_name, tensor in part.tensors():
            numbers += tensor.numel()
            if not finite(tensor):
                what = f"{path} has weights that are not finite ({name}.{tensor_name})"
                raise UnnoiseError(what, "download it again, or use another file of this model")
    return Verified(0, len(found.parts), numbers)


def verify_written(path: Path, parts: Mapping[str, nn.Module]) -> None:
    """Ensures that a folder that was written holds these parts, each weight as its file's dtype has it.

    Raises:
        UnnoiseError: it does not, or a weight is not finite.
    """
    shards = Shards(path, read_record(path))
    for part, module in parts.items():
        built, places = shards.fitted(part)
        if describe(built) != describe(module):
            raise UnnoiseError(f"the {part} was not written as it is", "check its config, path and prediction")
        source = module.state_dict()
        for name, tensor in shards.tensors(places):
            if not finite(tensor):
                hint = "train it again, or write it with a dtype of a wider range"
                raise UnnoiseError(f"{part}.{name} is not finite, and nothing was written", hint)
            if not torch.equal(tensor, source[name].detach().cpu().to(tensor.dtype)):
                raise UnnoiseError(f"{part}.{name} was not written as it is", "check the disk")


def finite(tensor: Tensor) -> bool:
    """Whether no number of a tensor is infinite or NaN."""
    return not tensor.is_floating_point() or all(map(all_finite, torch.split(tensor.detach().flatten(), AT_A_TIME)))
