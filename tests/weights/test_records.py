"""Records that are wrong, by accident or by intent: each is one clear error, and nothing in them is ever run."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from unnoise.engine.load import load_engine
from unnoise.weights.record import no_model
from weights.hostile import Hostile


def test_the_copy_is_sound(hostile: Hostile) -> None:
    """What the cases below tamper with loads as it is, signed anew or not."""
    before = load_engine(hostile.path, "cpu").generate("red", seed=1, steps=2)[0]
    hostile.tensors(lambda tensors: None)
    assert load_engine(hostile.path, "cpu").generate("red", seed=1, steps=2)[0].tobytes() == before.tobytes()


# settings

SETTINGS: dict[str, tuple[str, str, Any]] = {
    "terabytes": ("denoiser", "width", 1_000_000),
    "a vocabulary of a million": ("text", "vocabulary", 1_000_000),
    "a million blocks": ("denoiser", "depth", 1_000_000),
    "a million residuals": ("denoiser", "blocks", 1_000_000),
    "a million convolutions": ("autoencoder", "encoder", [[8, 1_000_000], [8, 1]]),
    "beyond the limit": ("denoiser", "width", 1_000_001),
    "beyond 64 bits": ("denoiser", "width", 2**70),
    "negative": ("denoiser", "width", -5),
    "no heads": ("denoiser", "heads", 0),
    "heads that do not divide": ("denoiser", "heads", 3),
    "minus one": ("denoiser", "channels", -1),
    "a text": ("denoiser", "width", "32"),
    "a fraction": ("denoiser", "width", 32.5),
    "a truth": ("denoiser", "width", True),
    "nothing": ("denoiser", "width", None),
    "a list too long": ("autoencoder", "encoder", [[8, 1]] * 65),
    "a list too short": ("autoencoder", "encoder", [[8, 1]]),
    "a list too deep": ("autoencoder", "encoder", [[[8, 1], 1], [8, 1]]),
    "an unknown activation": ("text", "activation", "os.system"),
    "an unknown setting": ("text", "_target_", "os.system"),
    "another width": ("denoiser", "width", 64),
    "fewer blocks": ("denoiser", "depth", 0),
    "another end": ("text", "end", 0),
    "no length": ("text", "length", 0),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_absurd_settings_are_refused_before_anything_is_allocated(case: str, hostile: Hostile) -> None:
    part, name, value = SETTINGS[case]
    hostile.change(lambda record: record["parts"][part]["config"].update({name: value}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    hostile.refused(r"model\.json|do not fit")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kilobytes"


NAMES = [
    "nope",
    "os.system",
    "unnoise.files:sha256",
    "__import__('os')",
    "../unet",
    "http://localhost/x",
    "",
    "a" * 9999,
]
PLACES = [
    ("denoiser", "name"),
    ("denoiser", "path"),
    ("denoiser", "prediction"),
    ("denoiser", "noise_label"),
    ("text", "name"),
]


@pytest.mark.parametrize("name", NAMES)
def test_only_names_of_the_registry_are_taken(name: str, hostile: Hostile) -> None:
    """No import by string: a dotted path is a name that nobody has."""
    good = (hostile.path / "model.json").read_text()
    modules = set(sys.modules)
    for part, field in PLACES:
        (hostile.path / "model.json").write_text(good)
        hostile.change(lambda record, part=part, field=field: record["parts"][part].update({field: name}))  # type: ignore[misc]
        hostile.refused("is called|unknown noise label|name is missing|too long")
    assert not {m for m in set(sys.modules) - modules if not m.startswith(("unnoise.", "torch"))}


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, {"name": "unet"}, {"name": "clip-text", "config": {}}])
def test_components_that_are_no_records_are_refused(value: Any, hostile: Hostile) -> None:
    hostile.change(lambda record: record["parts"].update(denoiser=value))
    hostile.refused(r"model\.json|no network is called")


@pytest.mark.parametrize(
    "defaults",
    [
        [],
        "x",
        {"steps": "3"},
        {"steps": 0},
        {"solver": "os.system"},
        {"spacing": 3},
        {"guidance": "x"},
        {"cfg_scale": 1e9},
        {"y": 1},
    ],
)
def test_defaults_that_cannot_be_run_are_refused(defaults: Any, hostile: Hostile) -> None:
    hostile.change(lambda record: record.update(defaults=defaults))
    hostile.refused(r"defaults|steps|solver|guidance|cfg_scale")


def test_parts_of_two_models_do_not_load_as_one(hostile: Hostile) -> None:
    """Each part is whole, but the denoiser's prompts are of another width than the text tower's."""

    def narrow(record: dict[str, Any]) -> None:
        record["parts"]["text"] = {**record["parts"]["text"], "name": "image-conv", "config": {}}

    hostile.change(narrow)
    hostile.refused("do not fit")


# the record

RECORDS = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"3",
    "not UTF-8": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "a long number": b'{"format": ' + b"9" * 5000 + b"}",
    "no files": b'{"format": 1, "components": {}}',
    "files in a list": b'{"format": 1, "components": {}, "files": [["a", "b"]]}',
    "a text as format": b'{"format": "1", "components": {}, "files": {}}',
    "format 0": b'{"format": 0, "components": {}, "files": {}}',
    "format infinity": b'{"format": Infinity, "components": {}, "files": {}}',
    "format 1 without components": b'{"format": 1, "files": {}}',
    "format 2 without parts": b'{"format": 2, "components": {}, "files": {}}',
    "parts in a list": b'{"format": 2, "parts": [], "files": {}}',
    "huge": b'{"format": 1, "components": {}, "files": {}}' + b" " * 2**21,
}


@pytest.mark.parametrize("case", RECORDS)
def test_damaged_records_are_refused(case: str, hostile: Hostile) -> None:
    (hostile.path / "model.json").write_bytes(RECORDS[case])
    hostile.refused(r"model\.json is damaged")


def test_records_of_a_newer_format_are_refused(hostile: Hostile) -> None:
    hostile.change(lambda record: record.update(format=3))
    hostile.refused("format 3, this program reads up to 2; update")


def test_what_lies_where_a_model_folder_is_wanted_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").touch()
    assert "such as" in no_model(tmp_path).hint
    (tmp_path / "model_index.json").write_text("{}")
    assert "unnoise convert" in no_model(tmp_path).hint
