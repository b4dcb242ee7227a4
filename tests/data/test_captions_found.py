"""Captions in the forms that other tools write are found; where none is, that is said, with what lay there instead."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pyarrow as pa
import pytest

from unnoise.cli.main import main
from unnoise.data import intake
from unnoise.data.folder import FolderSettings, build_folder, source_of
from unnoise.data.intake import LeftOut, Quarantine, captions_in, inside
from unnoise.data.report import summary
from unnoise.data.show import report_lines

from .folder_fuzz import PNG, drained, fill, parquet, picture, read

Said = dict[str, tuple[str, ...]]


def all_of(path: Path) -> tuple[Said, Quarantine]:
    aside = Quarantine()
    return {item.name: item.captions for item in drained(source_of(path, aside)[0])}, aside


def beside(aside: Quarantine) -> dict[str, tuple[int, str]]:
    return {kind: (entry["count"], entry["example"]) for kind, entry in aside.beside.items()}


# text


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
def test_marked_text_is_read(mark: str) -> None:
    assert captions_in("grün\r\n日本".encode(mark)) == ("grün", "日本")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("grün".encode("latin-1"), "it is not UTF-8; save it as UTF-8"),
        (b"r\0\0ed", "it has NULs, as UTF-16 and UTF-32 have"),
        (codecs.BOM_UTF16_LE + b"r", "it is not UTF-16"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
    ],
)
def test_other_text_is_named(data: bytes, why: str) -> None:
    with pytest.raises(LeftOut, match=f"bad caption: .*{why}"):
        captions_in(data)


# folders


def test_texts_of_all_endings(tmp_path: Path) -> None:
    fill(tmp_path, {f"{i}.png": PNG for i in range(8)} | {"0.TXT": "zero", "1.caption": "one", "2.cap": "two"})
    fill(tmp_path, {"3.png.txt": "three", "4.json": '{"caption": "four"}', "5.txt": "five", "5.json": "{}"})
    fill(tmp_path, {"6.json": '{"width": 3}', "7.npz": b"PK\3\4", "x.npz": b"PK\3\4", "notes.md": "hi", "s.zip": b"PK"})
    fill(tmp_path, {"lonely.caption": "x", "info.json": "{}", ".hidden/a.png": PNG, "odd": PNG, "LICENSE": "free"})
    fill(tmp_path, {"lfs.png": "version https://git-lfs.github.com/spec/v1"})
    said, aside = all_of(tmp_path)
    words = ["zero", "one", "two", "three", "four", "five"]
    assert said == {f"{i}.png": (word,) for i, word in enumerate(words)} | {"6.png": (), "7.png": (), "odd": ()}
    assert {e["name"]: e["kind"] for e in aside.entries} == {
        "lonely.caption": "no picture",
        "s.zip": "packed",
        "lfs.png": "not a picture",
    }
    assert beside(aside) == {
        "hidden": (1, ".hidden"),
        ".npz": (2, "7.npz"),
        ".md": (1, "notes.md"),
        ".json": (3, "5.json"),
        "without an ending": (1, "LICENSE"),
    }


def test_json_beside_a_picture(tmp_path: Path) -> None:
    forms = ['"red"', '["red", "blue"]', "[1]", "3", "null", '{"prompt": "red"}', '{"tags": ["x", "y"]}', "[]"]
    fill(tmp_path, {f"{i}.png": PNG for i in range(8)} | {f"{i}.json": form for i, form in enumerate(forms)})
    said, aside = all_of(tmp_path)
    assert list(said.values()) == [("red",), ("red", "blue"), (), (), (), ("red",), ("x, y",), ()]
    assert beside(aside) == {".json": (4, "2.json")}


def test_kohyas_metadata_in_a_folder(tmp_path: Path) -> None:
    record = {r"test\img\in\a.png": {"caption": "red", "train_resolution": [8, 8]}, "b": {"tags": "x"}, "c.png": {}}
    fill(
        tmp_path, {"in/a.png": PNG, "b.png": PNG, "b.txt": "y", "d.png": PNG, "d.txt": "blue", "coco.json": '{"a": {}}'}
    )
    fill(tmp_path, {"meta.json": json.dumps(record)})
    said, aside = all_of(tmp_path)
    assert said["in/a.png"] == ()  # one of its records is none: it is no such file
    fill(tmp_path, {"meta.json": json.dumps(record | {"c.png": {"caption": "z"}})})
    said, aside = all_of(tmp_path)
    assert said == {"in/a.png": ("red",), "b.png": ("x",), "d.png": ("blue",)}
    assert aside.notes == [{"name": "meta.json", "note": "read as kohya's metadata: it has 2 of the pictures"}]
    assert beside(aside) == {".json": (1, "coco.json"), ".txt": (1, "b.txt")}


def test_texts_in_another_folder_are_told(tmp_path: Path) -> None:
    fill(tmp_path, {"img/a.png": PNG, "txt/a.txt": "red"})
    said, left = read(tmp_path)
    assert said == {"img/a.png": ()}
    assert left["txt/a.txt"].endswith("no picture beside it; img/a.png lies in another folder: put them together")


def test_a_text_beside_what_is_no_picture_is_lonely(tmp_path: Path) -> None:
    fill(tmp_path, {"a.png": PNG, "b.npz": b"PK\3\4", "b.txt": "red"})
    assert read(tmp_path)[1] == {"b.txt": "no picture: a caption, and no picture of its name"}


METADATA = {
    "text": "file_name,text\na.png,red\nc/b.png,blue\n",
    "caption, Windows": "\ufefffile_name,Caption,url\r\na.png,red,u\r\nc\\b.png,blue,u\r\n",
    "another word": "words;file_name\nred;a.png\nblue;C/B.PNG\n",
    "tabs": "image\tcaption\na.png\tred\nc/b.png\tblue\n",
    "quoted": 'file_name,text\n"a.png","red"\n"c/b.png","blue"\n',
    "a Macintosh": "file_name,text\ra.png,red\rc/b.png,blue\r",
    "empty cells": "file_name,text\na.png,red,,\nc/b.png,blue,\n",
}


@pytest.mark.parametrize("text", METADATA.values(), ids=METADATA)
@pytest.mark.parametrize("mark", ["utf-8", "utf-16"])
def test_metadata_csv(tmp_path: Path, text: str, mark: str) -> None:
    fill(tmp_path, {"metadata.csv": text.encode(mark), "a.png": PNG, "c/b.png": PNG})
    assert read(tmp_path) == ({"a.png": ("red",), "c/b.png": ("blue",)}, {})


def test_a_caption_with_commas_is_whole_or_named(tmp_path: Path) -> None:
    fill(tmp_path, {"a/metadata.csv": "file_name,text\na.png,red, round, ripe\n", "a/a.png": PNG})
    fill(tmp_path, {"b/metadata.csv": "text,file_name\nred, round,b.png\nred,c.png\n", "b/b.png": PNG, "b/c.png": PNG})
    said, left = read(tmp_path)
    assert said == {"a/a.png": ("red, round, ripe",), "b/b.png": (), "b/c.png": ("red",)}
    assert left == {
        "b/metadata.csv:2": "bad metadata: the row has more cells than there are titles; put texts in quotes"
    }


def test_odd_tables_are_named(tmp_path: Path) -> None:
    fill(tmp_path, {"a/metadata.csv": "file_name,x,y\na.png,1,2", "a/a.png": PNG, "b/metadata.csv": "text\nred"})
    fill(tmp_path, {"c/metadata.csv": 'file_name,text\na.png,red\ngone.png,x\n,y\nb.png,"open\n', "c/a.png": PNG})
    fill(tmp_path, {"c/b.png": PNG, "d/metadata.csv": "", "d/metadata.parquet": b"PAR1"})
    said, left = read(tmp_path)
    assert said == {"a/a.png": (), "c/a.png": ("red",), "c/b.png": ()}
    assert left.keys() == {"d/metadata.parquet"} | {f"{f}/metadata.csv" for f in "abcd"} | {
        "c/metadata.csv:3",
        "c/metadata.csv:4",
    }
    assert left["a/metadata.csv"] == "bad metadata: of its columns file_name, x, y none is called text"
    assert left["c/metadata.csv"].startswith("bad metadata: no table after line 4: unexpected end of data")


def test_several_metadata_files(tmp_path: Path) -> None:
    rows = {"file_name": ["a.png", "b.png", None], "TEXT": pa.array(["x", "blue", "y"]).dictionary_encode()}
    fill(tmp_path, {"metadata.jsonl": '{"file_name": "a.png", "prompt": "red"}', "metadata.parquet": parquet(rows)})
    fill(tmp_path, {"a.png": PNG, "b.png": PNG, "a.txt": "x", "c.png": PNG, "c.txt": "green"})
    said, aside = all_of(tmp_path)
    assert said == {"a.png": ("red",), "b.png": ("blue",), "c.png": ("green",)}
    assert [entry["note"] for entry in aside.notes] == [
        "captions are those of the column TEXT",
        "1 rows are not used: another metadata file names their pictures",
    ]
    assert beside(aside) == {".txt": (1, "a.txt")}
    assert [entry["name"] for entry in aside.entries] == ["metadata.parquet:2"]


# caches of Hugging Face's


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A snapshot whose files are links to blobs, as ``huggingface_hub`` makes it."""
    root = tmp_path / "datasets--me--mine"
    fill(
        root,
        {"blobs/1": PNG, "blobs/2": "red", "blobs/3": '{"file_name": "d/b.png", "text": "blue"}', "refs/main": "f"},
    )
    (root / "snapshots/f/d").mkdir(parents=True)
    for name, blob in (("a.png", "1"), ("a.txt", "2"), ("metadata.jsonl", "3")):
        (root / "snapshots/f" / name).symlink_to(f"../../blobs/{blob}")
    (root / "snapshots/f/d/b.png").symlink_to("../../../blobs/1")
    return root


def test_links_to_blobs_are_followed(cache: Path) -> None:
    assert read(cache / "snapshots/f") == ({"a.png": ("red",), "d/b.png": ("blue",)}, {})
    assert read(cache / "snapshots/f/d") == ({"b.png": ()}, {})
    said, left = read(cache)
    assert said == {"snapshots/f/a.png": ("red",), "snapshots/f/d/b.png": ("blue",)}
    assert set(left) == set()


def test_other_links_are_not(cache: Path, tmp_path: Path) -> None:
    fill(tmp_path, {"secret.png": PNG, "else/blobs/x.png": PNG})
    (cache / "blobs/9").symlink_to(tmp_path / "secret.png")
    (cache / "blobs/deep").mkdir()
    fill(cache, {"blobs/deep/x.png": PNG})
    root = cache / "snapshots/f"
    targets = ("../../../secret.png", "../../blobs/9", "../../blobs/deep/x.png", "../../refs/main")
    for target in (*targets, "../../../else/blobs/x.png"):
        (root / "x.png").symlink_to(target)
        with pytest.raises(
            LeftOut, match=r"leads out of the folder; copy the folder with its links followed \(cp -rL\)"
        ):
            inside(root, "x.png")
        (root / "x.png").unlink()
    (cache / "blobs").rename(tmp_path / "moved")
    (cache / "blobs").symlink_to(tmp_path / "moved")  # a link itself, and so no blobs of this cache
    with pytest.raises(LeftOut, match="leads out"):
        inside(root, "a.png")


def test_without_blobs_such_a_folder_is_lost(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    monkeypatch.setattr(intake, "blobs_of", lambda _: None)
    said, left = read(cache / "snapshots/f")
    assert said == {}
    assert {why.split(":")[0] for why in left.values()} == {"unsafe path"}


# Parquet

TEXTS = ["red", None, "blue"]
COLUMNS: dict[str, tuple[str, pa.Array]] = {
    "dictionary": ("text", pa.array(TEXTS).dictionary_encode()),
    "string_view": ("text", pa.array(TEXTS, pa.string_view())),
    "large_string": ("caption", pa.array(TEXTS, pa.large_string())),
    "bytes": ("caption", pa.array([t and t.encode() for t in TEXTS], pa.binary())),
    "many bytes": ("txt", pa.array([t and t.encode() for t in TEXTS], pa.large_binary())),
    "LAION": ("TEXT", pa.array(TEXTS)),
    "Description": ("Description", pa.array(TEXTS)),
    "prompt": ("prompt", pa.array(TEXTS)),
    "a word in it": ("blip caption", pa.array(TEXTS)),
    "a lone text": ("says", pa.array(TEXTS)),
    "lists of large_string": ("captions", pa.array([["red"], None, ["blue"]], pa.large_list(pa.large_string()))),
    "lists of one": ("caption", pa.array([["red"], None, ["blue"]], pa.list_(pa.string(), 1))),
    "tags": ("tags", pa.array([["red"], [], ["blue"]])),
}


@pytest.mark.parametrize(("column", "texts"), COLUMNS.values(), ids=COLUMNS)
def test_captions_of_every_kind(tmp_path: Path, column: str, texts: pa.Array) -> None:
    fill(tmp_path, {"a.parquet": parquet({"URL": ["u"] * 3, "NSFW": ["x"] * 3, column: texts, "jpg": [PNG] * 3})})
    said, left = read(tmp_path / "a.parquet")
    assert (list(said.values()), left) == ([("red",), (), ("blue",)], {})


PICTURES: dict[str, tuple[str, pa.Array]] = {
    "capitals": ("Image", pa.array([{"bytes": PNG, "path": "x"}])),
    "another name": ("pixels", pa.array([PNG])),
    "a dictionary": ("image", pa.array([PNG]).dictionary_encode()),
    "a view": ("image", pa.array([PNG], pa.binary_view())),
    "a list of one": ("images", pa.array([[{"bytes": PNG, "path": "x"}]])),
}


@pytest.mark.parametrize(("column", "pictures"), PICTURES.values(), ids=PICTURES)
def test_pictures_of_every_kind(tmp_path: Path, column: str, pictures: pa.Array) -> None:
    fill(tmp_path, {"a.parquet": parquet({column: pictures, "text": ["red"]})})
    assert read(tmp_path / "a.parquet") == ({"a.parquet#0": ("red",)}, {})


def test_which_column_was_taken_is_told(tmp_path: Path) -> None:
    fill(tmp_path, {"a.parquet": parquet({"png": [PNG], "Prompt": ["x"], "text": ["red"], "caption_en": ["y"]})})
    fill(tmp_path, {"b.parquet": parquet({"png": [PNG], "one": ["x"], "two": ["y"]})})
    fill(tmp_path, {"c.parquet": parquet({"png": [PNG], "label": [3]})})
    fill(tmp_path, {"d.parquet": parquet({"latent": [b"x"], "png": [PNG], "captions": ["red"]})})
    said, aside = all_of(tmp_path)
    assert list(said.values()) == [("red",), (), (), ("red",)]
    assert {entry["name"]: entry["note"] for entry in aside.notes} == {
        "a.parquet": "captions are those of the column text, not of Prompt, caption_en",
        "b.parquet": "no column of captions: of its texts one, two none has a name for it; call one caption"
        " (its columns are png, one, two)",
        "c.parquet": "no column of captions: it holds no text for it; call one caption (its columns are png, label)",
        "d.parquet": "pictures are those of the column png, not of latent",
    }


def test_addresses_are_no_pictures(tmp_path: Path) -> None:
    fill(tmp_path, {"a.parquet": parquet({"URL": ["https://example.org/a.png"], "TEXT": ["red"]})})
    fill(tmp_path, {"e.parquet": parquet({"image": [{"path": "a.png"}]})})
    fill(tmp_path, {"b.parquet": parquet({"a": [1]}), "c.parquet": "version https://git-lfs.github.com/spec/v1"})
    said, left = read(tmp_path)
    assert said == {}
    assert left["a.parquet"].startswith("no pictures: its column URL has addresses or paths, the pictures are not in")
    assert left["e.parquet"].startswith("no pictures: its column image has addresses or paths")
    assert left["b.parquet"].startswith("no pictures: a table without a column of pictures")
    assert left["c.parquet"].startswith("damaged: it is a Git LFS pointer")


# what is said


def test_a_set_without_captions_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(
        tmp_path / "in", {"a.png": PNG, "b.png": picture(colour="blue"), "a.words": "red", "b.words": "x", "n.md": "x"}
    )
    assert main(["data", "folder", str(tmp_path / "in"), "--out", str(tmp_path / "set"), "--size", "16"]) == 0
    said = capsys.readouterr().out
    assert "0 captions, 0 kept back, 0 left out, 3 files not used" in said
    assert "NO CAPTIONS were found, pictures without one: 2; put a text of its name beside each" in said
    assert "not used: 2 .words (such as a.words), 1 .md (such as n.md)" in said
    report = json.loads((tmp_path / "set/report.json").read_text("utf-8"))
    assert report["not_used"][0] == {"kind": ".words", "count": 2, "example": "a.words"}
    fill(tmp_path / "in", {"a.txt": "red"})
    build_folder(tmp_path / "in", tmp_path / "other", FolderSettings(size=16))
    assert not any("NO CAPTIONS" in line for line in report_lines(tmp_path / "other"))  # the control


def test_reports_of_older_sets_are_shown() -> None:
    old = {"left_out": [], "identical": [], "near": [], "without_caption": ["a"], "settings_left_to_training": []}
    assert list(summary(old)) == ["without a caption: 1: a"]


def test_kinds_are_bounded() -> None:
    aside = Quarantine()
    for number in range(3 * intake.MAX_KINDS):
        aside.pass_over(f"a.{number}")
    assert len(aside.beside) == intake.MAX_KINDS + 1
    assert sum(entry["count"] for entry in aside.beside.values()) == 3 * intake.MAX_KINDS


def test_names_as_kohya_gives_folders(tmp_path: Path) -> None:
    fill(
        tmp_path, {"10_sks dog/a.png": PNG, "10_sks dog/a.caption": "red", "2024_holiday/b.png": PNG, "01_x/c.png": PNG}
    )
    said, aside = all_of(tmp_path)
    assert said["10_sks dog/a.png"] == ("red",)
    assert [entry["name"] for entry in aside.notes] == ["10_sks dog"]
    wanted = 'image_dir = "10_sks dog", num_repeats = 10, class_tokens = "sks dog", caption_extension = ".caption"'
    assert wanted in aside.notes[0]["note"]
    assert all_of(tmp_path / "10_sks dog")[1].notes == aside.notes
    (tmp_path / "10_sks dog/a.caption").unlink()
    assert 'caption_extension = ".txt"' in all_of(tmp_path)[1].notes[0]["note"]
