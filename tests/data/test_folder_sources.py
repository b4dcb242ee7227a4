"""Folders, metadata and Parquet: what each reader takes, and that nothing leads out of its folder."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from unnoise.data import read_parquet as parquets
from unnoise.data.intake import LeftOut, Quarantine
from unnoise.data.read_folder import read_folder
from unnoise.errors import UnnoiseError

from .folder_fuzz import PNG, fill, parquet, picture, read, tar

# folders


def test_captions_come_from_the_text_of_the_same_stem(tmp_path: Path) -> None:
    fill(tmp_path, {"a.png": PNG, "a.txt": "red\nvery red\n", "b/c.d.JPG": picture("JPEG"), "b/c.d.TXT": "blue"})
    fill(tmp_path, {"b/silent.webp": picture("WEBP"), ".hidden/x.png": PNG, ".DS_Store": b"x", "noending": PNG})
    said, left = read(tmp_path)
    assert said == {"a.png": ("red", "very red"), "noending": (), "b/c.d.JPG": ("blue",), "b/silent.webp": ()}
    assert left == {}


def test_metadata_comes_before_text(tmp_path: Path) -> None:
    rows = ['{"file_name": "a.png", "text": "from metadata"}', "", '{"file_name": "./c/d.png", "text": ["x", "y"]}']
    rows += ['{"file_name": "c/d.png", "text": "z", "more": 1}', '{"file_name": "e.png", "text": ""}']
    fill(tmp_path, {"s/metadata.jsonl": "\n".join(rows), "s/a.png": PNG, "s/a.txt": "from text", "s/c/d.png": PNG})
    fill(tmp_path, {"s/e.png": PNG, "s/f.png": PNG, "s/f.txt": "from text"})
    said, left = read(tmp_path)
    assert said == {"s/a.png": ("from metadata",), "s/c/d.png": ("x", "y", "z"), "s/f.png": ("from text",)}
    assert list(left) == ["s/e.png"]
    assert left["s/e.png"].startswith("empty caption")


def test_bad_lines_of_metadata_are_named(tmp_path: Path) -> None:
    rows = ["no json", "[]", '{"file_name": 3, "text": "x"}', '{"file_name": "a.png"}', "[" * 100_000]
    rows += [f'{{"file_name": "{name}", "text": "x"}}' for name in ("gone.png", "../a.png", "/etc/passwd", "c:\\\\x")]
    fill(tmp_path / "s", {"metadata.jsonl": "\n".join([*rows, '{"file_name": "a.png", "text": [1]}']), "a.png": PNG})
    said, left = read(tmp_path / "s")
    assert said == {}
    kinds = [left[f"metadata.jsonl:{line}"].split(":")[0] for line in range(1, len(rows) + 1)]
    assert kinds == ["bad metadata"] * 5 + ["no picture"] + ["unsafe path"] * 3
    assert left["a.png"] == "bad caption: it is no text"


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    fill(tmp_path, {"notes.md": "hi", "lonely.txt": "x", "a.gif": b"GIF89a", "b.png": b"GIF89a", "c.png": b""})
    fill(tmp_path, {"latin.png": PNG, "latin.txt": "grün".encode("latin-1"), "d.jpg": PNG})
    os.mkfifo(tmp_path / "pipe.png")
    said, left = read(tmp_path)
    assert said == {"d.jpg": ()}  # a PNG by another name is a PNG
    assert left == {
        "lonely.txt": "no picture: a caption, and no picture of its name",
        "a.gif": "not a picture: it is GIF, not PNG, JPEG or WebP",
        "b.png": "not a picture: it is GIF, not PNG, JPEG or WebP",
        "c.png": "not a picture: it is empty",
        "latin.png": "bad caption: it is not UTF-8; save it as UTF-8",
        "pipe.png": "unreadable: it is no regular file",
    }


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.write(PNG)
        file.truncate(2**40)  # holes: it takes no disk
    assert "too large: 1,099,511,627,776 bytes" in read(tmp_path)[1]["large.png"]


def test_links_stay_in_the_folder(tmp_path: Path) -> None:
    fill(tmp_path, {"out/secret.png": PNG, "out/secret.txt": "secret", "in/a.png": PNG, "in/b.png": PNG})
    root = tmp_path / "in"
    (root / "in.png").symlink_to(root / "a.png")
    (root / "out.png").symlink_to(tmp_path / "out/secret.png")
    (root / "b.txt").symlink_to(tmp_path / "out/secret.txt")
    (root / "folder").symlink_to(tmp_path / "out")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "nowhere.png").symlink_to(root / "nothing")
    said, left = read(root)
    assert said == {"a.png": (), "b.png": (), "in.png": ()}
    assert {name: why.split(":")[0] for name, why in left.items()} == {
        "out.png": "unsafe path",
        "b.txt": "unsafe path",
        "folder": "a link to a folder",
        "loop.png": "unreadable",
        "nowhere.png": "unreadable",
    }


def test_odd_names_are_names(tmp_path: Path) -> None:
    odd = [b"\xff\xfe.png", "日本 🍎.png".encode(), b"a\nb.png", b"[x]{y}?*.png"]
    for name in odd:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).write_bytes(PNG)
    assert len(read(tmp_path)[0]) == len(odd)


def test_other_files_are_told_what_to_be(tmp_path: Path) -> None:
    fill(tmp_path, {"a.zip": b"PK\3\4"})
    with pytest.raises(UnnoiseError, match=r"a.zip is no folder; name a folder, or a file that ends in .toml"):
        read(tmp_path / "a.zip")


# Parquet


def test_parquet_as_others_write_it(tmp_path: Path) -> None:
    rows = [{"bytes": PNG, "path": "a.png"}, {"bytes": None, "path": "https://example.org/a.png"}, None]
    fill(tmp_path, {"hf.parquet": parquet({"label": [1, 2, 3], "image": rows, "text": ["red", "x", "y"]})})
    fill(tmp_path, {"raw.parquet": parquet({"jpg": [PNG, PNG, b"GIF8"], "caption": [None, "", "x"]})})
    fill(tmp_path, {"many.parquet": parquet({"img": [PNG, PNG], "captions": [["a", "b"], []]})})
    fill(
        tmp_path, {"mute.parquet": parquet({"png": [PNG], "text": [7]}), "none.parquet": parquet({"image": ["a.png"]})}
    )
    said, left = read(tmp_path)
    assert said == {
        "hf.parquet#0": ("red",),
        "raw.parquet#0": (),
        "many.parquet#0": ("a", "b"),
        "many.parquet#1": (),
        "mute.parquet#0": (),  # a column of numbers holds no captions
    }
    assert {name: why.split(":")[0] for name, why in left.items()} == {
        "hf.parquet#1": "not a picture",
        "hf.parquet#2": "not a picture",
        "raw.parquet#1": "empty caption",
        "raw.parquet#2": "not a picture",
        "none.parquet": "no pictures",
    }


def test_what_the_datasets_library_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    made = datasets.Dataset.from_dict({"image": [{"bytes": PNG, "path": None}], "text": ["red"]}, features=features)
    made.to_parquet(str(tmp_path / "theirs.parquet"))
    assert read(tmp_path / "theirs.parquet") == ({"theirs.parquet#0": ("red",)}, {})


def test_damaged_parquet_is_named_and_what_is_whole_is_kept(tmp_path: Path) -> None:
    plain = {"write_page_checksum": True, "compression": "none", "use_dictionary": False}
    data = parquet({"png": [PNG + bytes([i]) * 400 for i in range(64)]}, row_group_size=16, **plain)
    hurt = bytearray(data)
    hurt[data.index(PNG + bytes([40]) * 100) + 80] ^= 1  # in the third row group
    fill(tmp_path, {"a.parquet": bytes(hurt), "b.parquet": data[:-9], "c.parquet": b"PAR1"})
    said, left = read(tmp_path)
    assert len(said) == 32
    assert left["a.parquet"].startswith("damaged: 32 rows from row 32 on")
    assert all(left[name].startswith("damaged: no whole Parquet file") for name in ("b.parquet", "c.parquet"))


def test_a_row_group_that_unpacks_too_far_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"a.parquet": parquet({"png": [b"\0" * 2**20] * 8}, compression="zstd", use_dictionary=False)})
    assert (tmp_path / "a.parquet").stat().st_size < 2**16
    monkeypatch.setattr(parquets, "MAX_GROUP", 2**22)
    monkeypatch.setattr(parquets.Item, "__init__", lambda *_: pytest.fail("a row was read"))
    assert "too large: row group 0 unpacks to 8,3" in read(tmp_path)[1]["a.parquet"]


# a Parquet file of one row, a bit of whose statistics is flipped: compressed, in base 85
FLIPPED = (
    "c-l=+u};G<5WNIsb;#1emMwY6(ukog6hsHqfpZlELI@M7Vh&Lh7}|yuNIs{Z%Gs$XPx9UA`QAJGEM_wfTyQbwAr*`>J%_WPlR-Be"
    "0zl|a5K!#+sTyB{WV_<MT<1Il9*vAVsW%mfP-&$T&^%Hj2FkOXXkmp-28(}|O4Ar1^@2o9C4K_6g~>ozx|I=T+4Jj7KSl0?bB8N*"
    "c)=czh%K55?+`0oR-Q8k@yQiS#0O6tGa+?hb*NTONBVo`<9*G+8Pn8vn(9x~!&#g5ZC$w5^!OA+ka3+ipWo%zq^Rpj-Za}b{wbT?"
    "$95B6&ZigCnbMj*c}rWgwC`WS>rQ3"
)


def test_damaged_statistics_do_not_end_the_process(tmp_path: Path) -> None:
    """pyarrow 26 throws through Python, which ends it, when it is asked for the record of such a column."""
    fill(tmp_path, {"a.parquet": zlib.decompress(base64.b85decode(FLIPPED))})
    code = (
        "import sys\nfrom pathlib import Path\nfrom unnoise.data.intake import Quarantine\n"
        "from unnoise.data.read_parquet import read_parquet\naside = Quarantine()\n"
        "print(len(list(read_parquet(Path(sys.argv[1]), 'a', aside).items)), len(aside.entries))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "0 1\n"), done.stderr


def test_text_that_is_none_is_put_aside() -> None:
    wrong = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    with pytest.raises(LeftOut, match="bad caption: it is not UTF-8"):
        parquets.captions_in_cell("text", wrong[0])


def test_folders_within_folders_hold_sets(tmp_path: Path) -> None:
    fill(tmp_path, {"a/x.tar": tar({"one.png": PNG}), "b/y.parquet": parquet({"png": [PNG]}), "z.png": PNG})
    source = read_folder(tmp_path.resolve(), Quarantine())
    assert source.num_items == 3
    assert [item.name for item in source.items] == ["z.png", "a/x.tar#one", "b/y.parquet#0"]


# the defences: each put out of action lets its attack through


def follow(root: Path, name: str) -> Path:
    """Where a name leads, wherever that is."""
    return Path(os.path.realpath(root / name))


DEFENCES: dict[str, tuple[Callable[[Path], Any], str, Callable[..., Any]]] = {
    "links": (test_links_stay_in_the_folder, "unnoise.data.read_folder.inside", follow),
    "names": (test_bad_lines_of_metadata_are_named, "unnoise.data.read_metadata.inside", follow),
    "kinds": (test_what_is_no_picture_is_named, "unnoise.data.intake.check_magic", lambda _: None),
}


@pytest.mark.parametrize(("test", "place", "without"), DEFENCES.values(), ids=DEFENCES)
def test_without_its_defence_a_test_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: Callable[[Path], Any], place: str, without: Any
) -> None:
    monkeypatch.setattr(place, without)
    with pytest.raises((AssertionError, KeyError)):
        test(tmp_path)
