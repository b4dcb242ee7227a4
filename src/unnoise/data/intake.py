"""What the readers of people's own pictures share: an item, what is left out and why, and where a path may lead.

Whatever lies in somebody's folder is data: a path that it names stays in the folder, a size is checked before memory
is taken, and what cannot be used is left out by name, with a reason, while the rest goes on.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from unnoise import text
from unnoise.errors import UnnoiseError
from unnoise.foreign import EMPTY, HEAD, PAGE, PICTURE, POINTER, Kind, kind_of

MAX_PICTURE = 64 * 2**20  # bytes of one picture's file
MAX_CAPTIONS = 64 * 2**10  # bytes of one picture's captions
MAX_RECORD = 256 * 2**20  # bytes of one file of captions or settings
MAX_KINDS = 100  # of what lies beside pictures, told apart in a report


@dataclass(frozen=True)
class Item:
    """One picture as it was found.

    ``name`` where, relative to what was read; ``data`` the file's bytes; ``captions`` what is said of it, empty where
    nothing is; ``repeats`` how often it is to be trained for once that others are.
    """

    name: str
    data: bytes
    captions: tuple[str, ...] = ()
    repeats: int = 1


class Source(NamedTuple):
    """``num_items`` items at most, read one by one as ``items`` is gone through."""

    num_items: int
    items: Iterator[Item]


class LeftOut(Exception):
    """Why something is not used: ``kind``, a few fixed words, and ``detail``. It ends at the ``Quarantine``."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail = kind, detail


class NoPicture(LeftOut):
    """The bytes of a file are of no picture that is read; ``found`` what they are, None if that is not known."""

    def __init__(self, detail: str, found: Kind | None = None) -> None:
        super().__init__("not a picture", detail)
        self.found = found


class Quarantine:
    """What is left out, what lies beside and is not used, and what a reader chose, in the order of their coming."""

    def __init__(self) -> None:
        self.entries: list[dict[str, str]] = []
        self.notes: list[dict[str, str]] = []
        self.beside: dict[str, dict[str, Any]] = {}

    def add(self, name: str, why: LeftOut) -> None:
        """Puts something aside under its name."""
        entry = {"name": printable(name), "kind": why.kind, "detail": printable(why.detail)[:300]}
        if entry not in self.entries[-8:]:  # a reader that stumbles twice over one thing says so once
            self.entries.append(entry)

    def note(self, name: str, what: str) -> None:
        """Says how something was read, where that could be done in several ways."""
        self.notes.append({"name": printable(name), "note": printable(what)[:600]})

    def pass_over(self, name: str, kind: str = "") -> None:
        """Counts what is neither picture nor caption under its kind: the ending of its name if none is given."""
        kind = printable(kind or PurePosixPath(name).suffix.lower() or "without an ending")[:40]
        if kind not in self.beside and len(self.beside) >= MAX_KINDS:
            kind = "of other kinds"
        entry = self.beside.setdefault(kind, {"kind": kind, "count": 0, "example": printable(name)})
        entry["count"] += 1


def printable(name: str) -> str:
    """Text that every terminal and file takes: what is no Unicode or would steer a terminal is spelt out."""
    name = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def inside(root: Path, name: str) -> Path:
    """The file of that name below ``root``, links followed to their end; ``root`` must be resolved.

    Raises:
        LeftOut: the name is absolute, climbs with "..", is spelt for Windows, or a link leads out of the folder.
    """
    pure = PurePosixPath(name)
    if not name or "\0" in name or "\\" in name or re.match("[A-Za-z]:", name) or pure.is_absolute():
        raise LeftOut("unsafe path", f"{name!r} is not a path relative to the folder, written with /")
    if ".." in pure.parts:
        raise LeftOut("unsafe path", f"{name!r} climbs out of the folder")
    try:
        path = Path(os.path.realpath(root / pure))
    except (OSError, ValueError) as error:
        raise LeftOut("unsafe path", str(error)) from None
    if not path.is_relative_to(root) and path.parent != blobs_of(root):
        mend = "copy the folder with its links followed (cp -rL), and name the copy"
        raise LeftOut("unsafe path", f"{name!r} is a link that leads out of the folder; {mend}")
    return path


def blobs_of(root: Path) -> Path | None:
    """Where links of a snapshot in a cache of Hugging Face's lead: to ``blobs``, which lies beside ``snapshots``.

    None if the resolved folder lies in no such cache, or ``blobs`` is a link itself.
    """
    snapshots = next((parent for parent in root.parents if parent.name == "snapshots"), None)
    blobs = snapshots.with_name("blobs") if snapshots is not None else None
    return blobs if blobs is not None and blobs.is_dir() and not blobs.is_symlink() else None


def read_file(path: Path, limit: int, picture: bool = False) -> bytes:
    """The bytes of a regular file, of which at most ``limit`` are ever read.

    Raises:
        LeftOut: it is no regular file, cannot be read, is larger, or stands in another file's place; with ``picture``,
            its first bytes are of no picture.
    """
    try:
        # without blocking, as a named pipe would make it wait for ever
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            record = os.fstat(file.fileno())
            if not stat.S_ISREG(record.st_mode):
                raise LeftOut("unreadable", "it is no regular file")
            head = file.read(HEAD)
            if picture:
                check_magic(head)
            else:
                check_not_instead(head)
            if record.st_size > limit:
                raise LeftOut("too large", f"{record.st_size:,} bytes, at most {limit:,} are read")
            return head + file.read(max(0, limit - len(head)))
    except (OSError, ValueError) as error:
        raise LeftOut("unreadable", getattr(error, "strerror", None) or str(error)) from None


def check_magic(head: bytes) -> None:
    """Sees that a file begins as a PNG, JPEG or WebP picture does, whatever its name says.

    Raises:
        LeftOut: it does not.
    """
    kind = kind_of(head)
    if kind is None:
        raise NoPicture("no PNG, JPEG or WebP")
    if kind.format == EMPTY:
        raise NoPicture(f"it is {kind.name}", kind)
    if kind.format != PICTURE:
        what = f"it is {kind.name}, not PNG, JPEG or WebP"
        raise NoPicture(f"{what}; {kind.mend}" if kind.mend else what, kind)


def check_not_instead(data: bytes, why: str = "damaged") -> None:
    """Sees that text, a table or an archive is not a pointer or a web page that stands in its place.

    Raises:
        LeftOut: it is.
    """
    kind = kind_of(data[:HEAD])
    if kind is not None and kind.format in (POINTER, PAGE):
        raise LeftOut(why, f"it is {kind.name}; {kind.mend}")


def check_picture(data: bytes) -> bytes:
    """A picture's file as it is, if it begins as one and is not too large.

    Raises:
        LeftOut: it does not, or is.
    """
    check_magic(data[:HEAD])
    if len(data) > MAX_PICTURE:
        raise LeftOut("too large", f"{len(data):,} bytes, at most {MAX_PICTURE:,} are read")
    return data


def clean(caption: str) -> str:
    """A caption in the form that prompts have too, see ``unnoise.text``; empty if nothing is left.

    Raises:
        LeftOut: it is no Unicode text, or longer than any caption is.
    """
    size = len(caption.encode("utf-8", "surrogatepass"))
    if size > MAX_CAPTIONS:
        raise LeftOut("bad caption", f"it has {size:,} bytes, at most {MAX_CAPTIONS:,} are read")
    try:
        return text.clean(caption, "it")
    except UnnoiseError as error:
        raise LeftOut("bad caption", error.what) from None


def captions_of(texts: list[object]) -> tuple[str, ...]:
    """The captions of one picture, cleaned, each once.

    Raises:
        LeftOut: one is no text, or none says anything.
    """
    if not all(isinstance(each, str) for each in texts):
        raise LeftOut("bad caption", "it is no text")
    said = tuple(dict.fromkeys(filter(None, (clean(str(each)) for each in texts))))
    if not said:
        raise LeftOut("empty caption", "write one, or remove it: a picture without any caption is taken")
    return said


def text_of(data: bytes) -> str:
    """The text in a file, see ``unnoise.text``.

    Raises:
        LeftOut: it is none of them, or a pointer or a page in its place.
    """
    try:
        found = text.decode(data)
    except UnicodeDecodeError as error:
        raise LeftOut("bad caption", f"it is not {error.encoding.upper()}; save it as UTF-8") from None
    check_not_instead(data, "bad caption")
    if "\0" in found:
        raise LeftOut("bad caption", "it has NULs, as UTF-16 and UTF-32 have; save it as UTF-8")
    return found


def captions_in(data: bytes) -> tuple[str, ...]:
    """The captions in the bytes of a text file, one a line.

    Raises:
        LeftOut: it is too long, no text, or empty.
    """
    if len(data) > MAX_CAPTIONS:
        raise LeftOut("bad caption", f"it has more than {MAX_CAPTIONS:,} bytes")
    return captions_of([*text_of(data).splitlines()])
