"""``unnoise noise``: the frames are the forward process, with one noise sample."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.cli.main import main
from unnoise.cli.noise import decibel, scaled
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import find, index
from unnoise.data.square import open_picture
from unnoise.pictures import from_bytes, from_image
from unnoise.study.film import GAP, evenly
from unnoise.study.forward import noised


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    ramp = np.arange(48 * 64 * 3, dtype=np.int64).reshape(48, 64, 3) % 251
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("name", index("paths"))
def test_frames_are_the_path_s(name: str, photo: Path) -> None:
    """Each frame is alpha x0 + sigma eps with the same eps; the first is the picture itself."""
    picture, path = scaled(open_picture(photo), 64), find("paths", name)()
    frames = noised(picture, path, 5, seed=3)
    assert frames[0].image.tobytes() == picture.tobytes()
    x0 = from_bytes(from_image(picture))
    eps = NoiseSource([3], x0.shape).initial()[0]
    for number, frame in enumerate(frames):
        level = path.at(number / 4)
        assert frame.t == number / 4
        size = max(1.0, math.hypot(level.alpha, level.sigma))
        wanted = ((level.alpha * x0 + level.sigma * eps) / size).clamp(-1, 1)
        assert (from_bytes(from_image(frame.image)) - wanted).abs().max() < 1 / 127
    assert [frame.snr for frame in frames] == sorted((frame.snr for frame in frames), reverse=True)


def test_it_writes_a_strip_and_a_gif(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["noise", str(photo), "--path", "flow", "--frames", "3", "--size", "120"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"pictures/photo-flow-noised{end}" for end in (".png", ".gif")]
    with Image.open(lines[0]) as strip:
        first = strip.crop((GAP, GAP, GAP + 120, GAP + 90))
        assert first.tobytes() == scaled(open_picture(photo), 120).tobytes()
    with Image.open(lines[1]) as film:
        assert (film.n_frames, film.size) == (12, (120, 90))


def test_a_camera_s_turn_is_honoured_and_nothing_is_black(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (40, 20), "red").save(tmp_path / "turned.jpg", exif=exif)
    assert scaled(open_picture(tmp_path / "turned.jpg"), 40).size == (20, 40)
    grey = Image.fromarray(np.full((20, 20), 0x8080, dtype=np.uint16))
    grey.save(tmp_path / "deep.png")
    assert open_picture(tmp_path / "deep.png").getpixel((0, 0)) == (128, 128, 128), "16 bits are not clipped"
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert scaled(open_picture(tmp_path / "clear.png"), 8).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["none.png"], "there is no picture"),
        (["text.txt"], "cannot be used: not a picture"),
        (["cut.png"], "cannot be used: damaged"),
        (["photo.png", "--path", "flaw"], "did you mean flow?"),
        (["photo.png", "--frames", "1"], "--frames 1 is out of range"),
        (["photo.png", "--size", "5000"], "--size 5000 is out of range"),
    ],
)
def test_mistakes(
    args: list[str],
    said: str,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("hello")
    Path("cut.png").write_bytes(photo.read_bytes()[:200])
    assert main(["noise", *args]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert not Path("pictures").exists()


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    monkeypatch.setattr("PIL.ImageOps.exif_transpose", lambda *_: pytest.fail("decoded"))
    with pytest.raises(Exception, match=r"too large"):
        scaled(open_picture(tmp_path / "bomb.png"), 64)


def test_small_things() -> None:
    assert [decibel(x) for x in (0.0, math.inf, 100.0, 0.1)] == ["no signal", "no noise", "+20 dB", "-10 dB"]
    assert evenly(3, 5) == [0, 1, 2]
    assert evenly(100, 4) == [0, 33, 66, 99]
    assert evenly(7, 1) == [6]
    assert torch.equal(from_bytes(torch.tensor([0, 255], dtype=torch.uint8)), torch.tensor([-1.0, 1.0]))
