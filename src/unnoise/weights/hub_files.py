"""Which files of a repository on a hub are a model: what is fetched of it, and what of it is opened."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from unnoise.errors import UnnoiseError
from unnoise.weights.entry import WEIGHTY, config
from unnoise.weights.record import MODEL
from unnoise.weights.walk import GENERAL, PIPELINE, SHARD

FETCHED = (".safetensors", ".json", ".txt")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
CONFIG = "config.json"
LEFT = ("safety_checker",)  # parts that no model of ours uses
HALF = "fp16"
INDEX = re.compile(r"\.(safetensors|bin)\.index(\.\w+)?\.json$")  # of shards, in one variant
MAX_LISTED = 8


class Plan(NamedTuple):
    """What to fetch: {file: bytes}, and what people should know of the choice, after a comma; or ""."""

    files: Mapping[str, int]
    note: str = ""


def plan(repository: str, file: str, sizes: Mapping[str, int]) -> Plan:
    """What to fetch of a repository.

    Of a model in diffusers' layout that is each part in one variant: ``fp16``, the half as large, where there is one.
    Of a repository with a single model, that file. Readable descriptions (JSON, text) come along.

    Args:
        repository: its name, for errors.
        file: the only file that is wanted; "" if none is named.
        sizes: {file: bytes} of all that is in it.

    Raises:
        UnnoiseError: no such file, no safetensors, or several models of which one must be named.
    """
    sizes = {name: size for name, size in sizes.items() if ".." not in name.split("/") and not name.startswith("/")}
    if file:
        if file not in sizes:
            some = listed(name for name in sizes if name.endswith(FETCHED[0])) or "no safetensors"
            raise UnnoiseError(f"{repository} has no file {file}", f"it has {some}")
        return Plan({file: sizes[file]})
    weights = [name for name in sizes if name.endswith(FETCHED[0])]
    if not weights:
        raise no_weights(repository, sizes)
    texts = [name for name in sizes if name.endswith(FETCHED[1:]) and name.count("/") <= 1 and not INDEX.search(name)]
    top = [name for name in weights if "/" not in name]
    if PIPELINE in sizes:
        chosen, variants = [], set()
        for folder in sorted({name.partition("/")[0] for name in weights if name.count("/") == 1}):
            if folder not in LEFT:
                variant, names = one_variant([name for name in weights if name.startswith(f"{folder}/")])
                chosen += names + indices(sizes, names, variant)
                variants.add(variant)
        note = f", in the variant {HALF}, which is half as large" if HALF in variants else ""
        texts = [name for name in texts if name.partition("/")[0] not in LEFT]
        return Plan({name: sizes[name] for name in [*texts, *chosen]}, note)
    if MODEL in sizes:
        return Plan({name: sizes[name] for name in [*texts, *top] if "/" not in name})
    general = [name for name in top if SHARD.fullmatch(name) or GENERAL.fullmatch(name.removesuffix(FETCHED[0]))]
    if CONFIG in sizes and general:
        variant, names = one_variant(general)
        note = f", in the variant {HALF}, which is half as large" if variant == HALF else ""
        names += indices(sizes, names, variant)
        return Plan({name: sizes[name] for name in [*(name for name in texts if "/" not in name), *names]}, note)
    if len(top) != 1:
        raise several(repository, top or weights)
    return Plan({top[0]: sizes[top[0]]})


def one_variant(names: list[str]) -> tuple[str, list[str]]:
    """(variant, files of it) of the weights of one part: half precision before the plain ones before others."""
    variants: dict[str, list[str]] = {}
    for name in names:
        base = name.rpartition("/")[2]
        shard = SHARD.fullmatch(base)
        stem = f"{shard['stem']}{shard['variant'] or ''}" if shard else base.removesuffix(FETCHED[0])
        match = GENERAL.fullmatch(stem)
        if match:
            variants.setdefault(match["variant"] or "", []).append(name)
    order = [HALF, "", *sorted(variants)]
    variant = next((each for each in order if each in variants), "")
    return variant, variants.get(variant, names)


def indices(files: Iterable[str], weights: list[str], variant: str) -> list[str]:
    """The index of the shards among some weights of one part and variant; of whole files there is none to take."""
    folder, _, base = weights[0].rpartition("/")
    ending = f".{variant}.json" if variant else ".json"
    return [
        name
        for name in files
        if SHARD.fullmatch(base) and name.rpartition("/")[0] == folder and name.endswith(f".safetensors.index{ending}")
    ]


def main_in(folder: Path, name: str) -> Path | None:
    """The file or folder in a snapshot that is the model; None where it is not whole.

    Raises:
        UnnoiseError: several files are models, and one must be named.
    """
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    weights = [each for each in files if each.endswith(FETCHED[0])]
    top = [each for each in weights if "/" not in each]
    if PIPELINE in files:
        return None if lacking(folder, weights) else folder
    if not top or gaps(weights):
        return None
    if MODEL in files or CONFIG in files:
        return folder
    if len(top) > 1:
        raise several(name, top)
    return folder / top[0]


def lacking(folder: Path, files: Iterable[str]) -> list[str]:
    """The parts of a model in diffusers' layout of which the files have no safetensors, or not all shards."""
    index = config(folder / PIPELINE)
    named = [str(part) for part, value in index.items() if isinstance(value, list) and len(value) == 2 and value[1]]
    weights = [each for each in files if each.endswith(FETCHED[0])]
    own = {part: [each for each in weights if each.startswith(f"{part}/")] for part in named}
    return [part for part in named if part.startswith(WEIGHTY) and (not own[part] or gaps(own[part]))]


def gaps(weights: Iterable[str]) -> bool:
    """Whether shards are missing."""
    sets: dict[tuple[str, str, str], set[int]] = {}
    for name in weights:
        folder, _, base = name.rpartition("/")
        if match := SHARD.fullmatch(base):
            key = (folder, f"{match['stem']}{match['variant'] or ''}", match["count"])
            sets.setdefault(key, set()).add(int(match["number"]))
    return any(numbers != set(range(1, int(count) + 1)) for (_, _, count), numbers in sets.items())


def several(name: str, files: Collection[str]) -> UnnoiseError:
    """That a repository holds several files of which one must be named."""
    return UnnoiseError(f"{name} holds these files of weights: {listed(files)}", f"name one: {name}/{min(files)}")


def no_weights(repository: str, files: Iterable[str]) -> UnnoiseError:
    """That a repository has no safetensors, and what it has instead."""
    pickles = [name for name in files if name.endswith(PICKLES)]
    if pickles:
        return UnnoiseError(
            f"{repository} has its weights as pickles alone ({listed(pickles)}), which can run code",
            "look for a copy as safetensors; or download one yourself and `unnoise convert` it",
        )
    other = [name for name in files if name.endswith(".gguf")]
    if other:
        return UnnoiseError(f"{repository} has GGUF files alone ({listed(other)})", "name another repository")
    return UnnoiseError(f"{repository} has no weights", "name another repository")


def listed(names: Iterable[str]) -> str:
    """Some names, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
