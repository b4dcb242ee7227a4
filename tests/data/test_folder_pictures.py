"""From any picture to a square one: upright, true in colour, whole, and never larger in memory than it may be."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from unnoise.data import square
from unnoise.data.duplicates import NEAR, Thumbnail, near_groups, thumbnail
from unnoise.data.intake import LeftOut
from unnoise.data.square import MAX_PIXELS, Squarer
from unnoise.errors import UnnoiseError

from .folder_fuzz import picture


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(data: bytes, **settings: object) -> np.ndarray:
    return np.asarray(Squarer(**({"size": 16} | settings))(data).picture).astype(int)


def corners() -> Image.Image:
    """48 x 32: each quarter another colour."""
    image = Image.new("RGB", (48, 32))
    for at, colour in (((0, 0), "red"), ((24, 0), "lime"), ((0, 16), "blue"), ((24, 16), "white")):
        image.paste(colour, (*at, at[0] + 24, at[1] + 16))
    return image


# EXIF orientations: what a camera did to the upright picture (TIFF 6.0, tag 274)
STORED: dict[int, Callable[[Image.Image], Image.Image]] = {
    1: lambda i: i,
    2: lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda i: i.transpose(Image.Transpose.ROTATE_180),
    4: lambda i: i.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda i: i.transpose(Image.Transpose.TRANSPOSE),
    6: lambda i: i.transpose(Image.Transpose.ROTATE_90),
    7: lambda i: i.transpose(Image.Transpose.TRANSVERSE),
    8: lambda i: i.transpose(Image.Transpose.ROTATE_270),
}


def law_pictures_are_upright() -> None:
    upright = pixels(saved(corners()))
    for orientation, store in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 95, "subsampling": 0})):
            result = Squarer(16)(saved(store(corners()), kind, exif=exif, **options))
            assert (result.width, result.height) == (48, 32)
            error = np.abs(np.asarray(result.picture).astype(int) - upright).mean()
            assert error < 3, (orientation, kind, error)


def law_sixteen_bits_keep_their_grey() -> None:
    grey = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)
    assert np.abs(pixels(saved(Image.fromarray(grey)))[..., 0] - grey / 257).max() <= 0.51


def law_palettes_are_smoothed() -> None:
    dots = np.random.default_rng(0).integers(0, 2, (64, 64), dtype=np.uint8) * 255
    assert pixels(saved(Image.fromarray(dots).convert("P"))).std() < 60  # four by four of them to one: grey, not 127


def law_what_is_transparent_is_background() -> None:
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (16, 0, 32, 32))
    for kind in ("PNG", "WEBP"):
        result = pixels(saved(clear, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
        assert (result[:, :5] == 255).all()
        assert (result[:, 11:] == (0, 0, 255)).all()
        assert (result[..., 0] == result[..., 1]).all()  # no red comes through at the edge
    assert (pixels(saved(clear), background="#00ff00")[:, :5] == (0, 255, 0)).all()


LAWS = [v for k, v in list(globals().items()) if k.startswith("law_")]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_laws(law: Callable[[], None]) -> None:
    law()


def plain_rgb(image: Image.Image) -> Image.Image:
    """Pillow's conversion alone: clips 16 bits, and blends nothing."""
    return image.convert("RGB")


def unconverted(image: Image.Image) -> Image.Image:
    """Palettes are resized as they are, to the nearest index."""
    return image if image.mode == "P" else RGB(image)


RGB = square.rgb
FAULTS = {
    "law_pictures_are_upright": ("unnoise.data.square.upright", lambda image: image),
    "law_sixteen_bits_keep_their_grey": ("unnoise.data.square.rgb", plain_rgb),
    "law_palettes_are_smoothed": ("unnoise.data.square.rgb", unconverted),
    "law_what_is_transparent_is_background": ("unnoise.data.square.rgb", plain_rgb),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_known_bugs_turn_their_law_red(law: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*FAULTS[law.__name__])
    with pytest.raises(AssertionError):
        law()


# shape


def test_crop_takes_the_middle_and_pad_keeps_all() -> None:
    image = Image.new("RGB", (96, 32), "red")
    image.paste("blue", (32, 0, 64, 32))
    assert (pixels(saved(image))[:, 3:-3] == (0, 0, 255)).all()
    padded = pixels(saved(image), size=48, fit="pad", background="lime")
    assert (padded[:16] == (0, 255, 0)).all()
    assert (padded[32:] == (0, 255, 0)).all()
    assert (padded[20:28, :12] == (255, 0, 0)).all()
    assert (padded[20:28, 20:28] == (0, 0, 255)).all()


@pytest.mark.parametrize("size", [(16, 16), (17, 901), (901, 17), (4000, 16), (33, 32)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_any_shape_becomes_square(size: tuple[int, int], fit: str) -> None:
    result = Squarer(32, fit)(picture(size=size))  # type: ignore[arg-type]
    assert result.picture.size == (32, 32)
    assert result.picture.mode == "RGB"
    assert (result.width, result.height) == size


def test_a_jpeg_decoded_small_is_the_same_picture() -> None:
    """The decoder's own halving, used where a picture is far too large, changes no more than compression does."""
    rng = np.random.default_rng(0)
    large = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((1600, 1200), 3)
    exact = np.asarray(large.resize((16, 16), 1, box=(200, 0, 1400, 1200))).astype(int)
    assert np.abs(pixels(saved(large, "JPEG", quality=95)) - exact).mean() < 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 100}, "--size 100 cannot be made; choose a multiple of 8"),
        ({"size": 0}, "--size 0"),
        ({"size": 4096}, "--size 4096"),
        ({"fit": "squash"}, "--fit cannot be 'squash'"),
        ({"background": "whiteish"}, "--background 'whiteish' is no colour"),
    ],
)
def test_wrong_settings(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UnnoiseError, match=said):
        Squarer(**settings)  # type: ignore[arg-type]


# what is left out


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and is otherwise whole."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def webp_header(kind: bytes, width: int, height: int) -> bytes:
    if kind == b"VP8X":
        body = b"\0\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == b"VP8L":
        body = b"\x2f" + (width - 1 | height - 1 << 14).to_bytes(4, "little") + b"\0" * 5
    else:
        body = b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)
    return b"RIFF" + struct.pack("<I", 22) + b"WEBP" + kind + struct.pack("<I", 10) + body


def frames(kind: str) -> bytes:
    return saved(
        Image.new("RGB", (32, 32), "red"), kind, save_all=True, append_images=[Image.new("RGB", (32, 32), "blue")]
    )


BAD = {
    "cut PNG": (picture(size=(64, 64))[:-30], "damaged"),
    "PNG without its end": (picture(size=(64, 64))[:-14], "damaged: it ends before its end mark"),
    "cut JPEG": (saved(Image.effect_noise((64, 64), 50), "JPEG")[:-200], "damaged: image file is truncated"),
    "cut WebP": (picture("WEBP", (64, 64))[:-9], "damaged"),
    "wrong sum": (picture().replace(b"IDAT", b"IDAT\1", 1), "damaged"),
    "no header": (b"\xff\xd8\xff" + b"noise" * 50, "damaged: its header cannot be read"),
    "large PNG": (png_header(9000, 9000), "too large: 9000 x 9000 pixels"),
    "larger PNG": (png_header(60_000, 60_000), "too large: more than 64,000,000 pixels"),
    "one pixel too many": (png_header(8000, 8001), "too large"),
    "large WebP": (webp_header(b"VP8X", 2**24, 255), "too large: 16777216 x 255"),
    "large lossless WebP": (webp_header(b"VP8L", 2**14, 2**14), "too large: 16384 x 16384"),
    "large lossy WebP": (webp_header(b"VP8 ", 16383, 16383), "too large: 16383 x 16383"),
    "short WebP": (webp_header(b"VP8X", 64, 64)[:25], "damaged: it ends in its header"),
    "odd WebP": (webp_header(b"VP9 ", 64, 64), "damaged: it is no WebP"),
    "small": (picture(size=(15, 400)), "too small: 15 x 400"),
    "GIF": (saved(Image.new("P", (32, 32)), "GIF"), "not a picture: it is GIF"),
    "BMP": (saved(Image.new("RGB", (32, 32)), "BMP"), "not a picture: it is BMP"),
    "TIFF": (saved(Image.new("RGB", (32, 32)), "TIFF"), "not a picture: it is TIFF"),
    "HEIC": (b"\0\0\0\x18ftypheic" + b"\0" * 20, "not a picture: it is HEIC"),
    "text": (b"hello, this is no picture", "not a picture"),
    "empty": (b"", "not a picture: it is empty"),
    "animated WebP": (frames("WEBP"), "animated: it has 2 frames"),
    "animated PNG": (frames("PNG"), "animated: it has 2 frames"),
}


@pytest.mark.parametrize(("data", "why"), BAD.values(), ids=BAD)
def test_what_is_left_out(data: bytes, why: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LeftOut, match=why):
            Squarer(16)(data)


def test_the_size_limit_is_exact() -> None:
    square.check_size(8000, 8000)
    assert MAX_PIXELS == 8000 * 8000
    assert square.check_webp(picture("WEBP", (64, 48))[:30]) is None
    assert square.check_webp(picture("WEBP", (64, 48), lossless=True)[:30]) is None
    assert square.check_webp(picture("WEBP", (64, 48), mode="RGBA")[:30]) is None


def test_a_camera_s_second_picture_is_no_animation() -> None:
    """Phones put a preview behind the picture (MPO): the first is the picture."""
    data = saved(corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert Squarer(16)(data).width == 48


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on memory is Linux's")
def test_bombs_take_no_memory() -> None:
    """In a process of its own that may not take half a gigabyte more than it has when it begins."""
    code = (
        "import resource, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from data.test_folder_pictures import BAD, Squarer, LeftOut\n"
        "limit = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + 2**29\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name, (data, why) in BAD.items():\n"
        "    try:\n        Squarer(16)(data)\n        raise SystemExit(name)\n"
        "    except LeftOut:\n        pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    tests = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run([sys.executable, "-c", code, tests], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 * 1024  # kilobytes


# near duplicates


def noise(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((128, 128), 3)


def plain(level: int) -> Thumbnail:
    return thumbnail(Image.new("RGB", (16, 16), (level,) * 3))


def drawing(seed: int, kind: str, side: int = 512) -> Image.Image:
    """Something small or thin on white paper: a dot, a stroke, a letter in the middle, or small print all over."""
    image, rng = Image.new("RGB", (512, 512), "white"), np.random.default_rng(seed)
    pen = ImageDraw.Draw(image)
    x, y = (int(v) for v in rng.integers(40, 440, 2))
    if kind == "dots":
        pen.ellipse((x, y, x + 14, y + 14), fill="black")
    elif kind == "strokes":
        pen.line((x, y, x + int(rng.integers(-60, 60)), y + int(rng.integers(30, 60))), fill="black", width=4)
    elif kind == "letters":
        pen.text((220, 200), "ABCDEFGHIJKLMNPRSTUVWXYZ"[seed], fill="black", font=ImageFont.load_default(90))
    else:
        for row in range(40, 470, 13):
            words = " ".join("".join(rng.choice([*"etaoinshrdlu"], n)) for n in rng.integers(1, 9, 20))
            pen.text((40, row), words[:75], fill="black", font=ImageFont.load_default(11))
    return image.resize((side, side), Image.Resampling.LANCZOS)


@pytest.mark.parametrize("kind", ["dots", "strokes", "letters", "pages"])
def test_drawings_that_differ_are_not_taken_for_duplicates(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By colours alone paper is near to paper: of 24 drawings most were one group, so that nothing was kept back."""
    drawn = [drawing(seed, kind, 128) for seed in range(24)]
    thumbs = [thumbnail(each) for each in drawn]
    assert near_groups(thumbs) == list(range(24))
    monkeypatch.setattr("unnoise.data.duplicates.PART", 10.0)
    assert len(set(near_groups(thumbs))) < 12, "by colours alone"


@pytest.mark.parametrize("kind", ["dots", "strokes", "letters", "pages"])
def test_copies_of_drawings_are_found(kind: str) -> None:
    for seed in range(6):
        one = drawing(seed, kind, 128)
        copies = [Image.open(io.BytesIO(saved(one, "JPEG", quality=q))) for q in (90, 60, 30)]
        copies += [
            Image.open(io.BytesIO(saved(one, "WEBP", quality=50))),
            drawing(seed, kind, 256).resize((128, 128), 1),
        ]
        copies += [one.transpose(Image.Transpose.FLIP_LEFT_RIGHT), one.point(lambda v: v * 99 // 100)]
        for copy in copies:
            assert near_groups([thumbnail(one), thumbnail(copy)]) == [0, 0]


def test_near_duplicates_are_found() -> None:
    one = noise(0)
    jpeg = Image.open(io.BytesIO(saved(one, "JPEG", quality=60)))
    small = one.resize((64, 64), 1).resize((128, 128), 1)
    mirrored = one.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    others = [noise(seed) for seed in range(1, 6)]
    thumbs = [thumbnail(i) for i in (others[0], one, others[1], jpeg, *others[2:], small, mirrored)]
    assert near_groups(thumbs) == [0, 1, 2, 1, 4, 5, 6, 1, 1]
    assert near_groups([]) == []


def test_a_chain_is_one_group_and_the_limit_is_exact() -> None:
    flat = [plain(level) for level in (0, 4, 8, 20, 255, 255)]
    assert near_groups(flat, 4.0) == [0, 0, 0, 3, 4, 4]
    assert near_groups(flat, 3.99) == [0, 1, 2, 3, 4, 4]
    assert near_groups(flat, 0.0) == [0, 1, 2, 3, 4, 4]
    many = [plain(level % 250) for level in range(600)]  # more than are compared at a time
    assert near_groups(many, 0.5) == [level % 250 for level in range(600)]
    assert NEAR == 4.0
