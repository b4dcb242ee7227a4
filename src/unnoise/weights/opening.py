"""Published models, opened: their parts as the record of a model folder, and where each tensor of ours lies.

Nothing is loaded to open a model but headers. A model is recognised by its tensors' names and shapes, and by what lies
beside them; what was assumed is kept, for people to read. All tensors of a part are there and fit, or it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unnoise.core.denoiser import Denoiser
from unnoise.errors import UnnoiseError
from unnoise.files import expanded
from unnoise.weights.calibration import Calibration, Evidence, calibrated
from unnoise.weights.config import to_json
from unnoise.weights.families.family import DENOISER, Family, Piece, families
from unnoise.weights.fitting import STRAY, Part, check_widths, config_of, fitted, locate, some
from unnoise.weights.model import Device, placed, planar
from unnoise.weights.parts import build
from unnoise.weights.record import MODEL
from unnoise.weights.sources import Source, open_source, read_config

PIPELINE, SCHEDULE = "model_index.json", "scheduler/scheduler_config.json"
USES = {5: "depth", 7: "the upscaler", 8: "editing by instruction"}  # of U-Nets with so many channels, not drawn with
STRIDE = 8  # pixels a cell, of all families here
PLAIN, INPAINTING = 4, 9  # channels that a U-Net of Stable Diffusion takes in
Finder = Callable[[str, str], Sequence[Path]]  # (family, part) -> files that have this part


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
        self, device: Device | Mapping[str, Device] = "cpu", dtype: torch.dtype | None = None
    ) -> dict[str, nn.Module]:
        """{part: module in evaluation mode}, all its weights in ``dtype``, or in the file's where that is None.

        Raises:
            UnnoiseError: a file is damaged.
        """
        modules = {}
        for name, part in self.parts.items():
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
    return (path.is_file() and path.name != MODEL) or (path / PIPELINE).is_file()


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
    path = expanded(path)
    given = dict(parts or {})
    pipeline = read_config(path / PIPELINE) if path.is_dir() else None
    whole = None if pipeline is not None else open_source(path)
    source = whole or _denoiser_of(path)
    if DENOISER in given:
        source = open_source(given[DENOISER])
    chosen, located = recognise(source, whole or source, pipeline, family, path)
    known = known_parts(chosen)
    for name in given:
        if name not in known:
            raise UnnoiseError(f"{chosen.title} has no part {name}", f"its parts: {', '.join(known)}")
    opened = {DENOISER: fitted(DENOISER, chosen.pieces[DENOISER], *located, folder=pipeline is not None)}
    for name, piece in chosen.pieces.items():
        if name != DENOISER:
            places = _places(name, piece, path, whole, given, find, chosen)
            opened[name] = fitted(name, piece, *places, folder=pipeline is not None and name not in given)
    check_widths(chosen, opened)
    evidence = Evidence(prediction, source, whole, read_config(path / SCHEDULE) if path.is_dir() else None, path)
    return _opened(path, chosen, opened, calibrated(chosen, opened[DENOISER].config, evidence), whole)


def known_parts(family: Family) -> list[str]:
    """The names of parts that may be given for a family."""
    return list(family.pieces)


def _denoiser_of(folder: Path) -> Source:
    for sub in dict.fromkeys(each.pieces[DENOISER].folder for each in families().values()):
        if (folder / sub).is_dir():
            return open_source(folder / sub)
    raise UnnoiseError(f"{folder} has no U-Net", "this program opens Stable Diffusion 1, 2 and XL; see docs")


def recognise(
    source: Source, whole: Source, pipeline: Mapping[str, Any] | None, family: str | None, path: Path
) -> tuple[Family, tuple[Source, str, dict[str, str]]]:
    """(family, (source, layout, names) of its denoiser); args are those of ``open_model``.

    In this order: the user's word, the widths of the denoiser, names of parts that one family alone has in its single
    files, the class of the pipeline.

    Raises:
        UnnoiseError: it is of no family that is known here; what it is instead is named.
    """
    every = families()
    if family is not None and family not in every:
        raise UnnoiseError(f"there is no family {family}", f"one of: {', '.join(every)}")
    any_piece = next(iter(every.values())).pieces[DENOISER]
    located = locate(source, any_piece)
    if located is None:
        what = source.what
        raise UnnoiseError(
            f"{path} is {what}, which is not drawn with" if what != "unknown" else f"{path} is no model known here",
            f"families: {', '.join(each.title for each in every.values())}; `unnoise inspect` says more",
        )
    layout, names = located
    config = config_of(any_piece, source, layout, names, head_width=1)
    chosen = every.get(family or "") or _recognised(every, config, whole, pipeline)
    if chosen is None:
        raise UnnoiseError(
            f"{path} has a U-Net of no known family (prompts of width {config.text_width})",
            f"say which with --family: {', '.join(every)}",
        )
    if bool(config.added_width) != bool(chosen.added):
        what = f"{path} reads {'a picture beside the prompt (unCLIP)' if config.added_width else 'no sizes'}"
        raise UnnoiseError(f"{what}, which {chosen.title} does not", "name another model, or another --family")
    if config.channels_in not in (PLAIN, INPAINTING):
        use = USES.get(config.channels_in, f"{config.channels_in} channels")
        raise UnnoiseError(f"{path} is a U-Net for {use}, which is not drawn with yet", "name another model")
    return chosen, (source, layout, names)


def _recognised(
    every: Mapping[str, Family], config: Any, whole: Source, pipeline: Mapping[str, Any] | None
) -> Family | None:
    for each in every.values():
        if each.fits(config):
            return each
    for each in every.values():
        if pipeline is None and each.marked(whole.shapes):
            return each
    name = str((pipeline or {}).get("_class_name", ""))
    fitting = [each for each in every.values() if name in each.pipelines]
    spoken = [each for each in fitting if (each.prediction is None) == bool(config.linear)]
    return next(iter(spoken if len(fitting) > 1 else fitting), None)


def _places(
    name: str,
    piece: Piece,
    path: Path,
    whole: Source | None,
    given: Mapping[str, Path],
    find: Finder | None,
    family: Family,
) -> tuple[Source, str, dict[str, str]]:
    """(source, layout, names) of a part: the one that was given, the model's own, or one that is found.

    Raises:
        UnnoiseError: there is none, or the file that was given has no such part.
    """
    if name in given:
        return _from_file(name, piece, given[name], family)
    if whole is None and (path / piece.folder).is_dir():
        return _from_file(name, piece, path / piece.folder, family)
    if whole is not None and (located := locate(whole, piece)) is not None:
        return whole, *located
    for other in find(family.name, name) if find is not None else ():
        return _from_file(name, piece, other, family)
    raise UnnoiseError(
        f"{path} has no {name}", f"name a file that has it: --part {name}=FILE, or add its folder: `unnoise models add`"
    )


def _from_file(name: str, piece: Piece, file: Path, family: Family) -> tuple[Source, str, dict[str, str]]:
    file = expanded(file)
    if file.is_dir() and (file / PIPELINE).is_file():  # of a whole pipeline, the part's own folder
        file = file / piece.folder
    source = open_source(file)
    located = locate(source, piece)
    if located is None:
        what = source.what
        raise UnnoiseError(f"{file} has no {name} for {family.title}: it is {what}", "name another file")
    return source, *located


def _opened(
    path: Path, family: Family, parts: Mapping[str, Part], calibration: Calibration, whole: Source | None
) -> Opened:
    record: dict[str, Any] = {"name": calibration.title, "family": family.name, "files": {}, "parts": {}}
    for name, part in parts.items():
        record["parts"][name] = {"kind": part.piece.kind, "name": part.piece.name, "config": to_json(part.config)}
    entry = record["parts"][DENOISER]
    entry |= {"path": calibration.path, "prediction": calibration.prediction, "noise_label": "index"}
    entry["config"]["size"] = calibration.defaults["size"][0] // STRIDE
    record |= {"layout": dict(family.layout), "defaults": dict(calibration.defaults)}
    used = {(place.file, place.name) for part in parts.values() for place in _used(part)}
    every = {(place.file, name) for source in _sources(parts, whole) for name, place in source.places.items()}
    rest = sorted(name for _, name in every - used)
    unknown = [name for name in rest if not STRAY.search(name) and not _ignored(name, family)]
    return Opened(
        path, family, dict(parts), record, calibration.undecided, tuple(calibration.assumed), len(used), len(every),
        tuple(unknown),
    )  # fmt: skip


def _used(part: Part) -> Iterator[Any]:
    return (part.source.places[part.names[row.theirs]] for row in part.rows)


def _sources(parts: Mapping[str, Part], whole: Source | None) -> list[Source]:
    sources = [part.source for part in parts.values()] + ([whole] if whole is not None else [])
    return list({id(source): source for source in sources}.values())


def _ignored(name: str, family: Family) -> bool:
    """Whether a name is of those that files have beside weights, such as the places of CLIP's positions."""
    return any(
        name.startswith(prefix) and re.search(pattern, piece.names.tidied(name[len(prefix) :], layout))
        for piece in family.pieces.values()
        for prefix, layout in piece.prefixes
        for pattern in piece.names.IGNORED[layout]
    )
