"""Reads tars of pictures, as the ``webdataset`` library and people write them: files of one name are one sample.

All headers are read first, so that a text is found before or after its picture, and no
member is read before its size and kind are known. Nothing is unpacked onto the disk, decoded or unpickled here.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from unnoise.data.intake import (
    MAX_CAPTIONS,
    MAX_PICTURE,
    Item,
    LeftOut,
    Quarantine,
    Source,
    check_not_instead,
    check_picture,
)
from unnoise.data.sidecars import (
    ENDINGS,
    MAX_JSON,
    PROMISED,
    captions_in_file,
    ending_of,
    paired,
    sample_of,
    stem_of,
    tell_apart,
)
from unnoise.foreign import head_of

MAX_HEADER = 2**20  # bytes of one extended header: long names and the like
MAX_MEMBERS = 2**21  # of one tar: their names and places are in memory, some 300 bytes each
PACKED = {"gzip": rb"\x1f\x8b", "bzip2": rb"BZh.1AY&SY", "xz": rb"\xfd7zXZ|\]\0\0\x80", "zstd": rb"\x28\xb5\x2f\xfd"}


class Place(NamedTuple):
    """The position of a member's bytes in the tar, and their number."""

    offset: int
    size: int


class Bounded:
    """A file that refuses to read more than ``MAX_HEADER`` bytes at once: tar headers claim their own length."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes."""
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.file.read(size)


def read_tar(path: Path, name: str, aside: Quarantine) -> Source:
    """The pictures of an uncompressed tar, each with the captions of the text of its name, as ``paired`` finds it.

    Items are named ``file.tar#stem``. Two pictures of one stem, or several pictures of a sample with one text, are left
    out: they are ambiguous.
    """
    members = survey(path, name, aside)
    texts = [member for member in members if ending_of(member) in ENDINGS]
    pictures = [member for member in members if ending_of(member) in PROMISED]
    pairs = paired(pictures, texts)
    pictures = without_doubles(pictures, pairs.crowded, name, aside)
    extra = other_views(pictures, pairs.used)
    for member in [member for member in pictures if member in extra]:
        aside.pass_over(f"{name}#{member}", "further pictures of samples")
    tell_apart(pairs, pairs.lonely, pictures, aside, f"{name}#")
    pictures = [member for member in pictures if member not in extra]

    def items() -> Iterator[Item]:
        with path.open("rb") as file:
            for member in pictures:
                try:
                    data, text = check_picture(bytes_at(file, members[member])), pairs.used.get(member)
                    captions: tuple[str, ...] = ()
                    if text is not None:
                        limit = MAX_JSON if ending_of(text) == ".json" else MAX_CAPTIONS
                        captions = captions_in_file(text, bytes_at(file, members[text], limit))
                        if not captions:
                            aside.pass_over(f"{name}#{text}")
                    yield Item(f"{name}#{stem_of(member)}", data, captions)
                except LeftOut as why:
                    aside.add(f"{name}#{stem_of(member)}", why)

    return Source(len(pictures), items())


def without_doubles(pictures: list[str], crowded: list[str], name: str, aside: Quarantine) -> list[str]:
    """The pictures without those that share a stem, or the one text of a sample, which are left out by name."""
    stems: dict[str, list[str]] = defaultdict(list)
    for member in pictures:
        stems[stem_of(member)].append(member)
    samples: dict[str, list[str]] = defaultdict(list)
    for member in dict.fromkeys(crowded):
        samples[sample_of(member)].append(member)
    doubles: set[str] = set()
    for stem, several in [*((stem, each) for stem, each in stems.items() if len(each) > 1), *samples.items()]:
        if not doubles.issuperset(several):
            aside.add(f"{name}#{stem}", LeftOut("several pictures", f"the sample holds {', '.join(several)}"))
        doubles.update(several)
    return [member for member in pictures if member not in doubles]


def other_views(pictures: list[str], used: dict[str, str]) -> set[str]:
    """Pictures without a text that lie beside the picture of their sample, as ``a.mask.png`` does beside ``a.jpg``.

    A name that continues with a number, as dates and versions do, is a separate picture.
    """
    whole = {stem_of(member) for member in pictures if stem_of(member) == sample_of(member)}
    return {
        member
        for member in pictures
        if member not in used
        and (sample := sample_of(member)) in whole
        and stem_of(member) != sample
        and not re.search(r"\d", stem_of(member)[len(sample) :])
    }


def survey(path: Path, name: str, aside: Quarantine) -> dict[str, Place]:
    """The places of the members to read, in their order; other members, and damage, are recorded."""
    places: dict[str, Place] = {}
    try:
        check_not_instead(head_of(path))
        with path.open("rb") as file:
            check_plain(file)
            with tarfile.open(fileobj=Bounded(file), mode="r:") as tar:  # type: ignore[call-overload]
                for member in tar:
                    tar.members = []  # tarfile would keep every member in memory
                    if member.isdir():
                        continue
                    place = posixpath.normpath(member.name)
                    try:
                        if check_member(member, place, places, name, aside):
                            if place in places:
                                raise LeftOut("a doubled name", "the first member of that name is read")
                            same = places.get(posixpath.normpath(member.linkname)) if member.islnk() else None
                            places[place] = same or Place(member.offset_data, member.size)
                    except LeftOut as why:
                        aside.add(f"{name}#{member.name}", why)
                    if len(places) > MAX_MEMBERS:
                        raise LeftOut("too large", f"only the first {MAX_MEMBERS:,} files are read; make smaller tars")
                check_end(file, tar.offset)
    except LeftOut as why:
        aside.add(name, why)
    except (tarfile.TarError, OSError, ValueError) as error:
        aside.add(name, LeftOut("damaged", f"no whole tar: {error}"))
    return places


def check_plain(file: IO[bytes]) -> None:
    """Ensures that a file is not compressed, by its first bytes.

    Raises:
        LeftOut: it is.
    """
    head = file.read(10)
    file.seek(0)
    for kind, magic in PACKED.items():
        if re.match(magic, head, re.S):
            raise LeftOut("compressed", f"by {kind}; unpack it into a plain .tar first")


def check_member(member: tarfile.TarInfo, place: str, places: dict[str, Place], name: str, aside: Quarantine) -> bool:
    """Whether a member is a picture or a text, or the second name of one in ``places``; all others are counted.

    Raises:
        LeftOut: it is no file of a size to read, or its name leads out.
    """
    if posixpath.basename(place).startswith("."):
        aside.pass_over(f"{name}#{place}", "hidden")
        return False
    second = member.islnk() and posixpath.normpath(member.linkname) in places
    if member.issym():
        raise LeftOut("unreadable", "a member that is a link; make the tar with links followed (tar -h)")
    if member.issparse() or not (member.isfile() or second):
        raise LeftOut("unreadable", "a member that is no plain file")
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise LeftOut("unsafe path", "the name climbs out of the archive")
    if ending_of(place) not in (*PROMISED, *ENDINGS):
        aside.pass_over(f"{name}#{place}")
        return False
    if member.size > MAX_PICTURE:
        raise LeftOut("too large", f"{member.size:,} bytes, at most {MAX_PICTURE:,} are read")
    return True


def check_end(file: IO[bytes], offset: int) -> None:
    """Ensures that the headers end at the end mark; tarfile takes a damaged header for the end.

    Raises:
        LeftOut: other bytes follow.
    """
    file.seek(offset)
    block = file.read(512)
    if block.strip(b"\0") or len(block) < 512:
        raise LeftOut("damaged", f"no header at byte {offset:,}; what follows is not read")


def bytes_at(file: IO[bytes], place: Place, limit: int = MAX_PICTURE) -> bytes:
    """A member's bytes.

    Raises:
        LeftOut: they are more than the limit, or not all there.
    """
    if place.size > limit:
        raise LeftOut("too large", f"{place.size:,} bytes of text, at most {limit:,} are read")
    try:
        file.seek(place.offset)
        data = file.read(place.size)
    except OSError as error:
        raise LeftOut("unreadable", error.strerror or str(error)) from None
    if len(data) < place.size:
        raise LeftOut("damaged", "the tar ends within it")
    return data
