"""Notes in a picture's file never cost the picture: what is too large or damaged in them is left out, within limits."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from unnoise.cli.main import main
from unnoise.data.intake import LeftOut
from unnoise.data.lean import MAX_TEXTS, WAY_UP, lean
from unnoise.data.square import Squarer, on_white, open_picture
from unnoise.engine.metadata import Record, read_pictures, to_png
from unnoise.engine.request import Request
from unnoise.errors import UnnoiseError

from .test_folder_pictures import corners, saved

PNG = saved(corners())
EXIF = Image.Exif()
EXIF[0x0112] = 6
LARGE = 2**20 + 1
NOISE = random.Random(0).randbytes(LARGE)


def chunk(kind: bytes, body: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def grown(*chunks: bytes, of: bytes = PNG, late: bool = False) -> bytes:
    """The PNG with more chunks, after its header or before its end."""
    at = len(of) - 12 if late else 33
    return of[:at] + b"".join(chunks) + of[at:]


def packed(size: int, key: bytes = b"a") -> bytes:
    return key + b"\0\0" + zlib.compress(b"x" * size)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


HEALTHY = {
    "a large profile": grown(chunk(b"iCCP", b"ICC\0\0" + zlib.compress(NOISE))),
    "a profile that is none": grown(chunk(b"iCCP", b"x")),
    "a large packed text": grown(chunk(b"zTXt", packed(LARGE))),
    "a large international text": grown(chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(NOISE))),
    "a large plain text": grown(chunk(b"tEXt", b"a\0" + NOISE)),
    "texts of 80 MiB together": grown(*[chunk(b"zTXt", packed(2**20 - 9))] * 80),
    "a large text after the pixels": grown(chunk(b"zTXt", packed(LARGE)), late=True),
    "a text with a wrong sum": grown(chunk(b"tEXt", b"a\0b", wrong=1)),
    "a wrong sum after the pixels": grown(chunk(b"tIME", b"1234567", wrong=1), late=True),
    "short notes": grown(*[chunk(kind, b"x") for kind in (b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"sBIT")]),
    "EXIF that is none": grown(chunk(b"eXIf", b"hello")),
    "EXIF with a wrong sum": grown(chunk(b"eXIf", EXIF.tobytes()[6:], wrong=1)),
    "EXIF as text that is none": grown(chunk(b"tEXt", b"Raw profile type exif\0\n\n\nxy")),
    "a large XMP": grown(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * LARGE))),
    "a clear colour too short to be one": grown(chunk(b"tRNS", b"x")),
    "more behind its end": PNG + NOISE,
    "another picture behind its end": PNG + saved(Image.new("L", (9, 9))),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_beside_the_pixels_does_not_touch_them(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a word is said where it might have named the top."""
    data = HEALTHY[name]
    (tmp_path / "a.png").write_bytes(data)
    assert Squarer(16)(data).picture.tobytes() == Squarer(16)(PNG).picture.tobytes()
    assert open_picture(tmp_path / "a.png").tobytes() == corners().tobytes()
    assert ("the orientation in" in capsys.readouterr().err) == ("EXIF" in name or "XMP" in name)


def test_pillow_alone_refuses_them() -> None:
    """The control: what is kept out here is what spoils a picture."""
    for name in ("a large profile", "a large packed text", "a text with a wrong sum", "short notes"):
        with pytest.raises((ValueError, SyntaxError, OSError)):
            Image.open(io.BytesIO(HEALTHY[name])).load()


def test_damage_to_the_pixels_is_still_told() -> None:
    at = PNG.index(b"IDAT") + 8
    wrong = PNG[:at] + bytes([PNG[at] ^ 255]) + PNG[at + 1 :]
    clear = grown(chunk(b"tRNS", b"\0" * 6, wrong=1))
    for data in (wrong, clear, PNG[:-12], grown(chunk(b"tEXt", b"a\0b"))[:50], PNG[:40]):
        with pytest.raises(LeftOut, match="damaged"):
            Squarer(16)(data)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_any_damage_to_exif_leaves_the_picture(kind: str) -> None:
    whole = saved(corners(), kind, exif=EXIF, **({} if kind == "JPEG" else {"lossless": True}))
    note = EXIF.tobytes()[6:]
    at, rng = whole.index(note), random.Random(1)
    sizes = set()
    for _ in range(200):
        other = bytearray(note)
        for _ in range(3):
            other[rng.randrange(len(note))] = rng.randrange(256)
        data = whole[:at] + bytes(other) + whole[at + len(note) :]
        if kind == "PNG":
            data = whole[: at - 8] + chunk(b"eXIf", bytes(other)) + whole[at + len(note) + 4 :]
        sizes.add(Squarer(16)(data)[1:])
    assert sizes == {(48, 32), (32, 48)}, "where it can be read it is followed"


def test_notes_in_a_jpeg_leave_the_picture() -> None:
    whole = saved(corners(), "JPEG")
    plain = Squarer(16)(whole).picture.tobytes()
    for body in (b"ICC_PROFILE\0", b"MPF\0MM\0*\0\0\0\x08\0\x01", b"Photoshop 3.0\08BIM\4", b"Adobe\0", b"JFIF\0", b""):
        for marker in (*range(0xE0, 0xF0), 0xFE):
            assert Squarer(16)(whole[:2] + segment(marker, body) + whole[2:]).picture.tobytes() == plain
    inks = saved(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG")
    assert Squarer(16)(inks).picture.getpixel((0, 0))[0] > 200, "what says how colours are stored is kept"


def test_the_top_is_found_wherever_it_is_written() -> None:
    xmp = b'<x tiff:Orientation="6"/>'
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(EXIF.tobytes()):8}\n{EXIF.tobytes().hex()}\n")
    for data in (
        saved(corners(), "PNG", exif=EXIF),
        grown(chunk(b"eXIf", EXIF.tobytes()[6:]), late=True),
        grown(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)),
        saved(corners(), "PNG", pnginfo=info),
        saved(corners(), "JPEG", exif=EXIF),
        saved(corners(), "JPEG", xmp=xmp),
    ):
        assert Squarer(16)(data)[1:] == (32, 48)


CLEAR = {  # depth, colour, a row of sixteen pixels of two kinds in turn, the clear kind, its place, the other on white
    "1 bit": (1, 0, b"\x55" * 2, b"\0\1", 1, 0),
    "2 bits": (2, 0, b"\x77" * 4, b"\0\3", 1, 85),
    "4 bits": (4, 0, b"\x3a" * 8, b"\0\x0a", 1, 51),
    "8 bits": (8, 0, b"\x20\x40" * 8, b"\0\x40", 1, 32),
    "16 bits": (16, 0, b"\x00\x00\x80\x80" * 8, b"\0\0", 0, 128),
    "16 bits, by the low byte alone": (16, 0, b"\x80\x80\x80\x81" * 8, b"\x80\x81", 1, 128),
    "16 bits of colours": (16, 2, (b"\x12\x34" * 3 + b"\x40\x40" * 3) * 8, b"\x12\x34" * 3, 0, 64),
}


@pytest.mark.parametrize("name", CLEAR)
def test_a_clear_colour_of_any_depth(name: str) -> None:
    depth, colour, row, clear, which, other = CLEAR[name]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, depth, colour, 0, 0, 0))
    data = PNG[:8] + head + chunk(b"tRNS", clear) + chunk(b"IDAT", zlib.compress((b"\0" + row) * 16)) + PNG[-12:]
    found = np.asarray(Squarer(16)(data).picture)
    assert (found[:, which::2] == 255).all()
    assert (found[:, 1 - which :: 2] == other).all()


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "I", "I;16", "I;16B", "RGBa", "CMYK", "YCbCr", "HSV"]
)
def test_pictures_of_any_mode_become_rgb(mode: str) -> None:
    assert on_white(Image.new(mode, (4, 4))).mode == "RGB"


def test_texts_are_kept_within_limits() -> None:
    mine = chunk(b"iTXt", b"mine\0\0\0\0\0hello")
    data = grown(*[chunk(b"zTXt", packed(LARGE))] * 3, mine, chunk(b"tEXt", b"note\0no", wrong=1))
    assert lean(data).unreadable == ()
    found = lean(data, ("mine", "note", "a"))
    assert found.unreadable == ("a", "a", "a", "note")
    assert Image.open(io.BytesIO(found.data)).info == {"mine": "hello"}
    many = lean(grown(*[chunk(b"zTXt", packed(2**20))] * 200), ("a",))
    assert len(many.unreadable) == 200 - MAX_TEXTS // 2**20, "no more is unpacked than fits"
    assert lean(grown(chunk(b"tEXt", b"a\0" + b"x" * 2**21)), ("a",)).unreadable == (), "unpacked text cannot burst"
    assert "mine" not in WAY_UP


RECORD = Record(Request("a", size=(8, 8)), 0, 1, False, {"sha256": "x", "name": "y"}, {"unnoise": "1"})


def test_a_record_beside_a_large_text_is_read(tmp_path: Path) -> None:
    path, own = tmp_path / "a.png", to_png(corners(), RECORD)
    for data in (
        grown(chunk(b"zTXt", packed(2 * LARGE)), of=own),
        grown(chunk(b"iCCP", b"ICC\0\0" + zlib.compress(NOISE)), of=own),
        grown(chunk(b"zTXt", packed(2 * LARGE)), of=own, late=True),
        own + NOISE,
    ):
        path.write_bytes(data)
        assert read_pictures(path)[0][1].request.prompt == "a"
        assert read_pictures(path)[0][0].tobytes() == corners().tobytes()


def test_a_record_that_is_damaged_or_too_large_is_named(tmp_path: Path) -> None:
    path, own = tmp_path / "a.png", to_png(corners(), RECORD)
    at = own.index(b'"prompt"')
    large = grown(chunk(b"zTXt", packed(LARGE, b"unnoise")))
    for data in (own[:at] + b"X" + own[at + 1 :], large):
        path.write_bytes(data)
        with pytest.raises(UnnoiseError, match=r"the record in .* is damaged or too large"):
            read_pictures(path)


def test_a_folder_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beside = [
        chunk(b"iCCP", b"ICC\0\0" + zlib.compress(NOISE)),
        chunk(b"zTXt", packed(LARGE)),
        chunk(b"eXIf", b"hello"),
    ]
    (tmp_path / "photos").mkdir()
    for number in range(15):
        data = grown(beside[number % 3], of=saved(Image.effect_noise((64, 64), 80 + number)))
        (tmp_path / f"photos/{number}.png").write_bytes(data)
    assert main(["data", "folder", str(tmp_path / "photos"), "--out", str(tmp_path / "set"), "--size", "16"]) == 0
    assert "15 pictures" in capsys.readouterr().out
