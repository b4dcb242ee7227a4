"""Files of other programs: their kind by the first bytes, and reading them without trusting them.

A name proves little: a pointer of Git LFS, a login page or the JSON of a failed request is often saved under the name
of a model or a picture. Code that opens a file calls ``kind_of`` before it reports a damaged file.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.errors import UnnoiseError

HEAD = 4096  # bytes that determine the kind of a file
MAX_CONTAINERS = 1_000_000  # objects and lists of one JSON text: each takes some hundred bytes of memory
MAX_TOML = 2**19  # letters of a TOML text
DEEP_KEY = re.compile(r"""(?:(?:[\w-]{1,60}|"[^"\n]{0,60}"|'[^'\n]{0,60}')[ \t]{0,8}\.[ \t]{0,8}){30}""")
AGAIN = "download it again"
SAFETENSORS, GGUF, PICKLE, ZIP, JSON, TEXT, PICTURE = "safetensors", "gguf", "pickle", "zip", "json", "text", "picture"
EMPTY, POINTER, PAGE = "empty", "pointer", "page"  # found in a file's place: never the file itself


class Kind(NamedTuple):
    """The kind of a file, by its first bytes.

    Attributes:
        format: one of the names above, or "other".
        name: for people, with an article if it has one: "a Git LFS pointer", "GIF".
        mend: what to do if another kind was expected, an imperative; "" if nothing special.
    """

    format: str
    name: str
    mend: str = ""


XML = rb"(\xef\xbb\xbf)?\s*(<!--.{0,500}?-->\s*)?(<\?xml[^>]{0,200}>\s*)?"
LFS = "a Git LFS pointer, a few lines of text in the file's place"
XET = "a Xet pointer, a few lines of text in the file's place"
ANNEX = "a git-annex pointer, a line of text in the file's place"
WEB = "a web page, such as a login or an error page that was saved under the file's name"
# (pattern of the first bytes, kind), the first match counts; pointers and pages come first
MAGIC: tuple[tuple[re.Pattern[bytes], Kind], ...] = tuple(
    (re.compile(pattern, re.S | re.I if kind.format in (POINTER, PAGE) else re.S), kind)
    for pattern, kind in (
        (rb"\xef?\xbb?\xbf?version https://(git-lfs|hawser)\S*/spec/", Kind(POINTER, LFS,
         "fetch the file itself: `git lfs pull` in its repository, or download it again")),
        (rb"# xet version ", Kind(POINTER, XET, "fetch the file itself with Git and git-xet, or download it again")),
        (rb"(\S*/)?(\.git)?/annex/objects/", Kind(POINTER, ANNEX,
         "fetch the file itself: `git annex get` in its repository")),
        (XML + rb"(<!doctype html|<(html|head|body|title)[\s>])", Kind(PAGE, WEB,
         "download it again, logged in if its site asks for that")),
        (XML + rb"<error>", Kind(PAGE, "a server's error message in XML",
         "download it again; an address that has run out gives such messages")),
        (rb"\x89PNG\r\n\x1a\n", Kind(PICTURE, "PNG")),
        (rb"\xff\xd8\xff", Kind(PICTURE, "JPEG")),
        (rb"RIFF.{4}WEBP", Kind(PICTURE, "WebP")),
        (rb"GIF8", Kind("other", "GIF")),
        (rb"BM.{4}\0\0\0\0", Kind("other", "BMP")),
        (rb"II[*+]\0|MM\0[*+]", Kind("other", "TIFF")),
        (rb"\0\0\x01\0[\x01-\xff]\0", Kind("other", "icon")),
        (rb"(\xef\xbb\xbf)?\s*(<\?xml.{0,1500}?)?<svg", Kind("other", "SVG")),
        (rb"8BPS", Kind("other", "Photoshop")),
        (rb"%PDF", Kind("other", "PDF")),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", Kind("other", "JPEG XL")),
        (rb".{4}ftyp(avif|avis|hei|mif1|msf1)", Kind("other", "HEIC or AVIF")),
        (rb".{4}ftyp", Kind("other", "a film")),
        (rb"v/1\x01", Kind("other", "OpenEXR")),
        (rb"GGUF", Kind(GGUF, "a GGUF file")),
        (rb"lmgg|fmgg|tjgg|algg", Kind("other", "a GGML file, which came before GGUF")),
        (rb"PK(\x03\x04|\x05\x06)", Kind(ZIP, "a zip")),
        (rb".{5}\0\0\0\{", Kind(SAFETENSORS, "safetensors")),  # before pickles: a length of 640 begins as they do
        (rb"\x80[\x02-\x05](?!.{0,2}\0{4})", Kind(PICKLE, "a pickle")),
        (rb"\x1f\x8b", Kind("other", "gzip")),
        (rb"BZh[1-9]|\xfd7zXZ\0|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", Kind("other", "a packed archive", "unpack it")),
        (rb".{257}ustar", Kind("other", "a tar archive")),
        (rb"PAR1", Kind("other", "Parquet")),
        (rb"ARROW1", Kind("other", "Arrow")),
        (rb"\x89HDF\r\n", Kind("other", "an HDF5 file, as Keras writes weights")),
        (rb"\x93NUMPY", Kind("other", "a NumPy array")),
        (rb".{4}TFL3", Kind("other", "a TensorFlow Lite model")),
        (rb"SQLite format 3\0", Kind("other", "an SQLite database")),
        (rb"\x7fELF|MZ.{58}|\xcf\xfa\xed\xfe", Kind("other", "a program")),
        (rb"\n.\n.(<pad>|<unk>|<s>|\xe2\x96\x81)", Kind("other", "a SentencePiece model")),
        (rb"(\xef\xbb\xbf)?\s*[{\[]\s*([\"{\[\]}\-\dtfn]|$)", Kind(JSON, "JSON text")),
    )
)  # fmt: skip


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file by its first ``HEAD`` bytes, whatever its name; None if it is unknown."""
    if not head:
        return Kind(EMPTY, "empty", f"{AGAIN}, or free some space first")
    kind = next((each for pattern, each in MAGIC if pattern.match(head)), None)
    if kind is None and not head.strip(b"\0"):
        return Kind(EMPTY, "nothing but zeros at its beginning", f"{AGAIN}; the download was not finished")
    return kind or (Kind(TEXT, "text") if is_text(head) else None)


def is_text(head: bytes) -> bool:
    """Whether bytes are UTF-8, or UTF-16 with a byte order mark, without control characters other than blanks."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return len(head) > 3 and b"\0" in head[2:4]
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(head) < HEAD or error.start < len(head) - 3:  # a character cut off at the end is no fault
            return False
        text = head[: error.start].decode("utf-8-sig")
    return not any(c < " " and c not in "\t\n\r\f" for c in text)


def instead(head: bytes, expected: str) -> Kind | None:
    """The kind of a file in another's place: a pointer, a page, JSON and the like; None if unknown or as expected.

    Args:
        head: its first bytes.
        expected: the ``Kind.format`` that it should have.
    """
    kind = kind_of(head)
    if kind is None or kind.format == expected:
        return None
    if kind.format in (JSON, TEXT):
        return kind._replace(name=f"{kind.name} ({quoted(head[:300].decode('utf-8', 'replace'), 60)})", mend=AGAIN)
    return kind


def head_of(path: Path) -> bytes:
    """The first bytes of a file, for ``kind_of``; empty if it cannot be read."""
    try:
        return read(path, HEAD)
    except UnnoiseError:
        return b""


def read(path: Path, limit: int, start: int = 0) -> bytes:
    """At most ``limit`` bytes of a regular file, from ``start`` on; it allocates no more memory than the file's size.

    Raises:
        UnnoiseError: there is none, it is a folder, a pipe or a device, or cannot be read.
    """
    try:
        # without blocking, since a named pipe would make it wait for ever
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            record = os.fstat(file.fileno())
            if not stat.S_ISREG(record.st_mode):
                raise UnnoiseError(f"{path} is no regular file", "name a file")
            file.seek(start)
            return file.read(max(0, min(limit, record.st_size - start)))  # read allocates as much as it is asked for
    except FileNotFoundError:
        raise UnnoiseError(f"there is no file at {path}", "check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnnoiseError(f"{path} cannot be read ({reason})", "check the path") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)[:80]!r} stands there twice")
    return record


def parse_json(data: bytes, unique: bool = False) -> Any:
    """The value of a JSON text in UTF-8, UTF-16 or UTF-32, which may have a byte order mark.

    Args:
        unique: refuse objects with two values of one name, of which programs take different ones.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or has too many objects.
    """
    if data.count(b"{") + data.count(b"[") > MAX_CONTAINERS:
        raise ValueError(f"more than {MAX_CONTAINERS:,} objects and lists")
    try:
        return json.loads(data.decode(json.detect_encoding(data)), object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        ValueError: it is no TOML, or would take Python's parser hours and gigabytes: for a key of 60,000 words with
            dots between them, time and memory grow with the square of their number.
    """
    if len(text) > MAX_TOML:
        raise ValueError(f"it has {len(text):,} letters, at most {MAX_TOML:,} are read")
    if DEEP_KEY.search(text):
        raise ValueError("a key has more than thirty words with dots between them")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def quoted(text: object, limit: int = 200) -> str:
    """Text from a file made safe for a terminal: control characters are escaped, and long text is cut."""
    whole = str(text)
    short = whole[:limit].encode("utf-8", "backslashreplace").decode()
    short = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)
    return short + (" ..." if len(whole) > limit else "")
