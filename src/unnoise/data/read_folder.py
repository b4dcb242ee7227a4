"""Reads a folder of pictures: captions from text files beside them or from metadata files, sets within it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from unnoise.data.intake import (
    MAX_CAPTIONS,
    MAX_PICTURE,
    Item,
    LeftOut,
    NoPicture,
    Quarantine,
    Source,
    captions_of,
    inside,
    read_file,
)
from unnoise.data.kohya_captions import Records, caption_of, metadata
from unnoise.data.read_metadata import METADATA, Outcome, Pictures, read_metadata
from unnoise.data.read_parquet import look, pictures_in, read_parquet
from unnoise.data.read_tar import read_tar
from unnoise.data.sidecars import ENDINGS, MAX_JSON, PROMISED, captions_in_file, ending_of, paired, tell_apart
from unnoise.errors import UnnoiseError
from unnoise.foreign import POINTER

PACKED: dict[str, Callable[[Path, str, Quarantine], Source]] = {".parquet": read_parquet, ".tar": read_tar}
UNPACK, WRITE = "unpack it, and name the folder with its pictures", "write its pictures as Parquet, or as files"
HOLDERS = {
    ".zip": UNPACK, ".gz": UNPACK, ".tgz": UNPACK, ".bz2": UNPACK, ".xz": UNPACK, ".zst": UNPACK, ".7z": UNPACK,
    ".rar": UNPACK, ".arrow": WRITE, ".tfrecord": WRITE, ".h5": WRITE, ".hdf5": WRITE, ".mdb": WRITE,
}  # fmt: skip


def read_folder(root: Path, aside: Quarantine) -> Source:
    """Every picture below a folder, and those in its Parquet files and tars, in the order of their names.

    A picture's captions are those of a metadata file in its folder or above, or else those of the text beside it, as
    ``paired`` finds it. Names that begin with a dot are skipped. Links are followed within the folder, and from a
    snapshot in Hugging Face's cache to its blobs.

    Args:
        root: the folder; must be resolved.
        aside: records what is left out, and counts unused files.
    """
    files = dict(walk(root, aside))
    tables = {name: path for name, path in files.items() if is_metadata(name, path)}
    packed = [name for name in files if ending_of(name) in PACKED and name not in tables]
    texts = [name for name in files if ending_of(name) in ENDINGS]
    others = {*tables, *packed, *texts}
    loose = [name for name in files if name not in others and is_picture(name, files[name], aside)]
    pairs = paired(loose, texts)
    captions = read_metadata(Pictures(root, {name: files[name] for name in loose}), tables, aside)
    records = {name: record for name in pairs.lonely if (record := record_of(name, files[name])) is not None}
    for name, record in records.items():
        captions = (
            captions_from_records(record, [place for place in loose if place not in captions], name, aside) | captions
        )
    tell_apart(pairs, [name for name in pairs.lonely if name not in records], loose, aside)
    needed = {text for picture, text in pairs.used.items() if picture not in captions}
    for name in sorted({*pairs.used.values()} - needed):
        aside.pass_over(name)
    kohya_like(root, pairs.used, loose, aside)
    sources = [PACKED[ending_of(name)](files[name], name, aside) for name in packed]

    def items() -> Iterator[Item]:
        for name in loose:
            try:
                data = read_file(
                    files[name], MAX_PICTURE, picture=True
                )  # first: without a picture no caption is needed
                outcome: Outcome = captions[name] if name in captions else beside(pairs.used.get(name), files, aside)
                if isinstance(outcome, LeftOut):
                    raise outcome
                yield Item(name, data, outcome)
            except LeftOut as why:
                aside.add(name, why)
        for source in sources:
            yield from source.items

    return Source(len(loose) + sum(source.num_items for source in sources), items())


def beside(text: str | None, files: dict[str, Path], aside: Quarantine) -> tuple[str, ...]:
    """The captions in the text file of a picture.

    Raises:
        LeftOut: it is there, and cannot be used.
    """
    if text is None:
        return ()
    captions = captions_in_file(text, read_file(files[text], MAX_JSON if ending_of(text) == ".json" else MAX_CAPTIONS))
    if not captions:
        aside.pass_over(text)
    return captions


def record_of(name: str, path: Path) -> Records | None:
    """The records in a file of kohya's fine-tuning metadata; None if it is no such file."""
    try:
        records = metadata(path) if ending_of(name) == ".json" and path.stat().st_size <= MAX_PICTURE else {}
    except (OSError, UnnoiseError):
        return None
    entries = [record for several in records.values() for _, record in several]
    return records if entries and all(isinstance(r, dict) and {"caption", "tags"} & r.keys() for r in entries) else None


def captions_from_records(record: Records, pictures: Sequence[str], name: str, aside: Quarantine) -> dict[str, Outcome]:
    """The captions in kohya's metadata, or why they cannot be used, of those of the pictures that it names."""
    captions: dict[str, Outcome] = {}
    for place in pictures:
        try:
            if Path(place).name in record or Path(place).stem in record:
                captions[place] = captions_of([*caption_of(record, place).splitlines()])
        except LeftOut as why:
            captions[place] = why
    aside.note(name, f"read as kohya's metadata: it has {len(captions):,} of the pictures")
    return captions


def is_picture(name: str, path: Path, aside: Quarantine) -> bool:
    """Whether a file is to be read as a picture: by its extension, or else by its first bytes.

    Files that hold pictures in another form are reported by name, all others are counted.
    """
    ending = ending_of(name)
    if ending in PROMISED:
        return True
    try:
        read_file(path, 0, picture=True)
    except NoPicture as why:
        if ending in HOLDERS:
            aside.add(name, LeftOut("packed", HOLDERS[ending]))
        elif why.actual is not None and why.actual.format == POINTER:
            aside.add(name, why)
        else:
            aside.pass_over(name)
        return False
    except LeftOut:
        pass  # it begins as a picture, or cannot be read, which is reported when it is read
    return True


def kohya_like(root: Path, used: dict[str, str], pictures: list[str], aside: Quarantine) -> None:
    """Notes for folders such as "10_sks dog" that such a name is not interpreted, and what to write instead."""
    folders: dict[Path, str] = {}
    for name in pictures:
        folders.setdefault((root / name).parent, name)
    for folder, name in folders.items():
        match = re.fullmatch(r"([1-9]\d{0,2})_(.+)", folder.name)
        if match:
            ending = ending_of(used.get(name, "a.txt"))
            settings = f"image_dir = {json.dumps(folder.name, ensure_ascii=False)}, num_repeats = {match[1]}, "
            settings += f"class_tokens = {json.dumps(match[2], ensure_ascii=False)}, caption_extension = "
            settings += json.dumps(ending if ending != ".json" else ".txt")
            what = "a name as kohya's folders have; repeats and class tokens are not read from it: for them name a TOML"
            aside.note(folder.name, f"{what} beside it with [[datasets]], [[datasets.subsets]] and {settings}")


def is_metadata(name: str, path: Path) -> bool:
    """Whether a file holds captions for the pictures beside it, and is not a set itself."""
    if Path(name).name.lower() not in METADATA:
        return False
    if ending_of(name) != ".parquet":
        return True
    try:
        return not pictures_in(look(path)[0])
    except LeftOut as why:
        return why.kind == "no pictures"


def walk(root: Path, aside: Quarantine) -> Iterator[tuple[str, Path]]:
    """(name relative to the folder, file) of every file in it, sorted by name; ``root`` must be resolved."""

    def stumble(error: OSError) -> None:
        place = os.path.relpath(error.filename or root, root)
        aside.add(place, LeftOut("unreadable", error.strerror or str(error)))

    for folder, below, files in os.walk(root, onerror=stumble):
        here = Path(folder).relative_to(root)
        for name in sorted(name for name in [*below, *files] if name.startswith(".")):
            aside.pass_over((here / name).as_posix(), "hidden")
        below[:] = sorted(name for name in below if not name.startswith("."))
        if {"blobs", "snapshots"} <= {*below}:  # Hugging Face's cache: the snapshots' links lead to the blobs
            below.remove("blobs")
        for name in below:
            if os.path.islink(os.path.join(folder, name)):
                aside.add(
                    (here / name).as_posix(), LeftOut("a link to a folder", "not followed; name that folder itself")
                )
        for name in sorted(name for name in files if not name.startswith(".")):
            place = (here / name).as_posix()
            try:
                yield place, inside(root, place)
            except LeftOut as why:
                aside.add(place, why)
