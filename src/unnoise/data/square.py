"""From the bytes of any picture to a square RGB picture of one size."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from unnoise.data.intake import MAX_PICTURE, LeftOut, check_magic, read_file
from unnoise.data.lean import lean
from unnoise.errors import UnnoiseError
from unnoise.files import expanded
from unnoise.foreign import HEAD
from unnoise.notes import say

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000  # of one picture: half a gigabyte while it is decoded
MIN_SIDE = 16  # pixels; smaller pictures show nothing at any size
PNG_END = b"IEND\xaeB`\x82"  # type and sum of a PNG's last chunk
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
Fit = Literal["crop", "pad"]
T = TypeVar("T")


class Square(NamedTuple):
    """``picture`` RGB, size x size; ``width`` and ``height`` of the picture that it came from, upright."""

    picture: Image.Image
    width: int
    height: int


class Squarer:
    """Decodes pictures and makes them square.

    Args:
        size: side of the squares in pixels, a multiple of 8, at most 2048.
        fit: "crop" takes the middle, "pad" keeps the whole picture and pads it with the background.
        background: a colour by name ("white") or number ("#ffcc00"), also behind transparent parts.

    Raises:
        UnnoiseError: an argument is wrong.
    """

    def __init__(self, size: int = 128, fit: Fit = "crop", background: str = "white") -> None:
        from PIL import ImageColor

        if not 16 <= size <= 2048 or size % 8:
            raise UnnoiseError(f"--size {size} cannot be made", "choose a multiple of 8 from 16 to 2048")
        if fit not in ("crop", "pad"):
            raise UnnoiseError(f"--fit cannot be {fit!r}", "one of: crop, pad")
        try:
            self.background = ImageColor.getrgb(background)[:3]
        except ValueError:
            raise UnnoiseError(f"--background {background!r} is no colour", "name one, or write #rrggbb") from None
        self.size, self.fit = size, fit

    def __call__(self, data: bytes) -> Square:
        """Decodes the first frame, turns it upright, and makes it square.

        Raises:
            LeftOut: it is no whole PNG, JPEG or WebP, too large, too small, or an animation.
        """
        return decoded(data, self._decode)

    def _decode(self, image: Image.Image) -> Square:
        width, height = image.size
        if way_up(image) in SIDEWAYS:
            width, height = height, width
        if image.format in ("JPEG", "MPO"):  # a decoder that halves by itself, as long as twice the size is left
            spare = max(1.0, min(image.size) / (2 * self.size))
            image.draft(None, (math.ceil(image.width / spare), math.ceil(image.height / spare)))
        return Square(self._square(upright(image)), width, height)

    def _square(self, image: Image.Image) -> Image.Image:
        from PIL import Image

        image = rgb(image)
        width, height = image.size
        side = min(width, height)
        if self.fit == "crop":
            x, y = (width - side) / 2, (height - side) / 2
            box, into = (x, y, x + side, y + side), (self.size, self.size)
        else:
            scale = self.size / max(width, height)
            box, into = None, (max(1, round(width * scale)), max(1, round(height * scale)))
        image = image.resize(into, Image.Resampling.LANCZOS, box=box)
        page = Image.new("RGB", (self.size, self.size), self.background)
        corner = ((self.size - into[0]) // 2, (self.size - into[1]) // 2)
        page.paste(image, corner, image if image.mode == "RGBA" else None)
        return page


def decoded(data: bytes, use: Callable[[Image.Image], T]) -> T:
    """The result of ``use`` for a picture that was opened and checked, but not decoded yet.

    Raises:
        LeftOut: it is no whole PNG, JPEG or WebP, too large, too small, or an animation.
    """
    check_magic(data[:HEAD])
    check_webp(data[:30])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd palettes and the like; sizes are checked here
            with opened(data) as image:
                return use(image)
    except (LeftOut, MemoryError):
        raise
    except Exception as error:  # decoders raise all kinds of errors, and the remedy is the same
        raise LeftOut("damaged", " ".join(str(error).split()) or type(error).__name__) from None


def opened(data: bytes) -> Image.Image:
    """The picture with its header read and checked."""
    from PIL import Image, UnidentifiedImageError

    data = lean(data).data
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
    except Image.DecompressionBombError:
        raise LeftOut("too large", f"more than {MAX_PIXELS:,} pixels; make it smaller") from None
    except UnidentifiedImageError:
        raise LeftOut("damaged", "its header cannot be read") from None
    check_size(*image.size)
    if image.format == "PNG" and PNG_END not in data:  # Pillow is content once it has all rows
        raise LeftOut("damaged", "it ends before its end mark")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise LeftOut("animated", f"it has {image.n_frames} frames; save one of them")  # type: ignore[attr-defined]
    return image


def open_picture(path: Path) -> Image.Image:
    """The picture of a PNG, JPEG or WebP file in RGB, upright; transparent parts become white.

    Raises:
        UnnoiseError: there is none, or it cannot be used; the same limits as for pictures of a set.
    """
    return on_white(open_unchanged(path))


def open_unchanged(path: Path) -> Image.Image:
    """The picture of a PNG, JPEG or WebP file, upright, in the file's own mode.

    Raises:
        UnnoiseError: there is none, or it cannot be used; the same limits as for pictures of a set.
    """
    path = expanded(path)
    if not path.exists():
        raise UnnoiseError(f"there is no picture at {path}", "name a PNG, JPEG or WebP file")
    try:
        data = read_file(path, MAX_PICTURE, picture=True)
        way, image = decoded(data, lambda image: (way_up(image), upright(image)))
    except LeftOut as why:
        raise UnnoiseError(f"{path} cannot be used: {why}", "save it as PNG, JPEG or WebP again") from None
    if not way or lean(data).unreadable:
        _warn_of_orientation(path)
    return image


@cache
def _warn_of_orientation(path: Path) -> None:
    """Once for each file."""
    say(f"note: the orientation in {path} is damaged or too large; the picture is used without turning it")


def way_up(image: Image.Image) -> int:
    """The EXIF orientation of a picture, 1 to 8; 1 if it has none, 0 if that is damaged."""
    if image.format not in ("JPEG", "MPO"):  # these have their metadata before the pixels
        image.load()
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # damaged metadata raise all kinds of errors, and the picture may still be good
        return 0
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def upright(image: Image.Image) -> Image.Image:
    """A copy, decoded and turned upright; of its metadata it keeps only the transparent colour."""
    from PIL import Image

    turn = Image.Transpose
    turns = [turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM, turn.TRANSPOSE, turn.ROTATE_270]
    way = {2 + number: each for number, each in enumerate([*turns, turn.TRANSVERSE, turn.ROTATE_90])}.get(way_up(image))
    turned = image.copy() if way is None else image.transpose(way)
    turned.info = {key: value for key, value in turned.info.items() if key == "transparency"}
    return turned


def on_white(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB; transparent parts become white."""
    from PIL import Image

    image = rgb(image)
    page = Image.new("RGB", image.size, "white")
    page.paste(image, (0, 0), image if image.mode == "RGBA" else None)
    return page


def rgb(image: Image.Image) -> Image.Image:
    """The picture as RGB, or RGBA if some of it is transparent; 16-bit grey is divided, not clipped."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I"):  # Pillow's own conversion makes everything above 255 white
        deep = np.asarray(image).astype(np.int64)
        grey = Image.fromarray((deep / 257).round().clip(0, 255).astype(np.uint8))
        if (clear := image.info.get("transparency")) is not None:
            grey.putalpha(Image.fromarray(np.where(deep == clear, 0, 255).astype(np.uint8)))
        return grey.convert("RGB" if clear is None else "RGBA")
    if image.mode == "La":  # Pillow converts it in no other way
        image = image.convert("LA")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def check_size(width: int, height: int) -> None:
    """Ensures that a picture's size, according to its header, may be decoded.

    Raises:
        LeftOut: it is too large or too small.
    """
    if width * height > MAX_PIXELS:
        raise LeftOut("too large", f"{width} x {height} pixels, more than {MAX_PIXELS:,}; make it smaller")
    if min(width, height) < MIN_SIDE:
        raise LeftOut("too small", f"{width} x {height} pixels, at least {MIN_SIDE} a side are needed")


def check_webp(head: bytes) -> None:
    """``check_size`` from the first 30 bytes of a WebP file (RFC 9649, sections 2.5 to 2.7); ignores other files.

    On opening, the WebP decoder allocates the whole canvas, so the size that Pillow reports comes too late.

    Raises:
        LeftOut: it is too large or small, or its header is invalid.
    """
    if head[8:12] != b"WEBP":
        return
    if len(head) < 30:
        raise LeftOut("damaged", "it ends in its header")
    kind, body = head[12:16], head[20:]
    if kind == b"VP8X":  # extended: 24 bits each, less one
        check_size(1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))
    elif kind == b"VP8L":  # lossless: 14 bits each, less one, after a signature
        bits = int.from_bytes(body[1:5], "little")
        check_size(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    elif kind == b"VP8 ":  # lossy: 14 bits each, after the frame tag and a start code
        check_size(int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF)
    else:
        raise LeftOut("damaged", "it is no WebP picture")
