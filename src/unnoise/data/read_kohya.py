"""Reads the dataset TOML of kohya's sd-scripts: which folders, which captions, how often.

Keys and defaults as in its ``docs/config_README-en.md`` and ``library/config_util.py``. Training settings, such
as flipping or shuffling tags, are reported and ignored; an unknown key is an error.
"""

from __future__ import annotations

import difflib
import itertools
import re
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
    inside,
    read_file,
    text_of,
)
from unnoise.data.kohya_captions import caption_of, metadata, wordings
from unnoise.data.read_folder import is_picture
from unnoise.data.sidecars import ENDINGS, PROMISED, ending_of, paired, tell_apart
from unnoise.errors import UnnoiseError
from unnoise.foreign import parse_toml

# settings that a set uses, with their types
CARRIED: dict[str, type] = {
    "image_dir": str, "caption_extension": str, "class_tokens": str, "num_repeats": int, "caption_prefix": str,
    "caption_suffix": str, "metadata_file": str, "enable_wildcard": bool, "is_reg": bool,
    "keep_tokens_separator": str, "secondary_separator": str, "caption_separator": str,
}  # fmt: skip
RENAMED = {"shuffle_keep_tokens": "keep_tokens"}  # kohya's earlier names
TYPE_NAMES = {str: '"a text"', int: "a whole number", bool: "true or false"}
SUBSET_ONLY = ("image_dir", "metadata_file", "is_reg")
_OF_TRAINING = """
    batch_size enable_bucket min_bucket_reso max_bucket_reso bucket_reso_steps bucket_no_upscale network_multiplier
    skip_image_resolution resize_interpolation validation_split validation_seed shuffle_caption keep_tokens color_aug
    flip_aug face_crop_aug_range random_crop caption_dropout_rate caption_dropout_every_n_epochs
    caption_tag_dropout_rate token_warmup_min token_warmup_step cache_info alpha_mask prior_loss_weight
"""
TRAINING = frozenset(_OF_TRAINING.split())
MAX_REPEATS = 1_000_000


class Kohya(NamedTuple):
    """``source`` of the pictures; ``resolution`` that the file sets, if any; ``ignored`` training settings in it."""

    source: Source
    resolution: int | None
    ignored: list[str]


def read_kohya(path: Path, aside: Quarantine) -> Kohya:
    """The pictures of a dataset TOML. Its folders and metadata files must lie below its own folder.

    Raises:
        UnnoiseError: the file is no TOML, sets an unknown key or a wrong value, or names a folder that is not there.
    """
    root = path.parent.resolve()
    subsets, resolutions, ignored = parse_dataset(path)
    places: set[tuple[str, str]] = set()
    sources = []
    for settings in subsets:
        place = str(settings.get("metadata_file") or settings["image_dir"])
        key = ("metadata_file" if "metadata_file" in settings else "image_dir", place)
        if key in places or settings.get("num_repeats", 1) < 1 or settings.get("is_reg"):
            why = "it is named twice" if key in places else "its num_repeats is below 1"
            aside.add(
                place, LeftOut("a subset", "its pictures are for regularisation" if settings.get("is_reg") else why)
            )
            continue
        places.add(key)
        sources.append(read_subset(root, path.resolve(), settings, aside))
    if len(resolutions) > 1:
        raise UnnoiseError(f"{path} sets several resolutions: {sorted(resolutions)}", "a set has one: leave one")
    count = sum(source.num_items for source in sources)
    items = itertools.chain.from_iterable(source.items for source in sources)
    return Kohya(Source(count, items), next(iter(resolutions), None), ignored)


def parse_dataset(path: Path) -> tuple[list[dict[str, Any]], set[int], list[str]]:
    """(settings of each subset, where the more specific level wins; resolutions; training settings, which are ignored).

    Raises:
        UnnoiseError: as in ``read_kohya``.
    """
    try:
        record = parse_toml(read_file(path, MAX_RECORD).decode("utf-8-sig"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError among them
        raise UnnoiseError(f"{path} is no TOML: {error}", "mend it, or name the folder of pictures itself") from None
    except LeftOut as why:
        raise UnnoiseError(f"{path} cannot be read: {why}", "name a dataset TOML") from None
    unknown = record.keys() - {"general", "datasets"}
    if unknown or not isinstance(record.get("datasets"), list) or not record["datasets"]:
        raise misfit(path, record, unknown)
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


def misfit(path: Path, record: Mapping[str, Any], unknown: set[str]) -> UnnoiseError:
    """Why a TOML is no dataset TOML in kohya's current form."""
    if "dataset" in unknown:
        what = "has a table 'dataset', as kohya's files once had"
        return UnnoiseError(f"{path} {what}", "call it [[datasets]], and [[dataset.subset]] [[datasets.subsets]]")
    if "datasets" not in record and unknown:
        folder = next(
            (t["train_data_dir"] for t in record.values() if isinstance(t, dict) and "train_data_dir" in t), ""
        )
        where = f", such as its train_data_dir {folder!r}" if folder else ""
        what = f"has a table {min(unknown)!r} and no [[datasets]]: it is no dataset TOML"
        return UnnoiseError(f"{path} {what}", f"name the folder of pictures{where}, or write [[datasets]]")
    what = f"has a table {min(unknown)!r}" if unknown else "has no [[datasets]]"
    return UnnoiseError(f"{path} {what}", "write [general], [[datasets]] and [[datasets.subsets]]")


def table(path: Path, where: str, value: Any, more: tuple[str, ...], above: bool) -> dict[str, Any]:
    """A table's settings, each a known key with a value of its type.

    Raises:
        UnnoiseError: one is not.
    """
    if not isinstance(value, dict):
        raise UnnoiseError(f"{path}: {where} is no table", "write its settings as key = value")
    keys = [*(key for key in CARRIED if not (above and key in SUBSET_ONLY)), *sorted(TRAINING), *more]
    for key, setting in value.items():
        if key not in keys:
            near = [RENAMED[key]] if key in RENAMED else difflib.get_close_matches(key, keys, 1)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            raise UnnoiseError(f"{path}: {where} has no setting {key!r}", hint)
        kind = CARRIED.get(key)
        if kind is not None and type(setting) is not kind:
            raise UnnoiseError(f"{path}: {key} in {where} is {setting!r}", f"write {TYPE_NAMES[kind]}")
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


def read_subset(root: Path, toml: Path, settings: Mapping[str, Any], aside: Quarantine) -> Source:
    """The pictures of one subset, which lie directly in its folder."""
    folder = below(root, settings["image_dir"], "image_dir")
    if not folder.is_dir():
        raise UnnoiseError(
            f"image_dir {settings['image_dir']!r} is no folder in {root}", "write it relative to the TOML"
        )
    ending = ending_in(settings)
    records, mine = None, {toml}
    if "metadata_file" in settings:
        mine.add(below(root, settings["metadata_file"], "metadata_file"))
        records = metadata(below(root, settings["metadata_file"], "metadata_file"))
    files = {place: path for place, path in files_in(root, folder, aside) if path not in mine}
    texts = [place for place in files if place.lower().endswith(ending)]
    others = [place for place in files if ending_of(place) in ENDINGS and place not in {*texts}]
    text_files = {*texts, *others}
    names = [place for place in files if place not in text_files and is_picture(place, files[place], aside)]
    keys = {key for place in names for key in (Path(place).name, Path(place).stem)}
    for key in [key for key in records or () if key not in keys]:
        aside.add(f"{settings['metadata_file']}: {key}", LeftOut("no picture", "there is none of that name"))
    pairs = paired(names, texts, (ending,), loose=False)
    for place in sorted({*others, *(pairs.used.values() if records is not None else ())}):
        aside.pass_over(place)
    tell_apart(pairs, pairs.lonely, names, aside)
    better = sorted({ending_of(text) for text in paired(names, others, loose=False).used.values()} - {".json"})
    if better and records is None and not pairs.used:
        what = f"no picture has a caption in a file {ending}, and files {' and '.join(better)} lie beside them"
        aside.note(settings["image_dir"], f'{what}: write caption_extension = "{better[0]}"')

    def items() -> Iterator[Item]:
        for place in names:
            try:
                data, text, caption = read_file(files[place], MAX_PICTURE, picture=True), pairs.used.get(place), None
                if records is not None:
                    caption = caption_of(records, place)
                elif text is not None:
                    caption = text_of(read_file(files[text], MAX_CAPTIONS))
                yield Item(place, data, wordings(caption, settings), settings.get("num_repeats", 1))
            except LeftOut as why:
                aside.add(place, why)

    return Source(len(names), items())


def ending_in(settings: Mapping[str, Any]) -> str:
    """The ending of a subset's caption files, with its dot and in small letters.

    Raises:
        UnnoiseError: it is none.
    """
    setting = settings.get("caption_extension", ".caption")
    ending = f".{setting.strip().lstrip('.').lower()}"
    if ending in PROMISED or not re.fullmatch(r"\.[^/\\\s]+", ending):
        raise UnnoiseError(f"caption_extension is {setting!r}, no ending of text files", 'write one, such as ".txt"')
    return ending


def files_in(root: Path, folder: Path, aside: Quarantine) -> Iterator[tuple[str, Path]]:
    """(name relative to ``root``, file) of what lies directly in a folder, sorted by name."""
    for path in sorted(folder.iterdir()):
        place = path.relative_to(root).as_posix()
        if path.name.startswith("."):
            aside.pass_over(place, "hidden")
        elif path.is_dir():
            aside.pass_over(place, "folders within an image_dir")
        else:
            try:
                yield place, inside(root, place)
            except LeftOut as why:
                aside.add(place, why)


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
