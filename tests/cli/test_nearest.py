"""``unnoise nearest``, and ``generate --nearest``: what is printed and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from study.judged import write_shapes
from unnoise.cli.main import main
from unnoise.data.store import open_set
from unnoise.engine.load import default_pictures
from unnoise.pictures import to_images
from unnoise.study.nearest import build, open_index, save

Said = pytest.CaptureFixture[str]


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture set; its first training picture lies beside it, mirrored too."""
    monkeypatch.chdir(tmp_path)
    path = write_shapes(tmp_path / "shapes")
    image = to_images(open_set(path).pictures(open_set(path).select("denoiser")[:1]))[0]
    image.save("Mine!.png")
    return path


def test_pictures_of_a_set_of_ones_own(shapes: Path, capsys: Said) -> None:
    caption = open_set(shapes).captions[0][0]
    args = ["nearest", "Mine!.png", "--data", str(shapes), "--count", "2"]
    assert main(args) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert (first, second) == ("Mine!.png", f"  0.00  {caption}")
    assert float(third.split()[0]) > 0
    assert main([*args, "--json", "--out", "found"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["picture"] == "Mine!.png"
    assert told["nearest"] == "found/mine-nearest.png"
    assert told["training_pictures"][0] == {"distance": 0.0, "caption": caption, "mirrored": False}
    with Image.open("found/mine-nearest.png") as strip:
        assert strip.width > 3 * 128


def test_nothing_is_left_where_a_picture_cannot_be_read(shapes: Path, tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "text.png").write_text("no picture")
    args = ["nearest", "Mine!.png", "text.png", "--data", str(shapes), "--out", "found"]
    assert main(args) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("unnoise: text.png cannot be used")
    assert not (tmp_path / "found").exists()


def test_the_shipped_index_is_searched_where_no_set_is_named(tmp_path: Path, capsys: Said) -> None:
    index = open_index(default_pictures())
    row = list(index.captions).index("red apple")
    index.picture(row).save(tmp_path / "apple.png")
    assert main(["nearest", str(tmp_path / "apple.png"), "--count", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("  red apple")


def test_generate_finds_the_nearest(
    shapes: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    save(build(open_set(shapes)), tmp_path / "index", "mine")
    monkeypatch.setattr("unnoise.engine.load.default_model", lambda: tiny_model)
    monkeypatch.setattr("unnoise.engine.load.default_pictures", lambda: tmp_path / "index")
    assert main(["generate", "x", "--seed", "1", "--count", "2", "--nearest", "--strip"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["pictures/x-1.png  seed 1", "pictures/x-1-strip.png", "pictures/x-1-nearest.png"]
    captions = {caption for captions in open_set(shapes).captions for caption in captions}
    for line in (*lines[3:6], *lines[9:12]):
        distance, caption = line.removesuffix("  (mirrored)").strip().split("  ")
        assert float(distance) >= 0
        assert caption in captions
    assert (tmp_path / lines[8]).is_file()
    assert main(["generate", "x", "--nearest", "--model", str(tmp_path)]) == 1
