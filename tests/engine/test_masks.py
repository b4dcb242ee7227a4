"""Masks: what each kind of file selects, in both doors, and that what it does not select keeps its pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from unnoise.cli.main import main
from unnoise.data.square import open_picture, open_unchanged
from unnoise.engine.engine import Engine, sources_of
from unnoise.engine.load import load_engine
from unnoise.engine.masks import FEATHER, drawn_anew, feathered, identity, selection
from unnoise.engine.start import Start, begin
from unnoise.errors import UnnoiseError
from unnoise.pictures import from_bytes, to_bytes

SIDE = 64
SIZE = (128, 128)  # of the tiny model's pictures
WANTED = np.zeros((SIDE, SIDE), bool)
WANTED[20:40, 10:30] = True
RED, BLUE, BLACK, WHITE, GREY = (255, 0, 0), (0, 0, 139), (0, 0, 0), (255, 255, 255), (110, 110, 110)


def grey(inside: float, outside: float, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.where(WANTED, inside, outside).astype(dtype))


def painted(stroke: tuple[int, ...], ground: tuple[int, ...], opacity: int = 255, below: int = 0) -> Image.Image:
    """RGBA: a stroke of an opacity, and ground of another."""
    rgba = np.where(WANTED[..., None], (*stroke, opacity), (*ground, below)).astype(np.uint8)
    return Image.fromarray(rgba)


def in_black_and_white() -> Image.Image:
    """White where it is wanted, black beside it, and the rest of the layer clear."""
    rgba = np.zeros((SIDE, SIDE, 4), np.uint8)
    rgba[:50] = (0, 0, 0, 255)
    rgba[WANTED] = 255
    return Image.fromarray(rgba)


def clear_index() -> Image.Image:
    image = grey(1, 0).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([255, 0, 255, 20, 20, 20])
    image.info["transparency"] = bytes([0, 255])
    return image


def clear_value(mode: str, value: int) -> Image.Image:
    image = grey(40, value, np.uint16 if mode == "I;16" else np.uint8)
    image.info["transparency"] = value
    return image


MASKS: dict[str, Image.Image] = {
    "white on black": grey(255, 0),
    "light on dark": grey(128, 127),
    "1 bit": grey(255, 0).convert("1"),
    "of zeros and ones": grey(1, 0),
    "of zeros and ones in colours": Image.merge("RGB", [grey(1, 0)] * 3),
    "16 bits": grey(40000, 100, np.uint16),
    "16 bits of zeros and ones": grey(1, 0, np.uint16),
    "16 bits of bytes": grey(255, 0, np.uint16),
    "32 bits of bytes": grey(255, 0, np.int32),
    "fractions": grey(0.9, 0.2, np.float32),
    "a palette": grey(255, 0).convert("P"),
    "a palette of two": grey(255, 0).convert("RGB").quantize(2),
    "grey and alpha": painted(WHITE, WHITE).convert("LA"),
    "red on black": painted(RED, BLACK, below=255).convert("RGB"),
    "blue on black": painted(BLUE, BLACK, below=255).convert("RGB"),
    "red on black, all opaque": painted(RED, BLACK, below=255),
    "white on black, all clear": painted(WHITE, BLACK, opacity=0),
    "white on black, all half clear": painted(WHITE, BLACK, opacity=128, below=128),
    "white on black, alpha a little uneven": painted(WHITE, BLACK, opacity=255, below=250),
    "white on clear": painted(WHITE, WHITE),
    "white on clear black": painted(WHITE, BLACK),
    "red on clear": painted(RED, BLACK),
    "red on clear white": painted(RED, WHITE),
    "blue on clear": painted(BLUE, WHITE),
    "black on clear": painted(BLACK, WHITE),
    "grey on clear": painted(GREY, BLACK),
    "thin red on clear": painted(RED, BLACK, opacity=90),
    "red on half clear": painted(RED, BLACK, below=100),
    "alpha of zeros and ones": painted(WHITE, WHITE, opacity=1),
    "black and white on clear": in_black_and_white(),
    "a clear index": clear_index(),
    "a clear grey": clear_value("L", 200),
    "a clear 16-bit grey": clear_value("I;16", 60000),
    "clear black in 16 bits": clear_value("I;16", 0),
    "black ink": Image.merge("CMYK", [grey(0, 0), grey(0, 0), grey(0, 0), grey(0, 255)]),
}


@pytest.mark.parametrize("name", MASKS)
def test_what_a_mask_selects(name: str) -> None:
    assert np.array_equal(selection(MASKS[name]), WANTED)


def test_a_mask_is_not_turned_round_by_guessing() -> None:
    assert np.array_equal(selection(grey(0, 255)), ~WANTED)
    assert np.array_equal(selection(painted(WHITE, WHITE, opacity=0, below=255)), ~WANTED), "a hole stays"


SAVED = [name for name, mask in MASKS.items() if mask.mode not in ("F", "I", "CMYK")]


def opened(start: Path, mask: Path | None = None) -> tuple[dict[str, Image.Image], dict[str, str]]:
    """The pictures of a request, as the command line opens them, and what identifies them."""
    return sources_of(open_picture(start), None if mask is None else open_unchanged(mask))


@pytest.mark.parametrize("name", SAVED)
def test_both_doors_read_one_file_alike(name: str, engine: Engine, tmp_path: Path) -> None:
    path, start = tmp_path / "mask.png", tmp_path / "start.png"
    MASKS[name].save(path)
    Image.effect_noise((SIDE, SIDE), 90).save(start)
    by_command = opened(start, path)
    with Image.open(path) as mask, Image.open(start) as picture:
        by_hand = sources_of(picture, mask)
    assert by_command[1] == by_hand[1] == sources_of(Image.open(start), MASKS["white on black"])[1]
    wanted = begin(engine.model.autoencoder, Image.open(start), SIZE, 1.0, MASKS["white on black"])
    for sources, own in (by_command, by_hand):
        found = begin(engine.model.autoencoder, sources[own["start"]], SIZE, 1.0, sources[own["mask"]])
        assert torch.equal(found.share, wanted.share)  # type: ignore[arg-type]
        assert torch.equal(found.x0, wanted.x0)


def test_a_start_of_any_mode_is_the_same_in_both_doors(engine: Engine, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, (image, more) in enumerate(
        [
            (painted(RED, BLUE, opacity=200, below=30), {}),
            (clear_value("I;16", 60000), {}),
            (painted(RED, BLACK, below=90).convert("LA"), {}),
            (clear_index(), {}),
            (painted(RED, BLUE, below=255).convert("RGB"), {"exif": exif}),
        ]
    ):
        path = tmp_path / f"{number}.png"
        image.save(path, **more)
        by_command, named = opened(path)
        with Image.open(path) as picture:
            by_hand, own = sources_of(picture, None)
            wanted = begin(engine.model.autoencoder, picture, SIZE, 0.6).x0
        assert named == own
        for sources in (by_command, by_hand):
            assert torch.equal(begin(engine.model.autoencoder, sources[own["start"]], SIZE, 0.6).x0, wanted)


# made smaller


@pytest.mark.parametrize("side", [1024, 1000, 300, 128, 64, 31])
def test_thin_lines_do_not_vanish(side: int) -> None:
    mask = Image.new("L", (side + 7, side))
    pen = ImageDraw.Draw(mask)
    width = max(1, side // 256)
    pen.line((side // 3, 0, side // 3, side), 255, width)
    pen.line((0, side // 2, side + 7, side // 2), 255, width)
    drawn = drawn_anew(mask, (128, 128))[0, 0]
    assert drawn.any(0).all(), "the line across has no gap"
    assert drawn.any(1).all()
    assert drawn.float().mean() < 0.1, "and is not blown up"
    share = feathered(drawn[None, None])
    assert (share[share > 0] == 1).float().mean() > 0.15, "its middle is drawn in full"


def test_made_smaller_a_pixel_is_set_if_any_is() -> None:
    """Against the maximum over what each pixel stands for, taken one by one."""
    rng = np.random.default_rng(0)
    for size in ((128, 128), (256, 256), (384, 250)):
        mask = rng.random(size[::-1]) < 0.01
        found = drawn_anew(Image.fromarray(mask), (125, 125))[0, 0].numpy()
        side = min(size)
        left, top = (size[0] - side) / 2, (size[1] - side) / 2
        for row, column in rng.integers(0, 125, (300, 2)):
            box = [c + side * k / 125 for c, k in ((top, row), (top, row + 1), (left, column), (left, column + 1))]
            low, high, first, last = (int(f(b)) for f, b in zip((np.floor, np.ceil) * 2, box, strict=True))
            assert found[row, column] == mask[low:high, first:last].any()


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (Image.new("L", (SIDE, SIDE)), "selects nothing"),
        (Image.new("L", (SIDE, SIDE), 90), "selects nothing"),
        (Image.new("RGBA", (SIDE, SIDE)), "selects nothing"),
        (Image.fromarray(np.where(np.arange(200) < 9, 255, 0).astype(np.uint8)[None].repeat(64, 0)), "is cut off"),
    ],
)
def test_a_mask_that_selects_nothing_is_refused(mask: Image.Image, said: str, engine: Engine) -> None:
    with pytest.raises(UnnoiseError, match=said):
        engine.generate("red apple", start=Image.new("RGB", mask.size), mask=mask)


def test_what_is_no_picture_is_refused(engine: Engine, tmp_path: Path) -> None:
    NOISE.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    with Image.open(tmp_path / "cut.png") as cut:
        for arguments, said in (
            ({"start": "start.png"}, "start is 'start.png'"),
            ({"start": NOISE, "mask": np.zeros((2, 2))}, "mask is"),
            ({"start": cut}, "the start cannot be read"),
            ({"start": NOISE, "mask": HALF.resize((9, 9))}, "the mask is"),
            ({"start": NOISE, "strength": 2.0}, "strength"),
            ({"mask": HALF}, "mask speaks of a picture"),
        ):
            for call in (engine.generate, engine.steps):
                with pytest.raises(UnnoiseError, match=said):
                    call("red apple", **arguments)


# the edge


def test_what_is_drawn_fades_in_inside_of_the_mask() -> None:
    drawn = torch.zeros(1, 1, 40, 40, dtype=torch.bool)
    drawn[..., 10:30, 0:30] = True
    share = feathered(drawn)[0, 0]
    assert torch.equal(share > 0, drawn[0, 0])
    ramp = torch.arange(1, FEATHER + 2) / (FEATHER + 1)
    assert torch.equal(share[10 : 10 + FEATHER + 1, 5], ramp)
    assert torch.equal(share[20, 29 - FEATHER : 30].flip(0), ramp)
    assert (share[20, :10] == 1).all(), "the border of the picture is no edge"
    beside = drawn.clone()
    beside[..., 32, :] = True
    assert (feathered(beside)[0, 0, 32] == 1).all(), "a line is drawn in full, beside a large part too"


def test_bytes_come_back_from_floats() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(from_bytes(every)), every)


def test_nothing_that_was_decoded_reaches_what_stays() -> None:
    pixels = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    share = torch.zeros(1, 1, 8, 8)
    share[..., 4:] = 1
    drawn = torch.full((2, 3, 8, 8), torch.nan)
    drawn[..., 4:] = 0.5
    found = to_bytes(Start(torch.zeros(1), pixels=pixels, share=share).put_back(drawn))
    assert torch.equal(found[..., :4], pixels[..., :4].expand(2, -1, -1, -1))
    assert (found[..., 4:] == 191).all()


# whole runs

NOISE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (160, 130, 3), dtype=np.uint8))
HALF = Image.fromarray(((np.indices((160, 130))[1] > 70) * 255).astype(np.uint8))


def scaled() -> np.ndarray:
    from PIL import ImageOps

    return np.asarray(ImageOps.fit(NOISE, (128, 128)))


def stays(start: Start) -> np.ndarray:
    assert start.share is not None
    return start.share[0, 0].numpy() == 0


def changed(image: Image.Image, start: Start) -> tuple[int, int]:
    """The most that pixels that stay and pixels that are drawn are away from the start's."""
    gap = np.abs(np.asarray(image).astype(int) - scaled().astype(int)).max(-1)
    return int(gap[stays(start)].max()), int(gap[~stays(start)].max())


@pytest.mark.parametrize("solver", ["euler", "repaint(2)"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_what_stays_is_untouched_from_python(solver: str, strength: float, engine: Engine) -> None:
    start = begin(engine.model.autoencoder, NOISE, SIZE, strength, HALF)
    how: dict[str, Any] = {"steps": 2, "solver": solver, "start": NOISE, "mask": HALF, "strength": strength}
    for image in engine.generate("red apple", count=3, **how):
        kept, drawn = changed(image, start)
        assert kept == 0
        assert drawn > 20
    for step in engine.steps("red apple", **how):
        assert changed(step.picture, start)[0] == 0
        assert changed(step.finished, start)[0] == 0
    assert changed(engine.model.decode(step.step.run.x)[0], start)[0] > 20, (
        "the control: decoded alone, all of it changes"
    )


def test_left_out_the_strength_is_that_of_the_command_line(engine: Engine) -> None:
    def strength(mask: Image.Image | None, **how: Any) -> float | None:
        return next(engine.steps("red apple", steps=4, start=NOISE, mask=mask, **how)).request.strength

    assert [strength(None), strength(HALF), strength(None, invert="a heart")] == [0.6, 1.0, 1.0]
    assert strength(HALF, strength=0.5) == 0.5


def test_inverted_and_in_half_precision_it_stays(engine: Engine, tiny_model: Path) -> None:
    half = load_engine(tiny_model, "cpu", "bfloat16")
    start = begin(engine.model.autoencoder, NOISE, SIZE, 1.0, HALF)
    for each in (engine, half):
        for image in each.generate("red apple", count=2, steps=2, start=NOISE, mask=HALF, invert="blue heart"):
            assert changed(image, start)[0] == 0


def test_five_rounds_leave_what_stays_as_it_is(engine: Engine) -> None:
    mask = HALF.resize((128, 128)).point(lambda v: 255 * (v > 127))
    picture, coder = NOISE, engine.model.autoencoder
    for number in range(5):
        kept = HALF if number == 0 else mask
        (picture,) = engine.generate("red apple", seed=number, steps=1, start=picture, mask=kept)
    common = stays(begin(coder, NOISE, SIZE, 1.0, HALF)) & stays(begin(coder, picture, SIZE, 1.0, mask))
    assert common.mean() > 0.4
    assert np.array_equal(np.asarray(picture)[common], scaled()[common])


def test_the_first_rules_put_nothing_back(engine: Engine) -> None:
    coder, clear = engine.model.autoencoder, MASKS["white on clear"].resize(NOISE.size)
    start = begin(coder, NOISE, SIZE, 1.0, HALF, rules=1)
    assert start.pixels is None
    assert start.share is None
    assert begin(coder, NOISE, SIZE, 1.0, clear, rules=1).mask.all(), "as it was then"  # type: ignore[union-attr]


def test_a_mask_is_known_by_what_it_selects(tmp_path: Path) -> None:
    known = {identity(mask, 2) for mask in MASKS.values()}
    assert known == {identity(MASKS["1 bit"], 1)}, "one in black and white by both rules alike"
    assert identity(grey(0, 255), 2) not in known
    assert identity(MASKS["white on clear"], 1) == identity(Image.new("L", (SIDE, SIDE), 255), 1), "as it was then"


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_model: Path) -> Say:
    """Runs the program in a folder with a start and masks: (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    NOISE.save("start.png")
    strokes = Image.new("RGBA", NOISE.size)
    strokes.paste(RED, (70, 0, 130, 160))
    for name, mask in (
        ("mask", strokes),
        ("again", HALF),
        ("none", Image.new("L", NOISE.size)),
        ("all", Image.new("1", NOISE.size, 1)),
    ):
        mask.save(f"{name}.png")

    def call(*args: object) -> tuple[int, str, str]:
        try:
            status = main([*map(str, args), "--model", str(tiny_model)])
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return call


def test_from_the_command_line(say: Say, tmp_path: Path, engine: Engine) -> None:
    base = ("generate", "red apple", "--seed", 1, "--steps", 2, "--start", "start.png", "--json")
    mask = Image.open("mask.png")
    start = begin(engine.model.autoencoder, NOISE, SIZE, 1.0, mask)
    for more in ([], ["--strength", "0.4", "--count", 2, "--gif", "--strip"], ["--invert", "blue heart"]):
        status, out, _ = say(*base, "--mask", "mask.png", *more)
        assert status == 0
        made = json.loads(out)["pictures"]
        for each in made:
            with Image.open(each["path"]) as image:
                assert changed(image, start)[0] == 0, more
                if not more:
                    (same,) = engine.generate("red apple", seed=1, steps=2, start=NOISE, mask=mask)
                    assert np.array_equal(np.asarray(image), np.asarray(same)), "the same in both doors"
        again = ("replay", each["path"], "--start", "start.png", "--mask", "mask.png")
        assert say(*again) == (0, f"{each['path']}: equal, every pixel is the same\n", "")
        if "--gif" in more:
            with Image.open(made[0]["gif"]) as film:
                film.seek(1)
                gap = np.abs(np.asarray(film.convert("RGB")).astype(int) - scaled())[stays(start)]
                assert gap.mean() < 20, "films show what stays, too, as well as 256 colours can"
    assert "is not the mask" in say("replay", each["path"], "--start", "start.png", "--mask", "all.png")[2]
    status, out, _ = say(
        *base[:3], 2, *base[4:], "--mask", "mask.png", "--grid", "cfg-scale=1,3", "--grid", "strength=0.5,1"
    )
    grid = json.loads(out)["pictures"][0]["path"]
    assert status == 0
    assert say("replay", grid, "--start", "start.png", "--mask", "mask.png")[0] == 0


def test_a_mask_that_selects_nothing_or_everything_is_told(say: Say, tmp_path: Path) -> None:
    base = ("generate", "red apple", "--seed", 1, "--steps", 1, "--start", "start.png")
    status, out, err = say(*base, "--mask", "none.png")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "the mask selects nothing" in err
    assert not Path("pictures").exists()
    for more in ([], ["--grid", "cfg-scale=1,3"]):
        status, _, err = say(*base, "--mask", "all.png", *more)
        assert status == 0
        assert err == "note: the mask selects the whole picture: nothing of it stays\n"
    assert "note" not in say(*base, "--mask", "again.png")[2]
