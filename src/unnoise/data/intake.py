"""What the readers of users' pictures share: items, reasons for leaving files out, and the check of paths.

Nothing in a user's folder is trusted: paths must stay in the folder, sizes are checked before memory is allocated, and
unusable files are left out by name, with a reason, while the import continues.
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
MAX_KINDS = 100  # of unused files, counted separately in a report


@dataclass(frozen=True)
class Item:
    """One picture of a source, before any processing.

    ``name`` its path relative to the source; ``data`` the file's bytes; ``captions`` may be empty; ``repeats`` how
    often it is trained for each time that others are trained once.
    """

    name: str
    data: bytes
    captions: tuple[str, ...] = ()
    repeats: int = 1


class Source(NamedTuple):
    """At most ``num_items`` items, read one by one while ``items`` is iterated."""

    num_items: int
    items: Iterator[Item]


class LeftOut(Exception):
    """Why something is not used: ``kind``, one of a few fixed phrases, and ``detail``. ``Quarantine`` collects it."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail = kind, detail


class NoPicture(LeftOut):
    """A file is no PNG, JPEG or WebP; ``actual`` is the kind of file that it is, None if that is unknown."""

    def __init__(self, detail: str, actual: Kind | None = None) -> None:
        super().__init__("not a picture", detail)
        self.actual = actual


class Quarantine:
    """Files that are left out, counts of unused files, and notes on what a reader chose, in order of occurrence."""

    def __init__(self) -> None:
        self.entries: list[dict[str, str]] = []
        self.notes: list[dict[str, str]] = []
        self.beside: dict[str, dict[str, Any]] = {}

    def add(self, name: str, why: LeftOut) -> None:
        """Records that something is left out, and why."""
        entry = {"name": printable(name), "kind": why.kind, "detail": printable(why.detail)[:300]}
        if entry not in self.entries[-8:]:  # a reader that fails twice on one file reports it once
            self.entries.append(entry)

    def note(self, name: str, what: str) -> None:
        """Records how something was read, where there was a choice."""
        self.notes.append({"name": printable(name), "note": printable(what)[:600]})

    def pass_over(self, name: str, kind: str = "") -> None:
        """Counts a file that is neither picture nor caption, by kind: by default the extension of its name."""
        kind = printable(kind or PurePosixPath(name).suffix.lower() or "without an ending")[:40]
        if kind not in self.beside and len(self.beside) >= MAX_KINDS:
            kind = "of other kinds"
        entry = self.beside.setdefault(kind, {"kind": kind, "count": 0, "example": printable(name)})
        entry["count"] += 1


def printable(name: str) -> str:
    """Text that is safe for every terminal and file: invalid Unicode and control characters are escaped."""
    name = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def inside(root: Path, name: str) -> Path:
    """The file of that name below ``root``, with links resolved; ``root`` must be resolved.

    Raises:
        LeftOut: the name is absolute, contains "..", is a Windows path, or a link leads out of the folder.
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
    """The target of links of a snapshot in Hugging Face's cache: the folder ``blobs`` beside ``snapshots``.

    None if the resolved folder is in no such cache, or ``blobs`` is a link itself.
    """
    snapshots = next((parent for parent in root.parents if parent.name == "snapshots"), None)
    blobs = snapshots.with_name("blobs") if snapshots is not None else None
    return blobs if blobs is not None and blobs.is_dir() and not blobs.is_symlink() else None


def read_file(path: Path, limit: int, picture: bool = False) -> bytes:
    """The bytes of a regular file; never more than ``limit`` are read.

    Raises:
        LeftOut: it is no regular file, cannot be read, is larger, or is a pointer or a web page; with ``picture``,
            it is no picture by its first bytes.
    """
    try:
        # without blocking, since a named pipe would make it wait for ever
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
    """Ensures that a file is a PNG, JPEG or WebP picture by its first bytes, whatever its name.

    Raises:
        LeftOut: it is not.
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
    """Ensures that a text, a table or an archive is not a pointer or a web page in its place.

    Raises:
        LeftOut: it is.
    """
    kind = kind_of(data[:HEAD])
    if kind is not None and kind.format in (POINTER, PAGE):
        raise LeftOut(why, f"it is {kind.name}; {kind.mend}")


def check_picture(data: bytes) -> bytes:
    """A picture's file unchanged, if it is one by its first bytes and not too large.

    Raises:
        LeftOut: it is no picture, or too large.
    """
    check_magic(data[:HEAD])
    if len(data) > MAX_PICTURE:
        raise LeftOut("too large", f"{len(data):,} bytes, at most {MAX_PICTURE:,} are read")
    return data


def clean(caption: str) -> str:
    """A caption cleaned as prompts are, see ``unnoise.text``; empty if nothing remains.

    Raises:
        LeftOut: it is no Unicode text, or longer than ``MAX_CAPTIONS`` bytes.
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
        LeftOut: one is no text, or all are empty.
    """
    if not all(isinstance(each, str) for each in texts):
        raise LeftOut("bad caption", "it is no text")
    captions = tuple(dict.fromkeys(filter(None, (clean(str(each)) for each in texts))))
    if not captions:
        raise LeftOut("empty caption", "write one, or remove it: a picture without any caption is taken")
    return captions


def text_of(data: bytes) -> str:
    """The text in a file, see ``unnoise.text``.

    Raises:
        LeftOut: it is in no known encoding, or a pointer or a page in its place.
    """
    try:
        content = text.decode(data)
    except UnicodeDecodeError as error:
        raise LeftOut("bad caption", f"it is not {error.encoding.upper()}; save it as UTF-8") from None
    check_not_instead(data, "bad caption")
    if "\0" in content:
        raise LeftOut("bad caption", "it has NULs, as UTF-16 and UTF-32 have; save it as UTF-8")
    return content


def captions_in(data: bytes) -> tuple[str, ...]:
    """The captions in the bytes of a text file, one a line.

    Raises:
        LeftOut: it is too long, no text, or empty.
    """
    if len(data) > MAX_CAPTIONS:
        raise LeftOut("bad caption", f"it has more than {MAX_CAPTIONS:,} bytes")
    return captions_of([*text_of(data).splitlines()])
