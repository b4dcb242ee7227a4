"""Texts find their pictures, wherever they lie and however they are called; what finds none is told."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unnoise.data import sidecars
from unnoise.data.fields import choose, texts_in
from unnoise.data.folder import source_of
from unnoise.data.intake import Quarantine
from unnoise.data.sidecars import paired

from .folder_fuzz import PNG, drained, fill, read, tar

PAIRS: dict[str, tuple[list[str], list[str], dict[str, str]]] = {
    "stems with dots": (
        ["2024.05.01.jpg", "2024.05.02.jpg", "v1.5_cat.png"],
        ["v1.5_cat.txt", "2024.05.02.txt", "2024.05.01.txt"],
        {
            "2024.05.01.jpg": "2024.05.01.txt",
            "2024.05.02.jpg": "2024.05.02.txt",
            "v1.5_cat.png": "v1.5_cat.txt",
        },
    ),
    "one date is not another": (["2024.05.01.jpg"], ["2024.05.02.txt"], {}),
    "the whole name comes first": (
        ["a.jpg", "a.png"],
        ["a.txt", "a.png.txt"],
        {"a.jpg": "a.txt", "a.png": "a.png.txt"},
    ),
    "two endings": (["a.jpg.png"], ["a.jpg.txt"], {"a.jpg.png": "a.jpg.txt"}),
    "capitals of the ending": (["A.PNG", "b.JPG"], ["A.TXT", "b.Txt"], {"A.PNG": "A.TXT", "b.JPG": "b.Txt"}),
    "capitals of the name": (["Cat.png"], ["cat.txt"], {"Cat.png": "cat.txt"}),
    "capitals that tell apart": (["Cat.png", "cat.png"], ["cat.txt"], {"cat.png": "cat.txt"}),
    "accents written in two ways": (["\u00e9.png"], ["e\u0301.txt"], {"\u00e9.png": "e\u0301.txt"}),
    "folders of the same names": (["x/a.png", "y/a.png"], ["y/a.txt"], {"y/a.png": "y/a.txt"}),
    "a sample's text": (["s.image.png"], ["s.txt"], {"s.image.png": "s.txt"}),
    "a sample's caption": (["s.image.png"], ["s.caption.txt"], {"s.image.png": "s.caption.txt"}),
    "not of any word": (["my.cat.png"], ["my.dog.txt"], {}),
    "two pictures of a sample": (["s.one.png", "s.two.png"], ["s.txt"], {}),
    "the order of endings": (["a.png"], ["a.json", "a.caption", "a.txt"], {"a.png": "a.txt"}),
}


@pytest.mark.parametrize(("pictures", "texts", "used"), PAIRS.values(), ids=PAIRS)
def test_pairs(pictures: list[str], texts: list[str], used: dict[str, str]) -> None:
    found = paired(pictures, texts)
    assert found.used == used
    assert {*found.used.values(), *found.second, *found.lonely} == {*texts}


NAMES = st.lists(st.sampled_from(["a", "b", "1", "A"]), min_size=1, max_size=3).map(".".join)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.sampled_from([".png", ".JPG"])).map("".join), unique=True, max_size=6),
    st.lists(st.tuples(NAMES, st.sampled_from([".txt", ".json", ".png.txt"])).map("".join), unique=True, max_size=6),
    st.randoms(),
)
def test_every_text_is_used_or_told_and_order_does_not_count(
    pictures: list[str], texts: list[str], dice: random.Random
) -> None:
    found = paired(pictures, texts)
    places = [*dict.fromkeys(found.used.values()), *found.second, *found.lonely]
    assert sorted(places) == sorted(texts)
    for picture in pictures:  # what has a text of its very name has that text
        exact = [text for text in texts if text == f"{picture}.txt"]
        assert not exact or found.used[picture] == exact[0]
    shuffled = paired(dice.sample(pictures, len(pictures)), dice.sample(texts, len(texts)))
    assert shuffled.used == found.used


# tars


@pytest.mark.parametrize("seed", range(4))
def test_a_tar_in_any_order_keeps_its_captions(tmp_path: Path, seed: int) -> None:
    members = {f"x/{i:02}.5.png": PNG for i in range(20)} | {
        f"x/{i:02}.5.txt": f"number {i}".encode() for i in range(20)
    }
    order = list(members)
    if seed:
        random.Random(seed).shuffle(order)
    fill(tmp_path, {"a.tar": tar({name: members[name] for name in order})})
    said, left = read(tmp_path / "a.tar")
    assert said == {f"a.tar#x/{i:02}.5": (f"number {i}",) for i in range(20)}
    assert left == {}


def test_grouping_neighbours_alone_would_lose_them(tmp_path: Path) -> None:
    """The control: webdataset's own grouping of the same tar has no sample with both."""
    webdataset = pytest.importorskip("webdataset.tariterators")
    data = tar({"a.png": PNG, "b.png": PNG, "a.txt": b"red", "b.txt": b"blue"})
    parts = webdataset.tar_file_expander([{"url": "x", "stream": io.BytesIO(data)}])
    assert not any({"png", "txt"} <= sample.keys() for sample in webdataset.group_by_keys(parts))
    fill(tmp_path, {"a.tar": data})
    assert read(tmp_path / "a.tar")[0] == {"a.tar#a": ("red",), "a.tar#b": ("blue",)}


def test_what_lies_in_a_tar_is_used_or_told(tmp_path: Path) -> None:
    members = {"./a.jpg": PNG, "a.json": b'{"url": "x", "caption": "red", "sha256": "f"}', "b.png": PNG, "b.cls": b"3"}
    members |= {
        "b.png.txt": b"blue",
        "c.jpg": PNG,
        "c.txt": b"green",
        "c.mask.png": PNG,
        "c.json": b"{}",
        "d.webp": PNG,
    }
    members |= {"d.json": b'{"caption": null}', "lonely.txt": b"x", "info.json": b"[]", "._a.jpg": b"x", "e.bin": b"x"}
    members |= {"g.gif": b"GIF89a"}
    members |= {"f.one.png": PNG, "f.two.png": PNG, "f.txt": b"two", "pile.npz": b"x", "q.npz": b"x"}
    fill(tmp_path, {"a.tar": tar(members)})
    aside = Quarantine()
    items = drained(source_of(tmp_path / "a.tar", aside)[0])
    names = {item.name.removeprefix("a.tar#"): item.captions for item in items}
    assert names == {"a": ("red",), "b": ("blue",), "c": ("green",), "d": ()}
    left = {entry["name"].removeprefix("a.tar#"): entry["kind"] for entry in aside.entries}
    assert left == {"lonely.txt": "no picture", "f": "several pictures", "g": "not a picture"}
    counts = {kind: (entry["count"], entry["example"].removeprefix("a.tar#")) for kind, entry in aside.beside.items()}
    assert counts == {
        "hidden": (1, "._a.jpg"),
        ".cls": (1, "b.cls"),
        ".bin": (1, "e.bin"),
        ".npz": (2, "pile.npz"),
        ".json": (3, "c.json"),
        ".txt": (1, "f.txt"),
        "further pictures of samples": (1, "c.mask.png"),
    }


def test_a_second_name_of_a_member_is_that_member(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in (("a.png", PNG), ("a.txt", b"red")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, target in (("b.png", "a.png"), ("b.txt", "a.txt"), ("c.png", "nowhere.png")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.LNKTYPE, target
            archive.addfile(member)
    said, left = read(tmp_path / "a.tar")
    assert said == {"a.tar#a": ("red",), "a.tar#b": ("red",)}
    assert list(left) == ["a.tar#c.png"]


def test_texts_are_as_long_as_captions_are(tmp_path: Path) -> None:
    members = {"a.png": PNG, "a.txt": b"x" * (sidecars.MAX_CAPTIONS + 1), "b.png": PNG}
    fill(tmp_path, {"a.tar": tar(members | {"b.json": b'{"caption": "' + b"x" * sidecars.MAX_JSON + b'"}'})})
    said, left = read(tmp_path / "a.tar")
    assert said == {}
    assert [why.split(":")[0] for why in left.values()] == ["too large"] * 2


# the names of fields


def test_the_field_of_the_captions() -> None:
    assert choose(["url", "TEXT", "Description"]) == ("TEXT", ("Description",))
    assert choose(["prompt", "Caption"]) == ("Caption", ("prompt",))
    assert choose(["text", "TEXT"]) == ("text", ("TEXT",))
    assert choose(["Alt-Text"]).name == "Alt-Text"
    assert choose(["foo", "blip_caption", "text_en"]) == ("blip_caption", ("text_en",))
    assert choose(["words", "image_url", "file_name"]).name == "words"
    assert choose(["words"], lone=False).name is None
    assert choose(["words", "more"]) == (None, ("words", "more"))
    assert choose(["image_url", "context_url"]) == (None, ())


def test_the_field_of_a_record() -> None:
    def said(text: str) -> list[object]:
        return texts_in(json.loads(text))

    assert said('{"caption": "", "text": "red"}') == ["red"]
    assert said('{"Prompt": ["red", "blue"]}') == ["red", "blue"]
    assert said('{"tags": ["red", "blue"]}') == ["red, blue"]
    assert said('{"caption": null, "width": 3, "url": "x"}') == []
