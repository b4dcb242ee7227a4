"""The index of training pictures: it finds a copy however it was changed, and nothing in what is none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from study.judged import write_shapes
from unnoise.data.store import open_set
from unnoise.engine.load import default_model, default_pictures
from unnoise.errors import UnnoiseError
from unnoise.pictures import from_image
from unnoise.study import nearest
from unnoise.study.nearest import FEATURES, INDEX, PICTURES, SIDE, Index, build, describe, open_index, save


@cache
def shipped() -> Index:
    return open_index(default_pictures())


@cache
def some() -> tuple[list[int], Tensor]:
    """(rows, pixels) of sixty training pictures, evenly chosen."""
    rows = list(range(7, len(shipped()), len(shipped()) // 60))[:60]
    return rows, torch.stack([from_image(shipped().picture(row)) for row in rows])


def moved(x: Tensor) -> Tensor:
    """Three pixels right and four down, of 64; what leaves the picture is lost."""
    out = torch.full_like(x, 255)
    out[..., 4:, 3:] = x[..., :-4, :-3]
    return out


def smaller(x: Tensor) -> Tensor:
    out = torch.full_like(x, 255)
    out[..., 4:60, 2:58] = F.interpolate(x.float(), size=56, mode="bilinear", antialias=True).round().to(torch.uint8)
    return out


def recoloured(x: Tensor) -> Tensor:
    return x[:, [1, 2, 0]]


def darker(x: Tensor) -> Tensor:
    return (x.float() * 0.75).to(torch.uint8)


def kind(caption: str) -> str:
    """A caption without skin tones, sides and sexes: pictures that differ in these alone are each other's copies."""
    return re.sub(r"[\w-]+ skin tone|facing right|\b(left|right|wo|man|woman|person|and|men|women)\b|[, ]", "", caption)


def hits(rows: list[int], firsts: list[int]) -> float:
    captions = shipped().captions
    same = [kind(captions[row]) == kind(captions[first]) for row, first in zip(rows, firsts, strict=True)]
    return sum(same) / len(same)


def found(rows: list[int], pixels: Tensor) -> float:
    """How many are found first, as themselves or as pictures of the same kind."""
    return hits(rows, [matches[0].row for matches in shipped().search(pixels, 1)])


def by_pixels(rows: list[int], pixels: Tensor) -> float:
    """The control: the same by the distance from pixel to pixel, on thumbnails of 16 x 16."""
    index, side = shipped(), 16
    small = index.sheet.resize((index.columns * side, index.sheet.height // SIDE * side), Image.Resampling.BOX)
    known = from_image(small).unflatten(1, (-1, side)).unflatten(3, (-1, side)).permute(1, 3, 0, 2, 4).flatten(0, 1)
    near = F.adaptive_avg_pool2d(pixels.float(), side).flatten(1)
    return hits(rows, torch.cdist(near, known[: len(index)].flatten(1).float()).argmin(1).tolist())


@pytest.mark.parametrize(
    ("change", "share"),
    [(Tensor.clone, 0.95), (moved, 0.9), (smaller, 0.9), (darker, 0.9), (recoloured, 0.85)],
    ids=["as it is", "moved", "smaller", "darker", "recoloured"],
)
def test_a_copy_is_found_however_it_was_changed(change: Callable[[Tensor], Tensor], share: float) -> None:
    """Among more than three thousand, whose thumbnails a WebP has blurred."""
    rows, pixels = some()
    assert found(rows, change(pixels)) >= share
    assert found(rows, change(pixels).flip(-1)) >= share, "and its mirror image"
    near = torch.tensor([matches[0].distance for matches in shipped().search(change(pixels), 1)])
    assert near.median() < 0.75


def test_pixels_alone_would_not_find_what_was_moved() -> None:
    rows, pixels = some()
    assert by_pixels(rows, pixels) > 0.95
    assert by_pixels(rows, moved(pixels)) < 0.7 < found(rows, moved(pixels))


def test_what_is_no_copy_is_far() -> None:
    """The control: noise, blobs and stripes are farther than training pictures are from one another."""
    noise = torch.Generator().manual_seed(1)
    grain = torch.randint(0, 256, (4, 3, 64, 64), generator=noise, dtype=torch.uint8)
    blobs = F.interpolate(torch.randint(0, 256, (4, 3, 6, 6), generator=noise).float(), size=64, mode="bicubic")
    for pixels in (grain, blobs.clamp(0, 255).to(torch.uint8)):
        assert min(matches[0].distance for matches in shipped().search(pixels, 1)) > 1


def test_a_blank_picture_has_a_description() -> None:
    assert torch.isfinite(nearest.weighted(describe(torch.full((2, 3, 64, 64), 255, dtype=torch.uint8)))).all()


def test_the_shipped_index_is_whole_and_small() -> None:
    index = shipped()
    assert len(index) == len(index.features) == len(index.captions) > 3000
    assert "red apple" in index.captions
    assert {path.name for path in default_pictures().iterdir()} == {INDEX, FEATURES, PICTURES, "NOTICE"}
    sizes = {
        folder: sum(f.stat().st_size for f in folder.iterdir()) for folder in (default_model(), default_pictures())
    }
    assert sizes[default_pictures()] <= 4_500_000
    assert sum(sizes.values()) <= 40_000_000
    notice = (default_pictures() / "NOTICE").read_text("utf-8")
    assert "Noto Color Emoji" in notice
    assert "SIL Open Font License" in notice


# an index of one's own


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("sets") / "shapes")


def test_a_set_s_own_pictures_are_found_as_themselves(shapes: Path) -> None:
    pictures = open_set(shapes)
    index = build(pictures)
    trained = pictures.select("denoiser")
    assert [pictures.captions[row][0] for row in trained] == list(index.captions)
    for place, (first, second) in enumerate(index.search(pictures.pictures(trained), 2)):
        assert (first.row, first.distance, first.mirrored) == (place, 0, False)
        assert second.distance > 0
    assert len(index.search(pictures.pictures([0]), 99)[0]) == len(trained)


def test_it_is_what_it_was_after_a_save(shapes: Path, tmp_path: Path) -> None:
    index = build(open_set(shapes))
    save(index, tmp_path / "index", "mine")
    again = open_index(tmp_path / "index")
    assert torch.equal(again.features, index.features)
    assert (again.captions, again.unit, again.columns) == (index.captions, index.unit, index.columns)
    for row in range(len(index)):
        shown, kept = (from_image(each.picture(row)).float() for each in (again, index))
        assert shown.shape == (3, SIDE, SIDE)
        assert (shown - kept).square().mean().sqrt() < 25, "WebP loses a little"


@pytest.mark.parametrize("name", [INDEX, FEATURES, PICTURES])
def test_damaged_indices_are_refused(name: str, shapes: Path, tmp_path: Path) -> None:
    save(build(open_set(shapes)), tmp_path / "index", "mine")
    data = (tmp_path / "index" / name).read_bytes()
    for damage in (data[:-20], b"[" * 9, None):
        (tmp_path / "index" / name).unlink(missing_ok=True)
        if damage is not None:
            (tmp_path / "index" / name).write_bytes(damage)
        with pytest.raises(UnnoiseError, match="is damaged" if damage or name != INDEX else "there is no index"):
            open_index(tmp_path / "index")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "has format 2"),
        ({"columns": 9}, "damaged"),
        ({"unit": 0}, "damaged"),
        ({"captions": []}, "damaged"),
    ],
)
def test_records_that_lie_are_refused(change: dict[str, object], said: str, shapes: Path, tmp_path: Path) -> None:
    save(build(open_set(shapes)), tmp_path / "index", "mine")
    file = tmp_path / "index" / INDEX
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UnnoiseError, match=said):
        open_index(tmp_path / "index")
