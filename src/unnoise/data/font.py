"""The colour-emoji font of this computer: where it is, whether it can be drawn, which version it is."""

from __future__ import annotations

import hashlib
import struct
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from unnoise.errors import UnnoiseError

FONT_SIZE = 109  # pixels per em of the one bitmap strike in Noto Color Emoji; FreeType scales no bitmap
DEBIAN_HINT = "install one, on Debian with `apt-get install fonts-noto-color-emoji`, or name a file with --font"
USUAL_PLACES = (
    "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",  # Debian, Ubuntu
    "/usr/share/fonts/noto/NotoColorEmoji.ttf",  # Arch
    "/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf",  # older Fedora
    "/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf",
    "~/.local/share/fonts/NotoColorEmoji.ttf",
    "~/.fonts/NotoColorEmoji.ttf",
    "~/Library/Fonts/NotoColorEmoji.ttf",  # macOS
    "/Library/Fonts/NotoColorEmoji.ttf",
    "/opt/homebrew/share/fonts/NotoColorEmoji.ttf",
    "/System/Library/Fonts/Apple Color Emoji.ttc",  # refused below, but with a line that says why
)

# colour formats that are not bitmaps in CBDT, so that the error can name them
OTHER_FORMATS = {"COLR": "COLR outlines", "SVG ": "SVG outlines", "sbix": "sbix bitmaps"}


@dataclass(frozen=True)
class FontInfo:
    """The record of a font in a picture set: ``path``, ``family``, ``version``, ``sha256`` (hex), ``licence``."""

    path: str
    family: str
    version: str
    sha256: str
    licence: str

    def record(self) -> dict[str, str]:
        """The same as a dictionary without the path, which belongs to one computer."""
        return {k: v for k, v in asdict(self).items() if k != "path"}


def find_font(explicit: Path | None = None) -> Path:
    """Path of the colour-emoji font: the explicit one, or fontconfig's, or one in the usual places.

    Raises:
        UnnoiseError: there is none, or the explicit file does not exist.
    """
    if explicit is not None:
        if not Path(explicit).is_file():
            raise UnnoiseError(f"no font file at {explicit}", "name a .ttf file with --font, or leave it out to search")
        return Path(explicit)
    for place in (*_from_fontconfig(), *(Path(p).expanduser() for p in USUAL_PLACES)):
        if place.is_file():
            return place
    raise UnnoiseError("no colour-emoji font found on this computer", DEBIAN_HINT)


def check_font(path: Path) -> FontInfo:
    """Read the font's record and refuse fonts that Pillow cannot draw as 128-pixel bitmaps.

    Raises:
        UnnoiseError: Pillow lacks raqm, or the file is no font, or its colour format is not CBDT at size 109.
    """
    from PIL import ImageFont, features

    if not features.check("raqm"):
        raise UnnoiseError(
            "this Pillow has no raqm layout, which joins emoji sequences",
            "reinstall it with `pip install --force-reinstall pillow`, on Linux add `apt-get install libraqm0`",
        )
    data = Path(path).read_bytes()
    tables = _tables(data, Path(path))
    if "CBDT" not in tables:
        formats = [words for tag, words in OTHER_FORMATS.items() if tag in tables]
        what = f"draws with {' and '.join(formats)}" if formats else "has no colour glyphs"
        raise UnnoiseError(f"{path} {what}, not with CBDT bitmaps", f"use Noto Color Emoji: {DEBIAN_HINT}")
    try:
        font = ImageFont.truetype(str(path), FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
    except OSError as error:
        raise UnnoiseError(
            f"{path} has no bitmaps of size {FONT_SIZE} ({error})", f"use Noto Color Emoji: {DEBIAN_HINT}"
        ) from None
    names = _names(data, tables)
    return FontInfo(
        path=str(path),
        family=names.get(1) or font.getname()[0] or "unknown",
        version=names.get(5, "unknown"),
        sha256=hashlib.sha256(data).hexdigest(),
        licence=names.get(13, "not stated by the font"),
    )


def _from_fontconfig() -> list[Path]:
    """Files that fontconfig knows, the best first; none if fontconfig is not installed."""
    files: list[str] = []
    for command in (
        ["fc-match", "-f", "%{file}\n", "Noto Color Emoji:color=True"],
        ["fc-list", "-f", "%{file}\n", ":color=True"],
    ):
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        files += result.stdout.splitlines()
    # fc-match always answers something, so only files with emoji in the name count; Noto comes first
    names = sorted({p for p in files if "emoji" in Path(p).name.lower()}, key=lambda p: ("Noto" not in p, p))
    return [Path(p) for p in names]


def _tables(data: bytes, path: Path) -> dict[str, tuple[int, int]]:
    """Table tag -> (offset, length) of an SFNT file; of a collection, its first font."""
    try:
        start = struct.unpack(">I", data[12:16])[0] if data[:4] == b"ttcf" else 0
        if data[start : start + 4] not in (b"\0\1\0\0", b"OTTO", b"true"):
            raise UnnoiseError(f"{path} is not a TrueType or OpenType font", DEBIAN_HINT)
        count = struct.unpack(">H", data[start + 4 : start + 6])[0]
        rows = (struct.unpack(">4sIII", data[start + 12 + 16 * i : start + 28 + 16 * i]) for i in range(count))
        return {tag.decode("latin-1"): (offset, length) for tag, _, offset, length in rows}
    except struct.error:
        raise UnnoiseError(f"{path} is a damaged font", DEBIAN_HINT) from None


def _names(data: bytes, tables: dict[str, tuple[int, int]]) -> dict[int, str]:
    """Name id -> text of the ``name`` table (1 family, 5 version, 13 licence), from its UTF-16 records; none if it is
    damaged, as pictures do without it."""
    if "name" not in tables:
        return {}
    table = data[tables["name"][0] : sum(tables["name"])]
    names: dict[int, str] = {}
    try:
        _, count, strings = struct.unpack(">HHH", table[:6])
        records = [struct.unpack(">6H", table[6 + 12 * i : 18 + 12 * i]) for i in range(count)]
    except struct.error:
        return {}
    for platform, _, language, name, length, offset in records:
        if platform in (0, 3) and language in (0, 0x409):  # Unicode, or Windows in American English
            raw = table[strings + offset : strings + offset + length]
            names.setdefault(name, raw.decode("utf-16-be", "replace").strip())
    return names
