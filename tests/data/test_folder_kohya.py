"""The dataset TOML of kohya's sd-scripts: which level wins, which captions come of it, and what is a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from unnoise.data.intake import Item, LeftOut, Quarantine
from unnoise.data.read_kohya import CARRIED, TRAINING, Kohya, alternatives, framed, read_kohya
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
