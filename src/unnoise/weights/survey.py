"""What a published model is made of, by headers alone and without torch: its family, its parts, what is missing.

``weights.opening`` builds on it what draws, and ``unnoise inspect`` shows it: both see the same model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unnoise.errors import UnnoiseError
from unnoise.files import expanded
from unnoise.weights.calibration import Calibration, Evidence, calibrated
from unnoise.weights.families.family import DENOISER, Family, Piece, families, recognised
from unnoise.weights.fitting import STRAY, Part, check_widths, config_of, fitted, locate
from unnoise.weights.sources import Source, open_source, read_config

PIPELINE, SCHEDULE = "model_index.json", "scheduler/scheduler_config.json"
USES = {5: "depth", 7: "the upscaler", 8: "editing by instruction"}  # of U-Nets that take in so many channels
PLAIN, INPAINTING = 4, 9  # channels that a U-Net of Stable Diffusion takes in
ZEROS = "force_zeros_for_empty_prompt"  # of an index of diffusers
Finder = Callable[[str, str], Sequence[Path]]  # (family, part) -> files that have this part
Found = tuple[Source, str, dict[str, str]]  # (source, layout, {name in the key table: name in the source})


@dataclass(frozen=True)
class Survey:
    """A published model, by its headers.

    Attributes:
        path: the file or folder.
        family: which it is of.
        whole: the tensors of a single file; None for a folder.
        config: of its denoiser.
        found: where each part that is there lies.
        parts: those of them that fit by name and type.
        faults: {part, or what is wrong: why}, in the order in which they should be mended; empty if nothing is.
        missing: parts that are nowhere; they are among the faults.
        calibration: what its numbers mean; None where that is not known here.
        layout: how its text towers make one condition, as the family's or as the folder says.
        matched, total: how many tensors of its files belong to parts, and how many they have.
        unknown: names that belong to no part.
    """

    path: Path
    family: Family
    whole: Source | None
    config: Any
    found: Mapping[str, Found]
    parts: Mapping[str, Part]
    faults: Mapping[str, UnnoiseError]
    missing: tuple[str, ...]
    calibration: Calibration | None
    layout: Mapping[str, Any]
    matched: int
    total: int
    unknown: tuple[str, ...]


def survey(
    path: Path,
    parts: Mapping[str, Path] | None = None,
    family: str | None = None,
    prediction: str | None = None,
    find: Finder | None = None,
) -> Survey:
    """What a published model is made of; see ``weights.opening.open_model`` for the arguments.

    Raises:
        UnnoiseError: it has no denoiser of a family that is known here, or a part was given that no family has.
    """
    path = expanded(path)
    given = dict(parts or {})
    pipeline = read_config(path / PIPELINE) if path.is_dir() else None
    whole = None if pipeline is not None else open_source(path)
    source = whole or denoiser_of(path)
    if DENOISER in given:
        source = open_source(given[DENOISER])
    chosen, config, located = recognise(source, whole or source, pipeline, family, path)
    for name in given:
        if name not in chosen.pieces:
            raise UnnoiseError(f"{chosen.title} has no part {name}", f"its parts: {', '.join(chosen.pieces)}")
    found: dict[str, Found] = {DENOISER: located}
    fit: dict[str, Part] = {}
    faults: dict[str, UnnoiseError] = {}
    missing = []
    for name, piece in chosen.pieces.items():
        try:
            if name != DENOISER:
                place = _place(name, piece, path, whole, given, find, chosen)
                if place is None:
                    missing.append(name)
                    raise _absent(path, name)
                found[name] = place
            folder = pipeline is not None and name not in given
            fit[name] = fitted(name, piece, *found[name], folder=folder)
        except UnnoiseError as error:
            faults[name] = error
    calibration = None
    try:
        schedule = read_config(path / SCHEDULE) if path.is_dir() else None
        calibration = calibrated(chosen, config, Evidence(prediction, source, whole, schedule, path))
    except UnnoiseError as error:
        faults["calibration"] = error
    try:
        check_widths(chosen, fit)
    except UnnoiseError as error:
        faults["widths"] = error
    return Survey(
        path,
        chosen,
        whole,
        config,
        found,
        fit,
        faults,
        tuple(missing),
        calibration,
        _layout(chosen, pipeline or {}),
        *_counted(path, chosen, found, fit, whole),
    )


def _layout(family: Family, pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """How text towers make one condition; a folder says what an empty negative prompt is."""
    own = {"empty": "zeros" if pipeline[ZEROS] else "encoded"} if ZEROS in pipeline else {}
    return {**family.layout, **own}


def denoiser_of(folder: Path) -> Source:
    """The tensors of the U-Net in a folder of diffusers.

    Raises:
        UnnoiseError: there is none.
    """
    for sub in dict.fromkeys(each.pieces[DENOISER].folder for each in families().values()):
        if (folder / sub).is_dir():
            return open_source(folder / sub)
    raise UnnoiseError(f"{folder} has no U-Net", "this program opens Stable Diffusion 1, 2 and XL; see docs")


def recognise(
    source: Source, whole: Source, pipeline: Mapping[str, Any] | None, family: str | None, path: Path
) -> tuple[Family, Any, Found]:
    """(family, config of its denoiser, where that lies). The user's word counts first.

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
            f"{path} is {what}, which cannot be drawn with" if what != "unknown" else f"{path} is no model known here",
            f"families: {', '.join(each.title for each in every.values())}; `unnoise inspect` says more",
        )
    layout, names = located
    config = config_of(any_piece, source, layout, names, head_width=1)
    name = str((pipeline or {}).get("_class_name", ""))
    marks = () if pipeline is not None else whole.places
    chosen = every.get(family or "") or recognised(config.text_width, config.added_width, marks, name, config.linear)
    if chosen is None:
        raise UnnoiseError(
            f"{path} has a U-Net of no known family (prompts of width {config.text_width})",
            f"say which with --family: {', '.join(every)}",
        )
    by_widths = recognised(config.text_width, config.added_width)
    if by_widths is not None and by_widths is not chosen:
        raise UnnoiseError(f"{path} has the U-Net of {by_widths.title}, not of {chosen.title}", "leave out --family")
    if bool(config.added_width) != bool(chosen.added):
        what = f"{path} reads {'a picture beside the prompt (unCLIP)' if config.added_width else 'no sizes'}"
        raise UnnoiseError(f"{what}, which {chosen.title} does not", "name another model, or another --family")
    if config.channels_in not in (PLAIN, INPAINTING):
        use = USES.get(config.channels_in, f"{config.channels_in} channels")
        raise UnnoiseError(f"{path} is a U-Net for {use}, which cannot be drawn with yet", "name another model")
    return chosen, config, (source, layout, names)


def _place(
    name: str,
    piece: Piece,
    path: Path,
    whole: Source | None,
    given: Mapping[str, Path],
    find: Finder | None,
    family: Family,
) -> Found | None:
    """Where a part lies: in the file that was given, in the model's own, or in one that is found. None if nowhere.

    Raises:
        UnnoiseError: the file that was given has no such part.
    """
    if name in given:
        return _from_file(name, piece, given[name], family)
    if whole is None and (path / piece.folder).is_dir():
        return _from_file(name, piece, path / piece.folder, family)
    if whole is not None and (located := locate(whole, piece)) is not None:
        return whole, *located
    for other in find(family.name, name) if find is not None else ():
        return _from_file(name, piece, other, family)
    return None


def _absent(path: Path, name: str) -> UnnoiseError:
    hint = f"name a file that has it: --part {name}=FILE, or add its folder: `unnoise models add`"
    return UnnoiseError(f"{path} has no {name}", hint)


def _from_file(name: str, piece: Piece, file: Path, family: Family) -> Found:
    file = expanded(file)
    if file.is_dir() and (file / PIPELINE).is_file():  # of a whole pipeline, the part's own folder
        file = file / piece.folder
    source = open_source(file)
    located = locate(source, piece)
    if located is None:
        what = source.what
        raise UnnoiseError(f"{file} has no {name} for {family.title}: it is {what}", "name another file")
    return source, *located


def _counted(
    path: Path, family: Family, found: Mapping[str, Found], parts: Mapping[str, Part], whole: Source | None
) -> tuple[int, int, tuple[str, ...]]:
    """(tensors that belong to parts, all tensors, names of those that nothing knows).

    Of another model that gave a part, and of a part that another model's replaces, nothing else counts.
    """
    used = {
        (place.file, place.name)
        for part in parts.values()
        for row in part.rows
        for place in [part.source.places[part.names[row.theirs]]]
    }
    sources = [source for source, _, _ in found.values() if source.path == path or path in source.path.parents]
    sources += [whole] if whole is not None else []
    every = used | {(place.file, name) for source in sources for name, place in source.places.items()}
    for part, (source, _, _) in found.items():
        if whole is not None and source is not whole and (replaced := locate(whole, family.pieces[part])) is not None:
            every -= {(whole.places[name].file, name) for name in replaced[1].values()} - used
    unfit = {
        (source.places[name].file, name)
        for part, (source, _, names) in found.items()
        if part not in parts
        for name in names.values()
    }
    rest = sorted(name for _, name in every - used - unfit)
    ignored = _ignored(family)
    unknown = [name for name in rest if not STRAY.search(name) and not ignored(name)]
    return len(used), len(every), tuple(unknown)


def _ignored(family: Family) -> Callable[[str], bool]:
    """Tells whether a name is of those that files have beside weights, such as the places of CLIP's positions."""
    patterns = {
        (prefix, layout, piece.tables): (piece.names.tidied, re.compile("|".join(piece.names.IGNORED[layout])))
        for piece in family.pieces.values()
        for prefix, layout in piece.prefixes
        if piece.names.IGNORED[layout]
    }
    rows = [(prefix, layout, *found) for (prefix, layout, _), found in patterns.items()]
    return lambda name: any(
        name.startswith(prefix) and pattern.search(tidied(name[len(prefix) :], layout))
        for prefix, layout, tidied, pattern in rows
    )
