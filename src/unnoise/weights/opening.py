"""Published models, opened: their parts as the record of a model folder, and where each tensor of ours lies.

Nothing is loaded to open a model but headers. A model is recognised by its tensors' names and shapes, and by what lies
beside them; what was assumed is kept, for people to read. All tensors of a part are there and fit, or it is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unnoise.core.denoiser import Denoiser
from unnoise.weights.calibration import STRIDE
from unnoise.weights.config import to_json
from unnoise.weights.families.family import DENOISER, Family
from unnoise.weights.fitting import Part, check_shapes, some
from unnoise.weights.model import Device, placed, planar
from unnoise.weights.parts import build
from unnoise.weights.record import MODEL
from unnoise.weights.sources import holds_part
from unnoise.weights.survey import PIPELINE, Finder, Survey, survey


@dataclass(frozen=True)
class Opened:
    """A published model, opened and checked; nothing of its numbers was read.

    Attributes:
        path: the file or folder.
        family: which it is of.
        parts: by our names.
        record: as ``model.json`` of a folder of ours would have it, without files.
        undecided: whether only a trial of the network tells its prediction.
        assumed: what was taken for granted and why, a line each.
        matched, total: how many tensors of its files were used, and how many they have.
        unknown: names that belong to no part, and are left alone.
    """

    path: Path
    family: Family
    parts: Mapping[str, Part]
    record: Mapping[str, Any]
    undecided: bool
    assumed: tuple[str, ...]
    matched: int
    total: int
    unknown: tuple[str, ...] = field(default=())

    def report(self) -> list[str]:
        """What people should know of the load, a line each."""
        elsewhere = [f"{name} from {part.source.path}" for name, part in self.parts.items() if self._elsewhere(part)]
        unknown = f"; left alone: {some(self.unknown)}" if self.unknown else ""
        first = f"{self.path}: {self.record['name']}; {self.matched} of {self.total} tensors matched{unknown}"
        return [first, *elsewhere, *self.assumed]

    def _elsewhere(self, part: Part) -> bool:
        """Whether a part was taken from another file or folder."""
        return part.source.path != self.path and self.path not in part.source.path.parents

    def load(
        self,
        device: Device | Mapping[str, Device] = "cpu",
        dtype: torch.dtype | None = None,
        only: Collection[str] | None = None,
    ) -> dict[str, nn.Module]:
        """{part: module in evaluation mode}, all its weights in ``dtype``, or in the file's where that is None.

        Args:
            device: where the parts go, or {part: device}; the processor for those that are not named.
            dtype: of their weights.
            only: the parts to load; all of them where it is None.

        Raises:
            UnnoiseError: a file is damaged.
        """
        modules = {}
        for name, part in self.parts.items():
            if only is not None and name not in only:
                continue
            module = build(name, self.record["parts"][name], len(part.rows))
            where = device.get(name, "cpu") if isinstance(device, Mapping) else device
            network = module.network if isinstance(module, Denoiser) else module
            flat = planar(network)
            state = {key: placed(tensor, where, dtype, key in flat) for key, tensor in part.tensors()}
            network.load_state_dict(state, assign=True)
            modules[name] = module.eval().requires_grad_(False)
        return modules


def is_foreign(path: Path) -> bool:
    """Whether a path is a model of other tools, and no folder of ours."""
    alone = not (path / MODEL).is_file() and holds_part(path)  # a denoiser's own folder
    return (path.is_file() and path.name != MODEL) or (path / PIPELINE).is_file() or alone


def open_model(
    path: Path,
    parts: Mapping[str, Path] | None = None,
    family: str | None = None,
    prediction: str | None = None,
    find: Finder | None = None,
) -> Opened:
    """Opens a published model: a single file, a file with its denoiser alone, shards, or a folder of diffusers.

    Args:
        path: the file, the index of shards, or the folder.
        parts: {part: file or folder to take it from}, in place of its own.
        family: its name, where it is not recognised, or wrongly.
        prediction: what the denoiser predicts, where it is not found out, or wrongly: "noise", "v".
        find: finds files with parts that are missing.

    Raises:
        UnnoiseError: it is of no family that is known here, or a part is missing, or its tensors do not fit; each time
            with the names of what is wrong. Nothing is ever taken in part.
    """
    model = survey(path, parts, family, prediction, find)
    for fault in model.faults.values():
        raise fault
    for name, part in model.parts.items():
        check_shapes(name, part)
    return _opened(model)


def _opened(found: Survey) -> Opened:
    family, calibration = found.family, found.calibration
    assert calibration is not None  # else there was a fault
    record: dict[str, Any] = {"name": calibration.title, "family": family.name, "files": {}, "parts": {}}
    for name, part in found.parts.items():
        record["parts"][name] = {"kind": part.piece.kind, "name": part.piece.name, "config": to_json(part.config)}
    entry = record["parts"][DENOISER]
    entry |= {"path": calibration.path, "prediction": calibration.prediction, "noise_label": "index"}
    entry["config"]["size"] = calibration.defaults["size"][0] // STRIDE
    record |= {"layout": dict(found.layout), "defaults": dict(calibration.defaults)}
    return Opened(
        found.path, family, dict(found.parts), record, calibration.undecided, tuple(calibration.assumed),
        found.matched, found.total, found.unknown,
    )  # fmt: skip
