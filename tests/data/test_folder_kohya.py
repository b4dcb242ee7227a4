"""The dataset TOML of kohya's sd-scripts: which level wins, which captions come of it, and what is a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unnoise.data.intake import Item, LeftOut, Quarantine
from unnoise.data.kohya_captions import alternatives, framed
from unnoise.data.read_kohya import CARRIED, TRAINING, Kohya, read_kohya
from unnoise.errors import UnnoiseError

from .folder_fuzz import PNG, drained, fill

KOHYA = """
[general]
caption_extension = ".txt"
shuffle_caption = true
num_repeats = 2
[[datasets]]
resolution = [256, 256]
enable_wildcard = true
  [[datasets.subsets]]
  image_dir = "cats"
  class_tokens = "a {red|blue} cat"
  caption_prefix = "best,"
  num_repeats = 5
  [[datasets.subsets]]
  image_dir = "dogs"
[[datasets]]
batch_size = 4
resolution = 256
  [[datasets.subsets]]
  image_dir = "birds"
  metadata_file = "birds.json"
  [[datasets.subsets]]
  image_dir = "cats"
  [[datasets.subsets]]
  image_dir = "reg"
  is_reg = true
"""


@pytest.fixture
def kohya(tmp_path: Path) -> Path:
    fill(
        tmp_path,
        {"d.toml": KOHYA, "cats/1.png": PNG, "cats/2.png": PNG, "cats/1.txt": "one {x}\ntwo", "reg/r.png": PNG},
    )
    fill(tmp_path, {"dogs/1.png": PNG, "dogs/below/2.png": PNG, "birds/b.png": PNG, "birds/c.png": PNG})
    record = '{"/abs/b.png": {"caption": "a bird\\nof blue", "tags": "sky"}, "d": {"tags": "gone"}}'
    return fill(tmp_path, {"birds.json": record})


def result(root: Path) -> tuple[Kohya, list[Item], Quarantine]:
    aside = Quarantine()
    read = read_kohya(root / "d.toml", aside)
    return read, drained(read.source), aside


def test_kohya_lower_levels_win(kohya: Path) -> None:
    found, items, aside = result(kohya)
    assert {item.name: (item.captions, item.repeats) for item in items} == {
        "cats/1.png": (("best, one x", "best, two"), 5),
        "cats/2.png": (("best, a red cat", "best, a blue cat"), 5),
        "dogs/1.png": ((), 2),
        "birds/b.png": (("a bird, sky",), 2),  # no wildcards in this dataset: the first line alone
    }
    assert found.resolution == 256
    assert found.ignored == ["batch_size", "shuffle_caption"]
    assert [(e["name"], e["kind"]) for e in aside.entries] == [
        ("birds.json: d", "no picture"),
        ("cats", "a subset"),
        ("reg", "a subset"),
        ("birds/c.png", "bad metadata"),
    ]


def test_kohya_separators() -> None:
    settings = {"keep_tokens_separator": "|||", "secondary_separator": ";;;", "caption_suffix": "|||end"}
    assert framed("a, b ||| c;;;d, ", settings) == "a, b, c,d, end"
    assert alternatives("a {b|c} {{d}}") == ["a b {d}", "a c {d}"]
    with pytest.raises(LeftOut, match="more than 64 wordings"):
        alternatives("{a|b}" * 7)


SUBSET = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'cats'\n"
MISTAKES: dict[str, tuple[str, str]] = {
    "syntax": ("[[datasets]", "is no TOML"),
    "a key of 60,000 words": ("a" + ".a" * 60_000 + " = 1", "a key has more than thirty words"),
    "a list of 9,000 lists": ("a = " + "[" * 9_000, "nested too deeply"),
    "a TOML of a megabyte": ("#" * 2**20, "1,048,576 letters, at most 524,288"),
    "nothing": ("", "has no [[datasets]]"),
    "no subsets": ("[[datasets]]\nresolution = 5", "datasets[0] has no [[datasets.subsets]]"),
    "another table": (f"{SUBSET}[extra]", "has a table 'extra'"),
    "typing error": (f"{SUBSET}num_repeat = 2", "has no setting 'num_repeat'; did you mean num_repeats?"),
    "too low": (f"{SUBSET}resolution = 5", "datasets[0].subsets[0] has no setting 'resolution'"),
    "too high": (f"[general]\nimage_dir = 'x'\n{SUBSET}", "has no setting 'image_dir'"),
    "wrong type": (f"{SUBSET}num_repeats = true", "num_repeats in datasets[0].subsets[0] is True; write a whole"),
    "too often": (f"{SUBSET}num_repeats = {10**400}", "num_repeats in datasets[0].subsets[0] is too large"),
    "no folder": ("[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 2", "has no image_dir"),
    "missing": (SUBSET.replace("cats", "mice"), "image_dir 'mice' is no folder"),
    "absolute": (SUBSET.replace("cats", "/etc"), "image_dir: '/etc' is not a path relative"),
    "climbing": (SUBSET.replace("cats", "cats/../.."), "climbs out of the folder"),
    "Windows": (SUBSET.replace("cats", "C:\\\\hoge"), "is not a path relative to the folder, written with /"),
    "linked": (SUBSET.replace("cats", "away"), "is a link that leads out of the folder"),
    "metadata": (f"{SUBSET}metadata_file = '../m.json'", "metadata_file: '../m.json' climbs"),
    "no metadata": (f"{SUBSET}metadata_file = 'm.json'", "metadata_file m.json cannot be read"),
    "not square": (f"[general]\nresolution = [8, 16]\n{SUBSET}", "a resolution of [8, 16] is not square"),
    "two sizes": (
        f"[general]\nresolution = 8\n{SUBSET}[[datasets]]\nresolution = 16\nsubsets = [{{image_dir = 'reg'}}]",
        "several resolutions: [8, 16]",
    ),
    "control": (f"{SUBSET}conditioning_data_dir = 'x'", "has no setting 'conditioning_data_dir'"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_in_a_toml(kohya: Path, text: str, said: str) -> None:
    (kohya / "away").symlink_to("/etc")
    fill(kohya, {"d.toml": text})
    with pytest.raises(UnnoiseError) as caught:
        result(kohya)
    assert said in str(caught.value)
    assert caught.value.hint


def test_kohya_keys_are_known_once() -> None:
    assert not TRAINING & CARRIED.keys()


# which text files are a subset's


def subset(root: Path, more: str = "", general: str = "") -> tuple[dict[str, tuple[str, ...]], Quarantine]:
    """What a TOML with one subset reads from the folder ``in``."""
    fill(root, {"d.toml": f"[general]\n{general}\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'in'\n{more}"})
    _, items, aside = result(root)
    return {item.name: item.captions for item in items}, aside


@pytest.mark.parametrize("written", ["txt", ".txt", "TXT", " .txt"])
def test_an_extension_needs_no_dot(tmp_path: Path, written: str) -> None:
    fill(tmp_path, {"in/a.png": PNG, "in/a.txt": "red", "in/b.png": PNG, "in/b.TXT": "blue"})
    said, aside = subset(tmp_path, general=f"caption_extension = '{written}'")
    assert said == {"in/a.png": ("red",), "in/b.png": ("blue",)}
    assert aside.beside == {}


def test_an_extension_may_have_two_parts(tmp_path: Path) -> None:
    fill(tmp_path, {"in/a.png": PNG, "in/a.wd.txt": "red", "in/a.txt": "blue"})
    said, aside = subset(tmp_path, "caption_extension = '.wd.txt'")
    assert said == {"in/a.png": ("red",)}
    assert aside.beside[".txt"]["example"] == "in/a.txt"


@pytest.mark.parametrize("written", ["", ".", ".png", "a/b"])
def test_an_extension_of_no_text_is_refused(tmp_path: Path, written: str) -> None:
    fill(tmp_path, {"in/a.png": PNG})
    with pytest.raises(UnnoiseError, match=r"no ending of text files; write one, such as \"\.txt\""):
        subset(tmp_path, f"caption_extension = '{written}'")


def test_texts_of_another_extension_are_told(tmp_path: Path) -> None:
    """Kohya's default is .caption: texts are then not read, there as here, and that must not be silent."""
    fill(
        tmp_path, {"in/a.png": PNG, "in/a.txt": "red", "in/b.png": PNG, "in/b.txt": "x", "in/a.npz": "x", "in/f/x": ""}
    )
    fill(tmp_path, {"in/lonely.caption": "x"})
    said, aside = subset(tmp_path, "class_tokens = 'sks dog'")
    assert said == {"in/a.png": ("sks dog",), "in/b.png": ("sks dog",)}
    assert {kind: entry["count"] for kind, entry in aside.beside.items()} == {
        ".npz": 1,
        "folders within an image_dir": 1,
        ".txt": 2,
    }
    assert [entry["note"] for entry in aside.notes] == [
        'no picture has a caption in a file .caption, and files .txt lie beside them: write caption_extension = ".txt"'
    ]
    assert [(entry["name"], entry["kind"]) for entry in aside.entries] == [("in/lonely.caption", "no picture")]
    fill(tmp_path, {"in/b.caption": "blue"})
    assert subset(tmp_path)[1].notes == []  # the control: some have what was asked for


def test_metadata_with_the_paths_of_windows(tmp_path: Path) -> None:
    record = {r"test\img\in\a.png": {"caption": "red", "train_resolution": [8, 8]}, r"test\img\other\a.png": {}}
    record[r"C:\img\b.png"] = {"tags": "blue"}
    fill(
        tmp_path,
        {"in/a.png": PNG, "in/b.png": PNG, "in/c.png": PNG, "in/a.caption": "x", "in/m.json": json.dumps(record)},
    )
    said, aside = subset(tmp_path, "metadata_file = 'in/m.json'")
    assert said == {"in/a.png": ("red",), "in/b.png": ("blue",)}
    assert {entry["name"]: entry["detail"] for entry in aside.entries} == {
        "in/c.png": "the metadata_file does not name it"
    }
    assert list(aside.beside) == [".caption"]
    record[r"again\in\a.png"] = {"caption": "green"}
    fill(tmp_path, {"in/m.json": json.dumps(record)})
    assert "several pictures of its name" in str(subset(tmp_path, "metadata_file = 'in/m.json'")[1].entries)


OLD: dict[str, tuple[str, str]] = {
    "table": ("[[dataset]]\n[[dataset.subset]]\nimage_dir = 'in'", "once had; call it [[datasets]], and"),
    "key": ("[general]\nshuffle_keep_tokens = 1\n[[datasets]]", "'shuffle_keep_tokens'; did you mean keep_tokens?"),
    "training": ("[Basics]\ntrain_data_dir = '/data'", "no dataset TOML; name the folder of pictures, such as its"),
}


@pytest.mark.parametrize(("text", "said"), OLD.values(), ids=OLD)
def test_other_tomls_of_kohyas_are_told_apart(tmp_path: Path, text: str, said: str) -> None:
    fill(tmp_path, {"d.toml": text})
    with pytest.raises(UnnoiseError) as caught:
        result(tmp_path)
    assert said in str(caught.value)
