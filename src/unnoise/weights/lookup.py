"""Models by name: from what a user types to a file or folder, by the list of models and the hub."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from unnoise.errors import UnnoiseError
from unnoise.files import expanded
from unnoise.weights import hub
from unnoise.weights.entry import Entry
from unnoise.weights.index import read_index
from unnoise.weights.record import DEFAULT
from unnoise.weights.roles import AUTOENCODER, BROKEN, CHECKPOINT, DENOISER, KINDS, PICKLE, TEXT, TINY, UNDECIDED

MIN_HASH = 6  # digits of a hash that name a model
PARTS = {
    "denoiser": DENOISER,
    "autoencoder": AUTOENCODER,
    "decoder": TINY,
}  # the kinds of parts; others are text towers
SHOWN = 6  # models that an error names
SAME_SPACE = {"sd1": ("sd1", "sd2"), "sd2": ("sd1", "sd2"), "sdxl-refiner": ("sdxl",)}  # whose autoencoders will do


def matches(name: str, entries: Iterable[Entry]) -> list[Entry]:
    """The entries that a name means: one, or several of that very name.

    A name is the model's, its file's with or without the ending, the end of its path, ten digits of a hash, or the
    beginning of one model's name. Letters may be large or small if that leaves no doubt.

    Raises:
        UnnoiseError: none has it, or it is the beginning of several names.
    """
    entries = list(entries)
    if not (found := known(name, entries)):
        raise UnnoiseError(f"no model is called {name!r}", near(name, entries))
    return found


def part_file(part: str, file: str, download: bool = False) -> Path:
    """The file or folder that ``--part PART=FILE`` means, which may be named as models are.

    Raises:
        UnnoiseError: as ``resolve``.
    """
    return resolve(file, download, PARTS.get(part, TEXT))


def known(name: str, entries: list[Entry]) -> list[Entry]:
    """The same, empty where none has the name.

    Raises:
        UnnoiseError: it is the beginning of several names.
    """
    for fold in (str, str.lower):
        key = fold(name)
        for names in (own_names, path_names):
            if hits := [entry for entry in entries if key in map(fold, names(entry))]:
                return hits
    digits = name.lower().removeprefix("~")
    if re.fullmatch(rf"[0-9a-f]{{{MIN_HASH},64}}", digits):
        hits = [entry for entry in entries if entry.sha256.startswith(digits) or entry.quick.startswith(digits)]
        if hits:
            return hits
    hits = [entry for entry in entries if name and entry.name.lower().startswith(name.lower())]
    if len({entry.name for entry in hits}) > 1:
        raise UnnoiseError(f"{name!r} begins the names of several models: {listed(hits)}", "type more of the name")
    return hits


def own_names(entry: Entry) -> set[str]:
    """What an entry is called: its name, and its file's."""
    return {entry.name, os.path.basename(entry.path)} | (
        {Path(entry.path).stem} if entry.format not in ("unnoise", "diffusers") else set()
    )


def path_names(entry: Entry) -> set[str]:
    """Ends of its path with a folder or more, as other programs call models: SDXL/a.safetensors."""
    parts = Path(entry.path).parts[1:]
    ends = {"/".join(parts[-count:]) for count in range(2, min(len(parts), 6) + 1)}
    return ends | {end.removesuffix(".safetensors") for end in ends}


def listed(entries: Iterable[Entry]) -> str:
    """Some entries in words, with what tells them apart."""
    entries = list(entries)
    texts = [f"{entry.name} ({entry.kind}, {entry.short()}, {entry.path})" for entry in entries[:SHOWN]]
    return ", ".join(texts) + (f" and {len(entries) - SHOWN} more" if len(entries) > SHOWN else "")


def near(name: str, entries: Iterable[Entry], kind: str | None = None) -> str:
    """A hint with names, of models of a kind, that are like a wrong one."""
    names = {entry.name.lower(): entry.name for entry in entries if kind in (None, entry.kind)}
    if not names:
        return "add folders of models: `unnoise models add FOLDER`"
    close = difflib.get_close_matches(name.lower(), names, 3, 0.5)
    close += [each for each in names if name.lower() in each and each not in close and len(name) > 2][:3]
    text = f"did you mean {' or '.join(names[each] for each in close[:3])}? " if close else ""
    return f"{text}`unnoise models` lists them"


def resolve(model: str, download: bool = False, kind: str | None = None) -> Path:
    """The file or folder that ``--model`` means: a path, "default", a name of the list, or a name on a hub.

    A path that exists is taken as it is, also if a listed model has the same name.

    Args:
        model: what was typed.
        download: whether a model that is only on the hub may be fetched.
        kind: of listed models, as ``find`` takes it.

    Raises:
        UnnoiseError: nothing is called so, several are, or what is cannot be used.
    """
    path = expanded(model)
    if os.path.lexists(path):
        return path
    if model == "default":
        return DEFAULT
    if (found := find(model, kind)) is not None:
        return found
    if (name := hub.parse(model)) is not None:
        return hub.locate(name, download)
    raise UnnoiseError(
        f"no file, folder or listed model is called {model!r}", near(model, read_index().entries.values(), kind)
    )


def find(name: str, kind: str | None = None) -> Path | None:
    """The file or folder of the listed model that a name means; None where none is called so.

    Args:
        name: as ``matches`` takes it.
        kind: the kind that is wanted, one of ``roles.KINDS``, before a checkpoint that may have it inside; None takes
            every kind, and of several models of one name a checkpoint before others.

    Raises:
        UnnoiseError: several are called so, it is broken, a pickle, or no longer there.
    """
    entries = read_index().entries.values()
    for allowed in (KINDS,) if kind is None else ((kind,), (CHECKPOINT, PICKLE, BROKEN)):
        if found := known(name, [entry for entry in entries if entry.kind in allowed]):
            return usable(name, found)
    return None


def usable(name: str, found: list[Entry]) -> Path:
    """The one of the entries of a name that is taken.

    Raises:
        UnnoiseError: all are broken or pickles, several differ, or it is no longer there.
    """
    sound = [entry for entry in found if entry.kind not in (BROKEN, PICKLE)]
    if not sound:
        raise refusal(found[0])
    whole = [entry for entry in sound if entry.kind == CHECKPOINT] or sound
    if len({entry.quick or entry.path for entry in whole}) > 1:  # copies of one file are no doubt
        raise UnnoiseError(f"several models are called {name!r}: {listed(whole)}", "type its path or its hash")
    path = next((Path(entry.path) for entry in whole if os.path.exists(entry.path)), None)
    if path is None:
        raise UnnoiseError(f"{whole[0].path} is gone", "run `unnoise models scan`, or mount its disk")
    return path


def refusal(entry: Entry) -> UnnoiseError:
    """Why a model cannot be used."""
    if entry.kind == PICKLE and entry.format == "diffusers":
        mend = "look for a copy as safetensors, or `unnoise convert` each of its files"
        return UnnoiseError(f"{entry.path} has its weights as pickles, which are never opened here", mend)
    if entry.kind == PICKLE:
        mend = f"`unnoise convert {entry.path} --out {Path(entry.path).with_suffix('.safetensors')}`"
        return UnnoiseError(f"{entry.path} is a pickle, which is never opened here", f"rewrite it first: {mend}")
    return UnnoiseError(f"the model {entry.name} at {entry.path} is broken: {entry.fault}", "download it again")


def parts_for(family: str, part: str) -> list[Path]:
    """Listed files and folders that hold a part for a model of a family, the best first; empty if none is known.

    Files of that part alone come before checkpoints of the family that have it inside. An autoencoder is taken only
    if its own config, its model or its name says whose it is; one that says nothing is taken last, and for SD 1 and 2
    alone.

    Args:
        family: "sd1", "sd2", "sdxl", "sdxl-refiner" and so on.
        part: "text.clip-l", "text.clip-h", "text.clip-g", "autoencoder", "decoder" and so on.
    """
    spaces = SAME_SPACE.get(family, (family,))
    ranks: list[tuple[int, bool, str, str]] = []
    for entry in read_index().entries.values():
        fits = entry.kind == PARTS.get(part, TEXT)
        if fits and entry.kind == TEXT and part == f"text.{entry.family}":
            rank = 0
        elif fits and entry.family in spaces:
            rank = 0 if entry.family == family else 1
        elif fits and entry.family == UNDECIDED and "sd1" in spaces:
            rank = 2
        elif entry.kind == CHECKPOINT and part in entry.parts and entry.family == family:
            rank = 3
        else:
            continue
        if os.path.exists(entry.path):
            ranks.append((rank, entry.format == "GGUF", entry.name.lower(), entry.path))  # which may be quantised
    return [Path(path) for _, _, _, path in sorted(ranks)]
