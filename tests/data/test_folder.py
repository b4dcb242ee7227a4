"""A person's own folder becomes a set: whole, the same each time, split without leaks, and fit to be trained on."""

from __future__ import annotations

import inspect
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import tokenizer
from unnoise.cli.main import main
from unnoise.data import folder, verbs
from unnoise.data.feeds import CaptionFeed, CropFeed, rows_of, weights_of
from unnoise.data.folder import FolderSettings, build_folder, fraction
from unnoise.data.sheet import fitting
from unnoise.data.store import PictureSet, open_set
from unnoise.errors import UnnoiseError

from .folder_fuzz import PNG, fill, picture, tar

COUNT = 40


def noise(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures and their captions, two copies of each of the first ten, five broken files; read only."""
    root = tmp_path_factory.mktemp("mine") / "pictures"
    for seed in range(COUNT):
        fill(root, {f"{seed:02}.png": saved(noise(seed)), f"{seed:02}.txt": f"noise number {seed}\nnoise"})
    for seed in range(10):
        fill(root, {f"copies/{seed}.png": saved(noise(seed), compress_level=0), f"copies/{seed}.txt": "a copy"})
        fill(root, {f"copies/{seed}.jpg": saved(noise(seed), "JPEG", quality=95, subsampling=0)})
    fill(root, {"cut.png": PNG[:-20], "a.gif": b"GIF89a", "small.png": picture(size=(8, 8)), "lonely.txt": "x"})
    return fill(root, {"mute.png": saved(noise(99)), "mute.txt": " "})


@pytest.fixture(scope="module")
def built(mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sets") / "mine"
    build_folder(mine, out, FolderSettings(size=32))
    return out


@pytest.fixture
def pictures(built: Path) -> PictureSet:
    return open_set(built)


def test_what_is_in_it(built: Path, pictures: PictureSet) -> None:
    assert len(pictures) == COUNT + 20
    assert pictures.pictures().shape == (COUNT + 20, 3, 32, 32)
    at = pictures.ids.index("03.png")
    assert pictures.captions[at] == ["noise number 3", "noise"]
    assert pictures.attributes[at] == {"width": 40, "height": 30}
    exact = np.asarray(noise(3).resize((32, 32), Image.Resampling.LANCZOS, box=(5, 0, 35, 30)))
    assert torch.equal(pictures.pictures([at])[0].permute(1, 2, 0), torch.from_numpy(exact.copy()))
    report = json.loads((built / "report.json").read_text())
    assert [entry["name"] for entry in report["left_out"]] == [
        "lonely.txt",
        "a.gif",
        "cut.png",
        "mute.png",
        "small.png",
    ]
    assert pictures.manifest["left_out"] == 5
    assert pictures.manifest["enlarged"] == COUNT + 20
    assert ["00.png", "copies/0.png"] in report["identical"]
    assert len(report["identical"]) == len(report["near"]) == 10
    assert report["near"][0] == ["00.png", "copies/0.jpg", "copies/0.png"]
    assert report["without_caption"] == []


def test_duplicates_share_a_side_and_a_weight(pictures: PictureSet) -> None:
    sides: dict[str, set[str]] = {}
    for family, tier in zip(pictures.family, pictures.tier, strict=True):
        sides.setdefault(family, set()).add(tier)
    assert len(sides) == COUNT
    assert all(len(side) == 1 for side in sides.values())
    kept = pictures.held_out("tier1", "validation")
    assert sorted([*kept, *pictures.select("denoiser")]) == list(range(len(pictures)))
    assert 0 < len(kept) < len(pictures) / 3
    weights = weights_of(pictures, list(range(len(pictures))))
    assert weights[pictures.ids.index("05.png")] == pytest.approx(3**-0.5)
    assert weights[pictures.ids.index("15.png")] == 1


def test_without_grouping_duplicates_would_leak(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: split by content alone, a picture and its copy land on both sides."""
    monkeypatch.setattr(folder, "near_groups", lambda thumbnails, _: list(range(len(thumbnails))))
    build_folder(mine, tmp_path / "set", FolderSettings(size=32, keep_back=0.5))
    leaky = open_set(tmp_path / "set")
    tiers = dict(zip(leaky.ids, leaky.tier, strict=True))
    assert any(tiers[f"{i:02}.png"] != tiers[f"copies/{i}.png"] for i in range(10))


def test_the_split_is_of_the_content_alone(mine: Path, tmp_path: Path, pictures: PictureSet) -> None:
    """Another size, other names and fewer pictures move none to the other side."""
    for seed in range(0, COUNT, 2):
        fill(tmp_path / "few", {f"renamed {seed}.png": (mine / f"{seed:02}.png").read_bytes()})
    build_folder(tmp_path / "few", tmp_path / "set", FolderSettings(size=16, fit="pad"))
    few, before = open_set(tmp_path / "set"), dict(zip(pictures.ids, pictures.tier, strict=True))
    for name, tier in zip(few.ids, few.tier, strict=True):
        seed = int(name.split()[1].split(".")[0])
        assert seed < 10 or tier == before[f"{seed:02}.png"]  # the first ten have copies here, which decide with them


def test_the_share_that_is_kept_back() -> None:
    held = np.mean([fraction(f"{i}") < 0.1 for i in range(20_000)])
    assert held == pytest.approx(0.1, abs=0.006)  # three standard deviations


def test_all_of_it_or_none(tmp_path: Path) -> None:
    fill(tmp_path, {"in/a.png": PNG})
    build_folder(tmp_path / "in", tmp_path / "none", FolderSettings(keep_back=0.0))
    assert open_set(tmp_path / "none").tier == ["train"]
    with pytest.raises(
        UnnoiseError, match=r"--keep-back 0.999\d* keeps all of the one picture and .* none to train on"
    ):
        build_folder(tmp_path / "in", tmp_path / "all", FolderSettings(keep_back=0.999999))
    fill(tmp_path, {"in/b.png": PNG, "in/c.png": PNG})
    with pytest.raises(
        UnnoiseError, match=r"keeps all of 3 pictures, which are nearly equal, and .*; choose 0, a smaller"
    ):
        build_folder(tmp_path / "in", tmp_path / "all", FolderSettings(keep_back=0.999999))
    assert not (tmp_path / "all").exists()


def test_a_share_that_chance_leaves_empty_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, {"in/a.png": PNG, "in/b.png": PNG, "in/c.png": saved(noise(3))})
    said = "by chance --keep-back 1e-06 took none of 3 pictures, which are 2 when nearly equal ones count as one"
    for share, there in (("1e-6", True), ("0", False)):
        assert main(["data", "folder", str(tmp_path / "in"), "--out", str(tmp_path / share), "--keep-back", share]) == 0
        assert (said in capsys.readouterr().out) == there


def test_the_same_folder_gives_the_same_set(mine: Path, built: Path, tmp_path: Path) -> None:
    again = build_folder(mine, tmp_path / "again", FolderSettings(size=32))
    assert again == json.loads((built / "manifest.json").read_text("utf-8"))
    assert (tmp_path / "again/report.json").read_bytes() == (built / "report.json").read_bytes()
    before = (built / "pictures.parquet").stat().st_mtime_ns
    assert build_folder(mine, built, FolderSettings(size=32)) == again
    assert (built / "pictures.parquet").stat().st_mtime_ns == before
    with pytest.raises(UnnoiseError, match="holds another picture set, from other pictures or with other settings"):
        build_folder(mine, built, FolderSettings(size=32, fit="pad"))


def test_a_set_is_read_from_a_set(tmp_path: Path) -> None:
    fill(tmp_path, {"in/a.png": PNG, "in/b.png": saved(noise(1)), "in/b.txt": "noise\nmore"})
    build_folder(tmp_path / "in", tmp_path / "one", FolderSettings(size=16, keep_back=0.0))
    build_folder(tmp_path / "one/pictures.parquet", tmp_path / "two", FolderSettings(size=16, keep_back=0.0))
    one, two = open_set(tmp_path / "one"), open_set(tmp_path / "two")
    assert two.ids == ["pictures.parquet#0", "pictures.parquet#1"]
    assert torch.equal(one.pictures(), two.pictures())
    assert one.captions == two.captions == [[""], ["noise", "more"]]


@pytest.mark.parametrize("victim", ["unnoise.data.write.write_json", "unnoise.data.folder.thumbnail"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_half_written(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(victim, fail)
    status = main(["data", "folder", str(mine), "--out", str(tmp_path / "set"), "--size", "16"])
    assert status == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert list(tmp_path.iterdir()) == []


MISTAKES: list[tuple[list[str], str]] = [
    (["nowhere"], "there is nothing at nowhere; name a folder of pictures"),
    (["empty"], "no picture at empty can be used; beside lie 1 hidden (such as .hidden); name a folder with PNG"),
    (["bad"], "no picture at bad can be used, the first because of: a.png: not a picture, it is GIF"),
    (["bad/a.png"], "bad/a.png is no folder"),
    (["good", "--out", "good/set"], "good/set is inside good, and would be imported next time"),
    (["good", "--out", "file"], "file is a file"),
    (["good", "--out", "bad"], "bad holds something else"),
    (["good", "--size", "100"], "--size 100 cannot be made"),
    (["good", "--keep-back", "1"], "--keep-back 1 is no share"),
    (["good", "--keep-back", "nan"], "--keep-back nan is no share"),
    (["good", "--near", "-1"], "--near -1 is no difference"),
    (["good", "--fit", "squash"], "--fit cannot be 'squash'"),
    (["good", "--background", "x"], "--background 'x' is no colour"),
    (["d.toml"], "has no setting 'resolutoin'; did you mean resolution?"),
    ([], "the path is missing"),
]


@pytest.mark.parametrize(("args", "said"), MISTAKES, ids=lambda value: str(value)[:30])
def test_mistakes(
    args: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, {"good/a.png": PNG, "bad/a.png": b"GIF8", "file": b"", "empty/.hidden": b""})
    fill(tmp_path, {"d.toml": "[general]\nresolutoin = 8\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'good'"})
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["data", "folder", *args]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("unnoise: ")
    assert err.count("\n") == 1
    assert said in err
    assert sorted(tmp_path.rglob("*")) == before


def test_from_the_command_line(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(mine, tmp_path / "mine")
    fill(tmp_path / "mine", {"bare\x1b[2J.png": saved(noise(77))})
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["data", "folder", "mine", "--size", "16"]) == 0
    said = capsys.readouterr().out
    assert said.count("already there") == 1
    assert f"data/mine: {COUNT + 21} pictures of 16 x 16, 100 captions, " in said
    assert "left out, empty caption: 1: mute.png" in said
    assert "equal pictures: 10: 00.png = copies/0.png" in said
    assert "without a caption: 1: bare\\x1b[2J.png" in said
    assert "\x1b" not in said
    assert main(["data", "show", "--path", "data/mine"]) == 0
    shown = capsys.readouterr().out
    for row in ("30 to 30 pixels", "61 wide, 0 high", "without a caption", "10, 31 single", "left out, damaged: 1"):
        assert row in shown
    with Image.open(tmp_path / "data/mine-sheet.png") as sheet:
        assert sheet.width == 10 * 128
    given = inspect.signature(verbs.folder).parameters
    assert {name: given[name].default for name in vars(FolderSettings())} == vars(FolderSettings())


def test_a_toml_decides_size_and_repeats(tmp_path: Path) -> None:
    settings = (
        "[[datasets]]\nresolution = 24\n[[datasets.subsets]]\nimage_dir = 'a'\nnum_repeats = 3\nflip_aug = true\n"
    )
    fill(tmp_path, {"d.toml": settings + "[[datasets.subsets]]\nimage_dir = 'b'", "a/1.png": PNG, "b/2.png": picture()})
    fill(tmp_path, {"b/2.png": picture(colour="blue")})
    build_folder(tmp_path / "d.toml", tmp_path / "set", FolderSettings(keep_back=0.0))
    pictures = open_set(tmp_path / "set")
    assert pictures.pictures().shape[-1] == 24
    assert pictures.repeats == [3, 1]
    assert weights_of(pictures, [1, 0]).tolist() == [1.0, 3.0]
    assert CropFeed(pictures, [0, 1], crop=8).weights.tolist() == [3.0, 1.0]
    assert json.loads((tmp_path / "set/report.json").read_text())["settings_left_to_training"] == ["flip_aug"]
    build_folder(tmp_path / "d.toml", tmp_path / "other", FolderSettings(size=16, keep_back=0.0))
    assert open_set(tmp_path / "other").pictures().shape[-1] == 16


def test_a_set_without_captions_is_trained_with_the_empty_prompt(tmp_path: Path) -> None:
    fill(tmp_path, {"a.tar": tar({f"{i}.png": saved(noise(i)) for i in range(4)} | {"4.png": PNG, "4.txt": b"red"})})
    manifest = build_folder(tmp_path / "a.tar", tmp_path / "set", FolderSettings(size=16, keep_back=0.0))
    pictures = open_set(tmp_path / "set")
    assert manifest["captions"] == 1
    assert pictures.captions == [[""]] * 4 + [["red"]]
    words = tokenizer()
    feed = CaptionFeed(pictures, list(range(5)), words)
    ids = feed.captions(torch.arange(5), torch.full((5,), 0.99))
    assert ids[:, 1].tolist() == [words.end] * 4 + [words.ids("red")[0]]


# captions that are longer than a text tower reads


def test_long_captions_lose_their_ends_and_the_note_says_how_many(caplog: pytest.LogCaptureFixture) -> None:
    words = tokenizer(8)
    assert torch.equal(rows_of(["red apple", "a dog"], words), words(["red apple", "a dog"]))
    assert caplog.records == []
    rows = rows_of(["red apple", "red apple and blue heart and a dog and a cat", "\u82f9\u679c" * 9], words)
    assert torch.equal(rows, words(["red apple", "red apple and blue heart and", "\u82f9"]))
    assert "2 of 3 captions are longer than the 6 tokens that the text tower reads" in caplog.text
    assert (
        "1 after a word or tag and 1 inside of one; the first is read as 'red apple and blue heart and'" in caplog.text
    )


@pytest.mark.parametrize("line", ["", "red", "x" * 17, "x" * 9000, "iiiiiiiiiiiwwwww" * 900])
def test_a_title_is_cut_to_its_width_by_few_looks(line: str) -> None:
    """Each look lays out the whole text: cut letter by letter, three captions of 2,000 characters took 23 seconds."""
    seen: list[str] = []

    def length(text: str) -> float:
        seen.append(text)
        return sum(3.0 if c == "i" else 9.5 for c in text)

    kept = fitting(line, 124, length)
    assert line.startswith(kept)
    assert length(kept) <= 124
    assert kept == line or length(line[: len(kept) + 1]) > 124
    assert len(seen) < 20
    assert sum(map(len, seen)) < 5000 + len(kept)
