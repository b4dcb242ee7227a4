"""The emoji set: how many, how they look, how they are split, and that a build is whole and repeatable."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch

from unnoise.data import splits, write
from unnoise.data.attributes import concept_of, family_of
from unnoise.data.emoji import build_emoji
from unnoise.data.font import _names, check_font, find_font
from unnoise.data.render import Renderer, sequences
from unnoise.data.store import PictureSet, open_set
from unnoise.errors import UnnoiseError

from .conftest import few


def test_counts_and_record(emoji_set: PictureSet) -> None:
    assert len(emoji_set) > 3700
    assert len(emoji_set) + emoji_set.manifest["skipped"] == len(sequences())
    font = emoji_set.manifest["origin"]["font"]
    assert "Noto Color Emoji" in font["family"]
    assert len(font["sha256"]) == 64
    assert "Version" in font["version"]
    assert "Open Font License" in font["licence"]
    assert len(set(emoji_set.ids)) == len(emoji_set)


def test_pictures_have_white_borders_and_ink(emoji_set: PictureSet) -> None:
    pixels = emoji_set.pictures()
    assert pixels.dtype == torch.uint8
    assert pixels.shape[1:] == (3, 128, 128)
    corners = pixels[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).all(dim=(1, 2)).float().mean() > 0.9
    ink = (pixels < 250).any(1).float().mean((1, 2))
    assert ink.min() > 0.01
    assert torch.equal(emoji_set.pictures([5, 3]), pixels[[5, 3]])


def test_what_the_font_lacks_is_left_out() -> None:
    renderer = Renderer(find_font())
    assert renderer.draw("\U0001f34e") is not None
    assert renderer.draw("\U0001f34e\u200d\U0001f692") is None  # no ligature: two pictures side by side
    assert renderer.draw("\U0010fffe") is None  # a missing glyph
    assert renderer.draw("\u200d") is None  # nothing


def test_split_shares(emoji_set: PictureSet) -> None:
    shares = {tier: n / len(emoji_set) for tier, n in Counter(emoji_set.tier).items()}
    assert shares["tier1"] == pytest.approx(0.08, abs=0.01)
    assert shares["tier2"] == pytest.approx(0.03, abs=0.005)
    assert shares["autoencoder"] == pytest.approx(0.02, abs=0.005)
    for tier in ("tier1", "tier2", "autoencoder"):
        halves = [len(emoji_set.held_out(tier, part)) for part in ("validation", "test")]
        assert sum(halves) == emoji_set.tier.count(tier)
        assert min(halves) > 0.4 * sum(halves)


def test_who_trains_on_what(emoji_set: PictureSet) -> None:
    autoencoder, denoiser = (set(emoji_set.select(by)) for by in ("autoencoder", "denoiser"))
    assert autoencoder < denoiser
    assert {emoji_set.tier[i] for i in denoiser - autoencoder} == {"autoencoder"}
    held = {i for t in ("tier1", "tier2") for p in ("validation", "test") for i in emoji_set.held_out(t, p)}
    assert not held & denoiser
    assert held | denoiser == set(range(len(emoji_set)))
    with pytest.raises(ValueError, match="trained_by"):
        emoji_set.select("judge")  # type: ignore[arg-type]


def test_tiers_keep_their_promises(emoji_set: PictureSet) -> None:
    tiers, members = emoji_set.tier, defaultdict(list)
    for index, family in enumerate(emoji_set.family):
        members[family].append(index)
    concepts = defaultdict(set)
    for index in emoji_set.select("denoiser"):
        concepts[concept_of(emoji_set.ids[index])].add(emoji_set.family[index])
    for index, tier in enumerate(tiers):
        family = members[emoji_set.family[index]]
        if tier == "tier1":  # another tone of the same is trained
            assert emoji_set.attributes[index]["tones"]
            assert any(tiers[i] == "train" and emoji_set.attributes[i]["tones"] for i in family)
        if tier == "tier2":  # no tone of it is trained, but its role is, with another person
            assert {tiers[i] for i in family} == {"tier2"}
            assert len({emoji_set.part[i] for i in family}) == 1
            assert concepts[concept_of(emoji_set.ids[index])]
        if tier == "autoencoder":
            assert len(family) == 1


def test_identical_pictures_are_trained_together(emoji_set: PictureSet) -> None:
    pixels = emoji_set.pictures().flatten(1)
    groups = defaultdict(list)
    for index, group in enumerate(emoji_set.identical):
        groups[group].append(index)
    several = [g for g in groups.values() if len(g) > 1]
    assert sum(map(len, several)) == 29
    for group in several:
        assert all(torch.equal(pixels[group[0]], pixels[i]) for i in group)
        assert {emoji_set.tier[i] for i in group} == {"train"}


def test_mirror_images_share_a_side(emoji_set: PictureSet) -> None:
    where = dict(zip(emoji_set.ids, zip(emoji_set.tier, emoji_set.part, strict=True), strict=True))
    twins = [i for i in where if i.endswith(splits.FACING_RIGHT)]
    assert twins
    for twin in twins:
        other = twin.removesuffix(splits.FACING_RIGHT)
        assert where[twin] == where[other]


def test_families_join_all_tones() -> None:
    assert family_of("1f469-1f3ff-200d-1f692") == family_of("1f469-200d-1f692")
    assert family_of("1f469-1f3fb-200d-1f91d-200d-1f468-1f3ff") == family_of("1f46b") == "1f46b"
    assert family_of("1f575-1f3fb-200d-2640-fe0f") == family_of("1f575-fe0f-200d-2640-fe0f")
    assert concept_of("1f469-1f3ff-200d-1f692") == concept_of("1f9d1-200d-1f692")
    assert concept_of("1f46e-200d-2640-fe0f") == concept_of("1f46e-1f3fb") == "1f46e"
    assert concept_of("1f34e") is None
    assert concept_of("1f468-1f3fb") is None


def test_two_builds_are_equal_and_a_set_is_left_alone(tmp_path: Path, emoji_set: PictureSet) -> None:
    one, two = (build_emoji(tmp_path / name, only=few) for name in "ab")
    assert one == two
    assert (tmp_path / "a/pictures.parquet").read_bytes() == (tmp_path / "b/pictures.parquet").read_bytes()
    before = (tmp_path / "a/pictures.parquet").stat().st_mtime_ns
    assert build_emoji(tmp_path / "a", only=few) == one
    assert (tmp_path / "a/pictures.parquet").stat().st_mtime_ns == before
    part = open_set(tmp_path / "a")  # toned pictures are split as in the whole set
    whole = dict(zip(emoji_set.ids, emoji_set.tier, strict=True))
    assert [part.tier[i] for i, a in enumerate(part.attributes) if a["tones"]] == [
        whole[part.ids[i]] for i, a in enumerate(part.attributes) if a["tones"]
    ]


def test_a_folder_in_use_is_refused(tmp_path: Path, small: Path) -> None:
    with pytest.raises(UnnoiseError, match="from another font or other versions"):
        build_emoji(small, only=lambda s: s == "\U0001f34e")
    (small / "pictures.parquet").write_bytes(b"PAR1")
    with pytest.raises(UnnoiseError, match="damaged"):
        build_emoji(small, only=few)
    tmp_path = tmp_path / "mine"
    tmp_path.mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UnnoiseError, match="holds something else"):
        build_emoji(tmp_path, only=few)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("victim", ["_write_parquet", "_manifest", "write_json"])
def test_a_failing_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, victim, fail)
    with pytest.raises(UnnoiseError, match="the disk is full"):
        build_emoji(tmp_path / "set", only=lambda s: s == "\U0001f34e")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnnoiseError, match="no font file"):
        build_emoji(tmp_path / "set", font=tmp_path / "none.ttf")
    monkeypatch.setattr("unnoise.data.font.USUAL_PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))  # no fontconfig either
    with pytest.raises(UnnoiseError, match="apt-get install fonts-noto-color-emoji") as caught:
        build_emoji(tmp_path / "set")
    assert "\n" not in str(caught.value)


def test_a_font_of_another_kind(tmp_path: Path) -> None:
    import matplotlib

    outline = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    with pytest.raises(UnnoiseError, match="has no colour glyphs, not with CBDT bitmaps"):
        build_emoji(tmp_path / "set", font=outline)
    renamed = tmp_path / "layers.ttf"
    renamed.write_bytes(find_font().read_bytes().replace(b"CBDT", b"COLR", 1))
    with pytest.raises(UnnoiseError, match="COLR outlines"):
        check_font(renamed)
    for content in (b"", b"not a font at all", b"\0\1\0\0\0\xff"):
        renamed.write_bytes(content)
        with pytest.raises(UnnoiseError, match="font"):
            check_font(renamed)


@pytest.mark.parametrize("table", [b"", b"\0\0\0\1\0\x12", b"\0\0\xff\xff\0\6" + bytes(60)])
def test_a_damaged_table_of_names_says_nothing(table: bytes) -> None:
    assert _names(table, {"name": (0, len(table))}) == {}


def test_a_pillow_without_raqm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda feature: False)
    with pytest.raises(UnnoiseError, match="raqm"):
        build_emoji(tmp_path / "set")


def test_the_manifest_is_readable(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["format"] == write.FORMAT
    assert sum(manifest["splits"].values()) == manifest["pictures"]
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "pictures.parquet"]
