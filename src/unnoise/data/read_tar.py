"""Reads WebDataset tars: files of one stem, one after the other, are one sample.

The ``webdataset`` library groups the samples and is handed open files alone: an address would make it fetch or, for
"pipe:", run a command. It decodes nothing, as some of its decoders unpickle; bytes are all that is taken from it.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from unnoise.data.intake import (
    MAX_CAPTIONS,
    MAX_PICTURE,
    Item,
    LeftOut,
    Quarantine,
    Source,
    captions_in,
    captions_of,
    check_picture,
)

PICTURES = ("png", "jpg", "jpeg", "webp")
TEXTS = ("txt", "json")
MAX_HEADER = 2**20  # bytes of one extended header: long names and the like
PACKED = {"gzip": rb"\x1f\x8b", "bzip2": rb"BZh.1AY&SY", "xz": rb"\xfd7zXZ|\]\0\0\x80"}


class Bounded:
    """A file of which no more than ``MAX_HEADER`` bytes are read at once: tar headers say how long they are."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes."""
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.file.read(size)


def read_tar(path: Path, name: str, aside: Quarantine) -> Source:
    """The samples of an uncompressed tar: a picture, and captions from ``.txt`` or the ``caption`` in ``.json``.

    The archive's headers are gone through first, so that no member is read whose size or kind was not seen; nothing is
    ever unpacked onto the disk. Samples are named ``file.tar#stem``.
    """
    from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_expander

    members = survey(path, name, aside)
    stems = {base_plus_ext(member)[0] for member in members}

    def items() -> Iterator[Item]:
        def stumble(error: Exception) -> bool:
            aside.add(name, LeftOut("damaged", str(error.args[0]) if error.args else type(error).__name__))
            return True

        if not members:
            return
        with path.open("rb") as file:
            parts = tar_file_expander(
                [{"url": name, "stream": file}], handler=stumble, select_files=members.__contains__
            )
            for sample in group_by_keys(parts, handler=stumble):
                place = f"{name}#{sample['__key__']}"
                try:
                    yield Item(place, picture_of(sample), said_of(sample))
                except LeftOut as why:
                    aside.add(place, why)

    return Source(len(stems), items())


def survey(path: Path, name: str, aside: Quarantine) -> set[str]:
    """Names of the members to read; what is not to be read, and damage, is put aside."""
    wanted, refused = set(), set()
    sample: dict[str, int] = {}  # bytes, by stem: they are in memory at once
    try:
        with path.open("rb") as file:
            check_plain(file)
            with tarfile.open(fileobj=Bounded(file), mode="r:") as tar:  # type: ignore[call-overload]
                for member in tar:
                    tar.members = []  # it would keep all that it has seen
                    if member.isdir() or os.path.basename(member.name).startswith("."):
                        continue
                    try:
                        if check_member(member, sample):
                            wanted.add(member.name)
                    except LeftOut as why:
                        refused.add(member.name)
                        aside.add(f"{name}#{member.name}", why)
                check_end(file, tar.offset)
    except LeftOut as why:
        aside.add(name, why)
    except (tarfile.TarError, OSError, ValueError) as error:
        aside.add(name, LeftOut("damaged", f"no whole tar: {error}"))
    return wanted - refused


def check_plain(file: IO[bytes]) -> None:
    """Sees that a file does not begin as a compressed one, which the library would unpack without a limit.

    Raises:
        LeftOut: it does.
    """
    head = file.read(10)
    file.seek(0)
    for kind, magic in PACKED.items():
        if re.match(magic, head, re.S):
            raise LeftOut("compressed", f"by {kind}; unpack it into a plain .tar first")


def check_member(member: tarfile.TarInfo, sample: dict[str, int]) -> bool:
    """Whether a member is a picture or its captions; ``sample`` sums up the bytes of each stem.

    Raises:
        LeftOut: it is no file of a size to read, or its name makes no sample.
    """
    from webdataset.tariterators import base_plus_ext

    if not member.isfile() or member.issparse():
        raise LeftOut("unreadable", "a member that is no plain file")
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise LeftOut("unsafe path", "the name climbs out of the archive")
    stem, ending = base_plus_ext(member.name)
    if stem is None or member.name.startswith("__"):  # the library passes these over in silence
        raise LeftOut("not a picture", "its name has no stem and ending")
    if ending.lower() not in TEXTS and ending.lower().split(".")[-1] not in PICTURES:
        return False
    sample[stem] = sample.get(stem, 0) + member.size
    if sample[stem] > MAX_PICTURE:
        raise LeftOut("too large", f"{sample[stem]:,} bytes, at most {MAX_PICTURE:,} are read")
    return True


def check_end(file: IO[bytes], offset: int) -> None:
    """Sees that the headers ended where the archive does; tarfile takes a damaged header for the end.

    Raises:
        LeftOut: something else stands there.
    """
    file.seek(offset)
    block = file.read(512)
    if block.strip(b"\0") or len(block) < 512:
        raise LeftOut("damaged", f"no header at byte {offset:,}; what follows is not read")


def picture_of(sample: dict[str, Any]) -> bytes:
    """The picture's file in a sample.

    Raises:
        LeftOut: there is none, or more than one.
    """
    fields = [key for key in sample if key in PICTURES] or [key for key in sample if key.split(".")[-1] in PICTURES]
    if len(fields) != 1:
        found = ", ".join(key for key in sample if not key.startswith("__"))
        raise LeftOut("no picture" if not fields else "several pictures", f"the sample holds {found}")
    return check_picture(sample[fields[0]])


def said_of(sample: dict[str, Any]) -> tuple[str, ...]:
    """The captions in a sample; none where it has no field for them.

    Raises:
        LeftOut: the field is there, and holds none.
    """
    if "txt" in sample:
        return captions_in(sample["txt"])
    if "json" not in sample:
        return ()
    try:
        record = json.loads(sample["json"][: 16 * MAX_CAPTIONS])
    except (ValueError, RecursionError):
        raise LeftOut("bad metadata", "the .json of the sample is no JSON") from None
    said = record.get("caption", record.get("text")) if isinstance(record, dict) else None
    return () if said is None else captions_of(said if isinstance(said, list) else [said])
