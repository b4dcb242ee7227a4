"""WebDataset tars: what is taken, what is named, and that nothing in one is run, unpacked or lost in silence."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unnoise.data import read_tar as tars
from weights import hostile

from .folder_fuzz import PNG, fill, picture, read, tar


def test_tars_as_webdataset_writes_them(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "a.tar"), encoder=False) as writer:
        writer.write({"__key__": "x/one", "png": PNG, "txt": b"red\nvery red", "cls": b"3"})
        writer.write({"__key__": "x/two", "JPG": picture("JPEG"), "json": b'{"caption": "blue"}'})
        writer.write({"__key__": "y/two", "webp": picture("WEBP"), "json": b'{"width": 3}'})
        writer.write({"__key__": "sgm", "image.png": PNG, "mask.bin": b"x"})
    said, left = read(tmp_path)
    assert said == {
        "a.tar#x/one": ("red", "very red"),
        "a.tar#x/two": ("blue",),
        "a.tar#y/two": (),
        "a.tar#sgm.image": (),
    }
    assert left == {}


def test_odd_samples_are_named(tmp_path: Path) -> None:
    members = {"one.txt": b"x", "two.png": PNG, "two.jpg": PNG, "three.png": b"GIF8", "four.png": PNG, "four.txt": b""}
    members |= {"five.png": PNG, "five.json": b"{", "noending": PNG, "six.png": PNG}
    fill(tmp_path, {"a.tar": tar(members)})
    said, left = read(tmp_path)
    assert said == {"a.tar#six": ()}
    assert {name.removeprefix("a.tar#"): why.split(":")[0] for name, why in left.items()} == {
        "one.txt": "no picture",
        "two": "several pictures",
        "three": "not a picture",
        "four": "empty caption",
        "five": "bad metadata",
    }


def special(name: str, kind: bytes, **more: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in more.items():
        setattr(member, key, value)
    return member


def test_links_devices_and_climbing_names_are_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(special("link.png", tarfile.SYMTYPE, linkname="/etc/passwd"))
        archive.addfile(special("hard.png", tarfile.LNKTYPE, linkname="../../x"))
        archive.addfile(special("device.png", tarfile.CHRTYPE))
        archive.addfile(special("folder", tarfile.DIRTYPE))
        for name in ("../up.png", "/root.png", "good.png"):
            member = special(name, tarfile.REGTYPE, size=len(PNG))
            archive.addfile(member, io.BytesIO(PNG))
    before = sorted(tmp_path.rglob("*"))
    said, left = read(tmp_path)
    assert list(said) == ["a.tar#good"]
    assert [why.split(":")[0] for why in left.values()] == ["unreadable"] * 3 + ["unsafe path"] * 2
    assert sorted(tmp_path.rglob("*")) == before


def test_large_members_and_headers_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(special("big.png", tarfile.REGTYPE, size=2**27).tobuf())
        file.seek(2**27, os.SEEK_CUR)  # a hole
        file.write(tar({"small.png": PNG}))
    with (tmp_path / "b.tar").open("wb") as file:  # an extended header that claims half a gigabyte
        file.write(special("x", tarfile.XHDTYPE, size=2**29).tobuf())
        file.truncate(2**30)
    said, left = read(tmp_path)
    assert list(said) == ["a.tar#small"]
    assert left["a.tar#big.png"].startswith("too large: 134,217,728 bytes")
    assert left["b.tar"] == "damaged: no whole tar: a header of 536,870,912 bytes"


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    """tarfile takes it for the end of the archive, in silence: the control."""
    data = bytearray(tar({f"{i}.png": PNG for i in range(6)}))
    data[3 * 1024 + 5] ^= 1  # the fourth header: its sum is wrong
    fill(tmp_path, {"a.tar": bytes(data), "b.tar": bytes(data[: 5 * 512]), "c.tar": b"no tar at all" * 99})
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert len(archive.getnames()) == 3
    said, left = read(tmp_path)
    assert len(said) == 3 + 2
    assert left["a.tar"] == "damaged: no header at byte 3,072; what follows is not read"
    assert left["b.tar"].startswith("damaged")
    assert left["c.tar"].startswith("damaged: no whole tar")


def test_doubled_members_are_named(tmp_path: Path) -> None:
    data = tar({"a.png": PNG})[: 2 * 512]
    fill(tmp_path, {"a.tar": data + tar({"a.png": PNG})})
    said, left = read(tmp_path)
    assert list(said) == ["a.tar#a"]
    assert left["a.tar#a.png"].startswith("a doubled name")


@pytest.mark.parametrize("packer", [gzip, bz2, lzma])
def test_compressed_tars_are_not_unpacked(tmp_path: Path, packer: Any) -> None:
    fill(tmp_path, {"a.tar": packer.compress(tar({"a.png": PNG}))})
    assert read(tmp_path)[1]["a.tar"].startswith("compressed: by ")
    fake = tar({"a.png": PNG, "bomb.png": PNG})  # a tar whose first name makes the library take it for a gzip file
    fill(tmp_path, {"a.tar": b"\x1f\x8b\x08" + fake[3:]})
    assert read(tmp_path)[0] == {}


def test_tars_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No member is unpickled, no name fetched or run; and the control: the library does run such a name."""
    import webdataset

    canary = tmp_path / "canary"
    bomb = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    members = {f"a.{ending}": bomb for ending in ("pyd", "pkl", "pickle", "pth", "npy", "ten", "cbor")}
    place = tmp_path / "in"
    fill(place, {"pipe:touch canary #.tar": tar({"a.png": PNG, **members, "http:x.png": PNG})})
    monkeypatch.chdir(tmp_path)
    hostile.heard.clear()
    monkeypatch.setattr(hostile, "listening", True)
    said, _ = read(place)
    monkeypatch.setattr(hostile, "listening", False)
    assert len(said) == 2
    assert hostile.heard == []
    assert not canary.exists()
    webdataset.gopen("pipe:touch canary").close()
    assert canary.exists()


def test_the_index_of_a_tar_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "MAX_MEMBERS", 3)
    fill(tmp_path, {"a.tar": tar({f"{i}.png": PNG for i in range(9)})})
    said, left = read(tmp_path)
    assert len(said) == 4
    assert left["a.tar"].startswith("too large: only the first 3 files")


@pytest.mark.parametrize(
    ("test", "place"),
    [
        (test_a_damaged_header_is_no_end, "check_end"),
        (lambda path: test_compressed_tars_are_not_unpacked(path, gzip), "check_plain"),
    ],
    ids=["damaged headers", "compression"],
)
def test_without_its_defence_a_test_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: Callable[[Path], Any], place: str
) -> None:
    monkeypatch.setattr(tars, place, lambda *_: None)
    with pytest.raises((AssertionError, KeyError)):
        test(tmp_path)
