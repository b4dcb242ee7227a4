"""Reads the dataset TOML of kohya's sd-scripts: which folders, which captions, how often.

Keys and defaults as in its ``docs/config_README-en.md`` and ``library/config_util.py``. What belongs to training, such
as flipping or shuffling tags, is named and left to trainings; a key that it does not know is an error.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.data.intake import (
    MAX_CAPTIONS,
    MAX_PICTURE,
    MAX_RECORD,
    Item,
    LeftOut,
    Quarantine,
    Source,
    captions_of,
    inside,
    read_file,
)
from unnoise.errors import UnnoiseError

# what is carried into a set, with the type that it must have
CARRIED: dict[str, type] = {
    "image_dir": str, "caption_extension": str, "class_tokens": str, "num_repeats": int, "caption_prefix": str,
    "caption_suffix": str, "metadata_file": str, "enable_wildcard": bool, "is_reg": bool,
    "keep_tokens_separator": str, "secondary_separator": str, "caption_separator": str,
}  # fmt: skip
SPELT = {str: '"a text"', int: "a whole number", bool: "true or false"}
SUBSET_ONLY = ("image_dir", "metadata_file", "is_reg")
_OF_TRAINING = """
    batch_size enable_bucket min_bucket_reso max_bucket_reso bucket_reso_steps bucket_no_upscale network_multiplier
    skip_image_resolution resize_interpolation validation_split validation_seed shuffle_caption keep_tokens color_aug
    flip_aug face_crop_aug_range random_crop caption_dropout_rate caption_dropout_every_n_epochs
    caption_tag_dropout_rate token_warmup_min token_warmup_step cache_info alpha_mask prior_loss_weight
"""
TRAINING = frozenset(_OF_TRAINING.split())
MAX_WORDINGS = 64  # of one caption, from its {alternatives}
MAX_REPEATS = 1_000_000


class Kohya(NamedTuple):
    """``source`` of the pictures; ``resolution`` that the file asks for, if one; ``ignored`` keys that it sets."""

    source: Source
    resolution: int | None
    ignored: list[str]


def read_kohya(path: Path, aside: Quarantine) -> Kohya:
    """What a dataset TOML names. Its folders and metadata files must lie below its own folder.

    Raises:
        UnnoiseError: the file is no TOML, sets an unknown key or a wrong value, or names a folder that is not there.
    """
    root = path.parent.resolve()
    subsets, resolutions, ignored = parse(path)
    seen: set[tuple[str, str]] = set()
    sources = []
    for settings in subsets:
        place = str(settings.get("metadata_file") or settings["image_dir"])
        key = ("metadata_file" if "metadata_file" in settings else "image_dir", place)
        if key in seen or settings.get("num_repeats", 1) < 1 or settings.get("is_reg"):
            why = "it is named twice" if key in seen else "its num_repeats is below 1"
            aside.add(
                place, LeftOut("a subset", "its pictures are for regularisation" if settings.get("is_reg") else why)
            )
            continue
        seen.add(key)
        sources.append(read_subset(root, settings, aside))
    if len(resolutions) > 1:
        raise UnnoiseError(f"{path} sets several resolutions: {sorted(resolutions)}", "a set has one: leave one")
    count = sum(source.num_items for source in sources)
    items = itertools.chain.from_iterable(source.items for source in sources)
    return Kohya(Source(count, items), next(iter(resolutions), None), ignored)


def parse(path: Path) -> tuple[list[dict[str, Any]], set[int], list[str]]:
    """(settings of each subset, the lower level winning; resolutions; keys that are left to trainings).

    Raises:
        UnnoiseError: as in ``read_kohya``.
    """
    try:
        record = tomllib.loads(read_file(path, MAX_RECORD).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise UnnoiseError(f"{path} is no TOML: {error}", "mend it, or name the folder of pictures itself") from None
    except LeftOut as why:
        raise UnnoiseError(f"{path} cannot be read: {why}", "name a dataset TOML") from None
    unknown = record.keys() - {"general", "datasets"}
    if unknown or not isinstance(record.get("datasets"), list) or not record["datasets"]:
        what = f"has a table {min(unknown)!r}" if unknown else "has no [[datasets]]"
        raise UnnoiseError(f"{path} {what}", "write [general], [[datasets]] and [[datasets.subsets]]")
    general = table(path, "general", record.get("general", {}), ("resolution",), above=True)
    subsets, resolutions, ignored = [], set(), {*general}
    for number, each in enumerate(record["datasets"]):
        below = each.get("subsets") if isinstance(each, dict) else None
        if not isinstance(below, list) or not below:
            raise UnnoiseError(f"{path}: datasets[{number}] has no [[datasets.subsets]]", "write one with image_dir")
        own = {key: value for key, value in each.items() if key != "subsets"}
        dataset = table(path, f"datasets[{number}]", own, ("resolution",), above=True)
        resolution = dataset.get("resolution", general.get("resolution"))
        if resolution is not None:
            resolutions.add(side_of(path, resolution))
        for place, one in enumerate(below):
            subset = table(path, f"datasets[{number}].subsets[{place}]", one, (), above=False)
            if "image_dir" not in subset:
                raise UnnoiseError(f"{path}: datasets[{number}].subsets[{place}] has no image_dir", "name its folder")
            subsets.append({**general, **dataset, **subset})
            ignored |= {*dataset, *subset}
    return subsets, resolutions, sorted(ignored & TRAINING)


def table(path: Path, where: str, value: Any, more: tuple[str, ...], above: bool) -> dict[str, Any]:
    """A table's settings, each a known key with a value of its type.

    Raises:
        UnnoiseError: one is not.
    """
    if not isinstance(value, dict):
        raise UnnoiseError(f"{path}: {where} is no table", "write its settings as key = value")
    known = [*(key for key in CARRIED if not (above and key in SUBSET_ONLY)), *sorted(TRAINING), *more]
    for key, setting in value.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            raise UnnoiseError(f"{path}: {where} has no setting {key!r}", hint)
        kind = CARRIED.get(key)
        if kind is not None and type(setting) is not kind:
            raise UnnoiseError(f"{path}: {key} in {where} is {setting!r}", f"write {SPELT[kind]}")
        if key == "num_repeats" and setting > MAX_REPEATS:
            raise UnnoiseError(f"{path}: {key} in {where} is too large", f"write at most {MAX_REPEATS:,}")
    return value


def side_of(path: Path, resolution: Any) -> int:
    """The side of a square resolution, ``512`` or ``[512, 512]``.

    Raises:
        UnnoiseError: it is not square.
    """
    sides = resolution if isinstance(resolution, list) else [resolution, resolution]
    if len(sides) != 2 or sides[0] != sides[1] or type(sides[0]) is not int:
        raise UnnoiseError(f"{path}: a resolution of {resolution!r} is not square", "write one whole number")
    return int(sides[0])


def read_subset(root: Path, settings: Mapping[str, Any], aside: Quarantine) -> Source:
    """The pictures of one subset, which lie directly in its folder."""
    folder = below(root, settings["image_dir"], "image_dir")
    if not folder.is_dir():
        raise UnnoiseError(
            f"image_dir {settings['image_dir']!r} is no folder in {root}", "write it relative to the TOML"
        )
    ending = settings.get("caption_extension", ".caption")
    files = {p.name: p for p in sorted(folder.iterdir()) if not p.name.startswith(".") and not p.is_dir()}
    told: dict[str, Any] | None = None
    if "metadata_file" in settings:
        told = metadata(below(root, settings["metadata_file"], "metadata_file"))
        for key in told.keys() - files.keys() - {Path(name).stem for name in files}:
            aside.add(f"{settings['metadata_file']}: {key}", LeftOut("no picture", "there is none of that name"))
    names = [name for name in files if not name.endswith((ending, ".npz", ".json"))]

    def items() -> Iterator[Item]:
        for name in names:
            place = (folder / name).relative_to(root).as_posix()
            try:
                data = read_file(inside(root, place), MAX_PICTURE, picture=True)
                beside = f"{place.removesuffix(Path(name).suffix)}{ending}"
                said = text_beside(root, beside) if told is None else tagged(told, name)
                yield Item(place, data, wordings(said, settings), settings.get("num_repeats", 1))
            except LeftOut as why:
                aside.add(place, why)

    return Source(len(names), items())


def text_beside(root: Path, name: str) -> str | None:
    """The text of a caption file; None where there is none.

    Raises:
        LeftOut: it cannot be read.
    """
    path = inside(root, name)
    try:
        return read_file(path, MAX_CAPTIONS).decode("utf-8-sig") if path.exists() else None
    except UnicodeDecodeError:
        raise LeftOut("bad caption", "it is not UTF-8") from None


def below(root: Path, name: str, key: str) -> Path:
    """A path that the TOML names.

    Raises:
        UnnoiseError: it does not lie below the TOML's folder.
    """
    try:
        return inside(root, name)
    except LeftOut as why:
        raise UnnoiseError(
            f"{key}: {why.detail}", "put the TOML above its folders, and write them relative to it"
        ) from None


def metadata(path: Path) -> dict[str, Any]:
    """The records of a fine-tuning metadata file: JSON, by the picture's name, of whose path the last part counts.

    Raises:
        UnnoiseError: it is none.
    """
    try:
        record = json.loads(read_file(path, MAX_RECORD))
    except (ValueError, RecursionError, LeftOut) as error:
        raise UnnoiseError(f"metadata_file {path.name} cannot be read: {error}", "write it anew") from None
    if not isinstance(record, dict):
        raise UnnoiseError(f"metadata_file {path.name} is no JSON object", "write pictures' names with their records")
    return {re.split(r"[/\\]", key)[-1]: value for key, value in record.items()}


def tagged(told: Mapping[str, Any], name: str) -> str:
    """Caption and tags of a picture, the tags behind every line.

    Raises:
        LeftOut: the metadata do not know it, or its record is none.
    """
    record = told.get(name, told.get(Path(name).stem))
    if record is None:
        raise LeftOut("bad metadata", "the metadata_file does not name it")
    if not isinstance(record, dict):
        raise LeftOut("bad metadata", "its record is no object")
    caption, tags = record.get("caption"), record.get("tags")
    if not all(text is None or isinstance(text, str) for text in (caption, tags)):
        raise LeftOut("bad metadata", "caption and tags are to be texts")
    if caption is None or not tags:
        return str((tags if caption is None else caption) or "")
    return "\n".join(f"{line}, {tags}" for line in caption.splitlines())


def wordings(said: str | None, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The captions of a picture: the first line, or with wildcards every line in every wording.

    Raises:
        LeftOut: they are empty, or too many.
    """
    if said is None:  # no caption: the class tokens stand for it
        said = settings.get("class_tokens")
        if said is None:
            return ()
    every = settings.get("enable_wildcard", False)
    lines = list(captions_of([*(said.splitlines() if every else said.splitlines()[:1])]))
    if every:
        lines = [wording for line in lines for wording in alternatives(line)]
    return captions_of([framed(line, settings) for line in lines])


def alternatives(line: str) -> list[str]:
    """Every wording of "a {red|blue} car"; doubled braces stand for themselves.

    Raises:
        LeftOut: there are more than ``MAX_WORDINGS``.
    """
    text = line.replace("{{", "\0").replace("}}", "\1")
    choices = [part.split("|") if place % 2 else [part] for place, part in enumerate(re.split(r"\{([^{}]+)\}", text))]
    if math.prod(map(len, choices)) > MAX_WORDINGS:
        raise LeftOut("bad caption", f"it has more than {MAX_WORDINGS} wordings")
    return ["".join(each).replace("\0", "{").replace("\1", "}") for each in itertools.product(*choices)]


def framed(line: str, settings: Mapping[str, Any]) -> str:
    """A caption between prefix and suffix, its separators as the tokens see them in the end."""
    line = " ".join(filter(None, (settings.get("caption_prefix"), line, settings.get("caption_suffix"))))
    if settings.get("keep_tokens_separator"):
        parts = (part.strip(" ,") for part in line.split(settings["keep_tokens_separator"]))
        line = ", ".join(part for part in parts if part)
    if settings.get("secondary_separator"):
        line = line.replace(settings["secondary_separator"], settings.get("caption_separator", ","))
    return line
