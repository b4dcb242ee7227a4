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
from unnoise.data.kohya_captions import Records, metadata, tagged
from unnoise.data.read_metadata import METADATA, Pictures, Told, read_metadata
from unnoise.data.read_parquet import look, pictures_in, read_parquet
from unnoise.data.read_tar import read_tar
from unnoise.data.sidecars import ENDINGS, MAX_JSON, PROMISED, ending_of, paired, said_in, tell_apart
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
    ``paired`` finds it. Names that begin with a dot are passed over. Links are followed within the folder, and from a
    snapshot in a cache of Hugging Face's to its blobs.

    Args:
        root: the folder; must be resolved.
        aside: takes what is left out, and counts what is not used.
    """
    found = dict(walk(root, aside))
    tables = {name: path for name, path in found.items() if is_metadata(name, path)}
    packed = [name for name in found if ending_of(name) in PACKED and name not in tables]
    texts = [name for name in found if ending_of(name) in ENDINGS]
    others = {*tables, *packed, *texts}
    loose = [name for name in found if name not in others and is_picture(name, found[name], aside)]
    pairs = paired(loose, texts)
    told = read_metadata(Pictures(root, {name: found[name] for name in loose}), tables, aside)
    records = {name: record for name in pairs.lonely if (record := record_of(name, found[name])) is not None}
    for name, record in records.items():
        told = recorded(record, [place for place in loose if place not in told], name, aside) | told
    tell_apart(pairs, [name for name in pairs.lonely if name not in records], loose, aside)
    needed = {text for picture, text in pairs.used.items() if picture not in told}
    for name in sorted({*pairs.used.values()} - needed):
        aside.pass_over(name)
    kohya_like(root, pairs.used, loose, aside)
    sources = [PACKED[ending_of(name)](found[name], name, aside) for name in packed]

    def items() -> Iterator[Item]:
        for name in loose:
            try:
                data = read_file(found[name], MAX_PICTURE, picture=True)  # first: what is no picture needs no caption
                said: Told = told[name] if name in told else beside(pairs.used.get(name), found, aside)
                if isinstance(said, LeftOut):
                    raise said
                yield Item(name, data, said)
            except LeftOut as why:
                aside.add(name, why)
        for source in sources:
            yield from source.items

    return Source(len(loose) + sum(source.num_items for source in sources), items())


def beside(text: str | None, found: dict[str, Path], aside: Quarantine) -> tuple[str, ...]:
    """The captions in the text file of a picture.

    Raises:
        LeftOut: it is there, and cannot be used.
    """
    if text is None:
        return ()
    said = said_in(text, read_file(found[text], MAX_JSON if ending_of(text) == ".json" else MAX_CAPTIONS))
    if not said:
        aside.pass_over(text)
    return said


def record_of(name: str, path: Path) -> Records | None:
    """The records in a file of kohya's fine-tuning metadata that lies in a folder; None if it is no such file."""
    try:
        found = metadata(path) if ending_of(name) == ".json" and path.stat().st_size <= MAX_PICTURE else {}
    except (OSError, UnnoiseError):
        return None
    records = [record for several in found.values() for _, record in several]
    return found if records and all(isinstance(r, dict) and {"caption", "tags"} & r.keys() for r in records) else None


def recorded(record: Records, pictures: Sequence[str], name: str, aside: Quarantine) -> dict[str, Told]:
    """What such metadata say of the pictures that they name."""
    told: dict[str, Told] = {}
    for place in pictures:
        try:
            if Path(place).name in record or Path(place).stem in record:
                told[place] = captions_of([*tagged(record, place).splitlines()])
        except LeftOut as why:
            told[place] = why
    aside.note(name, f"read as kohya's metadata: it has {len(told):,} of the pictures")
    return told


def is_picture(name: str, path: Path, aside: Quarantine) -> bool:
    """Whether a file is to be read as a picture: its name promises one, or else its first bytes do.

    What holds pictures in another form is named, what lies there for another purpose is counted.
    """
    ending = ending_of(name)
    if ending in PROMISED:
        return True
    try:
        read_file(path, 0, picture=True)
    except NoPicture as why:
        if ending in HOLDERS:
            aside.add(name, LeftOut("packed", HOLDERS[ending]))
        elif why.found is not None and why.found.format == POINTER:
            aside.add(name, why)
        else:
            aside.pass_over(name)
        return False
    except LeftOut:
        pass  # it begins as a picture and has more than nothing, or cannot be read, which is said when it is
    return True


def kohya_like(root: Path, used: dict[str, str], pictures: list[str], aside: Quarantine) -> None:
    """Says of folders that are called "10_sks dog" that nothing is read from such a name, and how to have it."""
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
    """Whether a file is one of captions for the pictures beside it, and no set of its own."""
    if Path(name).name.lower() not in METADATA:
        return False
    if ending_of(name) != ".parquet":
        return True
    try:
        return not pictures_in(look(path)[0])
    except LeftOut as why:
        return why.kind == "no pictures"


def walk(root: Path, aside: Quarantine) -> Iterator[tuple[str, Path]]:
    """(name relative to the folder, file) of all that lies in it, sorted by name; ``root`` must be resolved."""

    def stumble(error: OSError) -> None:
        place = os.path.relpath(error.filename or root, root)
        aside.add(place, LeftOut("unreadable", error.strerror or str(error)))

    for folder, below, files in os.walk(root, onerror=stumble):
        here = Path(folder).relative_to(root)
        for name in sorted(name for name in [*below, *files] if name.startswith(".")):
            aside.pass_over((here / name).as_posix(), "hidden")
        below[:] = sorted(name for name in below if not name.startswith("."))
        if {"blobs", "snapshots"} <= {*below}:  # a cache of Hugging Face's: the snapshots' links lead to the blobs
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
