"""Stored sets and cached features: whole, checked, and read by the ``datasets`` library."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from unnoise.data.cache import feature_key, load_or_compute
from unnoise.data.sheet import contact_sheet
from unnoise.data.store import PictureSet, open_set
from unnoise.data.write import Row, manifest_at, write_set
from unnoise.errors import UnnoiseError
from unnoise.files import sha256


def test_a_missing_set(tmp_path: Path) -> None:
    with pytest.raises(UnnoiseError, match="no picture set at"):
        open_set(tmp_path)


def test_a_damaged_set(small: Path) -> None:
    file = small / "pictures.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(UnnoiseError, match="damaged"):
        open_set(small)
    file.write_bytes(data[:1000])
    with pytest.raises(UnnoiseError, match="damaged"):
        open_set(small)


NO_NUMBERS = ['{"format": "x", "parquet_sha256": 3}', '{"format": Infinity, "parquet_sha256": 3}']


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1', *NO_NUMBERS, "[" * 100_000])
def test_a_damaged_manifest(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    (tmp_path / "pictures.parquet").touch()
    with pytest.raises(UnnoiseError, match="damaged"):
        open_set(tmp_path)
    with pytest.raises(UnnoiseError, match="holds something else"):
        manifest_at(tmp_path)


def test_a_changed_or_newer_manifest(small: Path) -> None:
    manifest = json.loads((small / "manifest.json").read_text("utf-8"))
    for change, match in (
        ({"sha256": "0" * 64}, "damaged"),
        ({"pictures": 1}, "damaged"),
        ({"format": 99}, "format 99"),
    ):
        (small / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(UnnoiseError, match=match):
            open_set(small)


def test_the_datasets_library_reads_it(folder: Path, emoji_set: PictureSet, tmp_path: Path, monkeypatch) -> None:
    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    datasets = pytest.importorskip("datasets")
    read = datasets.load_dataset(
        "parquet", data_files=str(folder / "pictures.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert len(read) == len(emoji_set)
    row = read[1234]
    assert row["captions"] == emoji_set.captions[1234]
    assert row["image"].size == (128, 128)
    ours = emoji_set.pictures([1234])[0].permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(row["image"].convert("RGB")), ours)


def test_other_sets_are_all_trained(tmp_path: Path) -> None:
    rows = []
    for index in range(3):
        file = io.BytesIO()
        Image.new("RGB", (32, 16), (index, 0, 0)).save(file, "PNG")
        rows.append(Row(f"{index}", file.getvalue(), f"{index}", [f"red {index}"], {"shade": index}, f"{index}", index))
    write_set(tmp_path / "mine", rows, {})
    mine = open_set(tmp_path / "mine")
    assert mine.pictures().shape == (3, 3, 16, 32)
    assert mine.pictures()[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert mine.attributes == [{"shade": 0}, {"shade": 1}, {"shade": 2}]
    assert mine.select("autoencoder") == mine.select("denoiser") == [0, 1, 2]
    assert mine.held_out("tier1", "test") == []


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def canvas(side: int) -> bytes:
    """A WebP picture that says of itself that it is so large, and has not a row."""
    size = (side - 1).to_bytes(3, "little")
    return b"RIFF" + (22).to_bytes(4, "little") + b"WEBPVP8X" + (10).to_bytes(4, "little") + bytes(4) + size + size


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (png(32, 16), ""),
        (png(16, 32), "of another size"),
        (png(32, 16)[:-20], "damaged"),
        (canvas(16_000), "too large"),
        (b"no picture", "not a picture"),
    ],
)
def test_pictures_of_a_stranger_s_set_are_looked_at_before_they_are_opened(
    second: bytes, said: str, tmp_path: Path
) -> None:
    """Its hashes are right: whoever made it made them too. The first case is the control."""
    rows = [Row(f"{k}", data, f"{k}", ["red"], {}, f"{k}", k) for k, data in enumerate((png(32, 16), second))]
    write_set(tmp_path / "mine", rows, {})
    mine = open_set(tmp_path / "mine")
    if not said:
        assert len(mine.pictures()) == 2
        return
    with pytest.raises(UnnoiseError, match=f"picture '1' of the set at .* is {said}"):
        mine.pictures()


def test_another_table_with_the_right_hash_is_damaged(small: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file, manifest = small / "pictures.parquet", json.loads((small / "manifest.json").read_text("utf-8"))
    table = pq.read_table(file)
    no_record = table.drop_columns(["image"]).append_column("image", pa.array([b"x"] * len(table)))
    no_captions = table.drop_columns(["captions"])
    for data in (b"PAR1 and no more", no_record, no_captions, table.select(["id"]), pa.table({"id": [1]})):
        if isinstance(data, bytes):
            file.write_bytes(data)
        else:
            pq.write_table(data, file)
        (small / "manifest.json").write_text(json.dumps(manifest | {"parquet_sha256": sha256(file)}))
        with pytest.raises(UnnoiseError, match="is damaged; remove the folder"):
            open_set(small)


def test_a_key_tells_all_apart() -> None:
    key = feature_key("a", {"size": 128, "scale": 2.0}, "w")
    assert key == feature_key("a", {"scale": 2.0, "size": 128}, "w")
    others = [
        feature_key("b", {"size": 128, "scale": 2.0}, "w"),
        feature_key("a", {"size": 64, "scale": 2.0}, "w"),
        feature_key("a", {"size": 128, "scale": 2.0}, "v"),
    ]
    assert len({key, *others}) == 4


def features() -> dict[str, torch.Tensor]:
    return {"latents": torch.arange(24.0).reshape(2, 3, 4).to(torch.bfloat16), "mask": torch.tensor([True, False])}


def test_features_are_kept(tmp_path: Path) -> None:
    key = feature_key("a", {}, "w")
    first = load_or_compute(tmp_path, key, features)
    again = load_or_compute(tmp_path, key, lambda: pytest.fail("computed again"))
    for name, tensor in features().items():
        assert torch.equal(first[name], tensor)
        assert torch.equal(again[name], tensor)
        assert again[name].dtype == tensor.dtype


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign"])
def test_damaged_features_are_computed_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    key = feature_key("a", {}, "w")
    load_or_compute(tmp_path, key, features)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[-3] ^= 4
        file.write_bytes(data)
    else:  # another key's file under this name
        load_or_compute(tmp_path / "other", feature_key("b", {}, "w"), features)
        (foreign,) = (tmp_path / "other").iterdir()
        file.write_bytes(foreign.read_bytes())
    with caplog.at_level(logging.WARNING):
        mended = load_or_compute(tmp_path, key, features)
    assert len(caplog.records) == 1
    assert "damaged" in caplog.text
    assert torch.equal(mended["latents"], features()["latents"])
    load_or_compute(tmp_path, key, lambda: pytest.fail("computed again"))


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unnoise.files.os.fsync", fail)
    found = load_or_compute(tmp_path, feature_key("a", {}, "w"), features)
    assert found.keys() == features().keys()
    assert "the disk is full" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_contact_sheet(tmp_path: Path) -> None:
    from PIL import Image

    contact_sheet(torch.zeros(5, 3, 16, 16, dtype=torch.uint8), tmp_path / "a.png", columns=4, titles=["a title"] * 5)
    with Image.open(tmp_path / "a.png") as page:
        assert page.size == (64, 60)


def test_verbs(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from unnoise.data import verbs

    monkeypatch.setattr("unnoise.data.emoji.sequences", lambda: ["\U0001f34e", "\U0001f34f"])
    verbs.emoji(tmp_path / "two")
    verbs.emoji(tmp_path / "two")
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("2 pictures") == 2
    assert said.count("already there") == 1
    verbs.show(small, sheet=tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()
    with pytest.raises(UnnoiseError, match="cannot write"):
        verbs.show(small, sheet=tmp_path / "nowhere/sheet.png")


def test_the_side_is_read_off_one_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture is decoded for it; the control decodes them all."""
    from training.small import picture_set
    from unnoise.recipes.latent import check_size

    pictures, loaded = open_set(picture_set(tmp_path / "set")), []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: loaded.append(1) or load(self))
    check_size(pictures)
    assert (pictures.side, loaded) == (128, [])
    assert pictures.pictures([0]).shape[-1] == 128
    assert len(loaded) >= len(pictures), "control"


@pytest.mark.parametrize("recipe", ["emoji-flow", "emoji-ddpm", "folder"])
def test_a_recipe_opens_its_set_once(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import small

    small.picture_set(tmp_path / "pictures")
    small.encoders(tmp_path / "encoders")
    opened: list[Path] = []
    make = PictureSet.__init__
    monkeypatch.setattr(
        PictureSet, "__init__", lambda self, path, *more: opened.append(path) or make(self, path, *more)
    )
    small.build(recipe, tmp_path)
    assert opened == [tmp_path / "pictures"]
