"""Reads a folder of pictures: captions from text files beside them or from metadata files, sets within it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from unnoise.data.intake import (
    MAX_CAPTIONS,
    MAX_PICTURE,
    Item,
    LeftOut,
    NoPicture,
    Quarantine,
    Source,
    inside,
    read_file,
)
from unnoise.data.read_metadata import METADATA, Pictures, Told, read_metadata
from unnoise.data.read_parquet import look, picture_in, read_parquet
from unnoise.data.read_tar import read_tar
from unnoise.data.sidecars import ENDINGS, MAX_JSON, ending_of, paired, said_in
from unnoise.foreign import POINTER

PACKED: dict[str, Callable[[Path, str, Quarantine], Source]] = {".parquet": read_parquet, ".tar": read_tar}
# endings that promise a picture: what bears one and is none is left out by name, what bears another is counted
_PROMISED = ".png .apng .jpg .jpeg .jpe .jfif .webp .gif .bmp .tif .tiff .ico .svg .psd .heic .heif .avif .jxl .jp2"
PROMISED = frozenset(_PROMISED.split())
UNPACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".arrow", ".tfrecord")


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
    told = read_metadata(Pictures(root, {name: found[name] for name in loose}), tables, aside)
    pairs = paired(loose, texts)
    for name in pairs.lonely:
        if ending_of(name) == ".json":
            aside.pass_over(name)
        else:
            aside.add(name, LeftOut("no picture", "a caption, and no picture of its name"))
    for name in [*pairs.second, *(text for picture, text in pairs.used.items() if picture in told)]:
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
        if ending in UNPACKED:
            aside.add(name, LeftOut("packed", "unpack it, and name the folder with its pictures"))
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
            ending = ending_of(used.get(name, ".txt"))
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
        return not picture_in(look(path)[0])
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
