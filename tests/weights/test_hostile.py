"""Model folders that are wrong, by accident or by intent: each is one clear error, and nothing in them is ever run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unnoise.errors import UnnoiseError
from unnoise.files import sha256
from unnoise.pipelines.text_to_picture import load_pipeline

WATCHED = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "socket.connect")
heard: list[str] = []
listening = False


def listen(event: str, args: tuple[Any, ...]) -> None:
    if listening and event in WATCHED:
        heard.append(f"{event} {args!r:.200}")


sys.addaudithook(listen)


class Hostile:
    """A copy of the tiny model to tamper with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shard = next(path.glob("*.safetensors"))

    def change(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Rewrites the record."""
        record = json.loads((self.path / "model.json").read_text())
        change(record)
        (self.path / "model.json").write_text(json.dumps(record))

    def sign(self) -> None:
        """Makes the record's hashes those of the files, as whoever tampers would."""
        self.change(lambda record: record["files"].update({n: sha256(self.path / n) for n in record["files"]}))

    def tensors(self, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
        """Rewrites the weights."""
        tensors = load_file(self.shard)
        change(tensors)
        save_file(tensors, self.shard)
        self.sign()

    def refused(self, match: str) -> None:
        """Loading is one short line that names the fault, and ran nothing."""
        global listening
        heard.clear()
        listening = True
        try:
            with pytest.raises(UnnoiseError, match=match) as caught:
                load_pipeline(self.path, "cpu")
        finally:
            listening = False
        assert heard == []
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1300


@pytest.fixture
def hostile(tiny_model: Path, tmp_path: Path) -> Hostile:
    return Hostile(Path(shutil.copytree(tiny_model, tmp_path / "model")))


def test_the_copy_is_sound(hostile: Hostile) -> None:
    """What the cases below tamper with loads as it is, signed anew or not."""
    load_pipeline(hostile.path, "cpu")
    hostile.tensors(lambda tensors: None)
    load_pipeline(hostile.path, "cpu")


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
    hostile.change(lambda record: record["components"][part]["config"].update({name: value}))
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
        hostile.change(lambda record, part=part, field=field: record["components"][part].update({field: name}))  # type: ignore[misc]
        hostile.refused("is called|unknown noise label")
    assert not {m for m in set(sys.modules) - modules if not m.startswith(("unnoise.", "torch"))}


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, {"name": "unet"}, {"name": "clip-text", "config": {}}])
def test_components_that_are_no_records_are_refused(value: Any, hostile: Hostile) -> None:
    hostile.change(lambda record: record["components"].update(denoiser=value))
    hostile.refused(r"model\.json|do not fit")


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
    hostile.refused(r"defaults|steps|solver|guidance scale")


def test_parts_of_two_models_do_not_load_as_one(hostile: Hostile) -> None:
    """Each part is whole, but the denoiser's prompts are of another width than the text tower's."""

    def narrow(record: dict[str, Any]) -> None:
        record["components"]["text"] = {**record["components"]["text"], "name": "image-conv", "config": {}}

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
    "huge": b'{"format": 1, "components": {}, "files": {}}' + b" " * 2**21,
}


@pytest.mark.parametrize("case", RECORDS)
def test_damaged_records_are_refused(case: str, hostile: Hostile) -> None:
    (hostile.path / "model.json").write_bytes(RECORDS[case])
    hostile.refused(r"model\.json is damaged")


def test_records_of_a_newer_format_are_refused(hostile: Hostile) -> None:
    hostile.change(lambda record: record.update(format=2))
    hostile.refused("format 2, this program reads up to 1; update")


# files

OUTSIDE = ["../secret", "..", ".", "/etc/passwd", "a/../../secret", "sub/file", "./model.json", "a\0b", "", "x" * 5000]


@pytest.mark.parametrize("name", OUTSIDE)
def test_files_outside_of_the_folder_are_refused(name: str, hostile: Hostile) -> None:
    secret = hostile.path.parent / "secret"
    secret.write_bytes(b"secret")
    (hostile.path / "sub").mkdir()
    (hostile.path / "sub/file").write_bytes(b"secret")
    hostile.change(lambda record: record["files"].update({name: sha256(secret)}))
    hostile.refused("lies outside|missing or damaged")


def test_links_out_of_the_folder_are_refused(hostile: Hostile) -> None:
    moved = hostile.path.parent / "elsewhere.safetensors"
    hostile.shard.rename(moved)
    hostile.shard.symlink_to(moved)
    hostile.refused("lies outside of its model")


def test_links_in_a_circle_are_refused(hostile: Hostile) -> None:
    hostile.shard.unlink()
    hostile.shard.symlink_to(hostile.shard.name)
    hostile.refused("missing or damaged")


def test_a_link_to_the_folder_is_fine(hostile: Hostile) -> None:
    (hostile.path.parent / "link").symlink_to(hostile.path)
    load_pipeline(hostile.path.parent / "link", "cpu")


def damage_truncate(h: Hostile) -> None:
    h.shard.write_bytes(h.shard.read_bytes()[:-100])


def damage_flip(h: Hostile) -> None:
    data = bytearray(h.shard.read_bytes())
    data[len(data) // 2] ^= 1
    h.shard.write_bytes(data)


def damage_missing(h: Hostile) -> None:
    h.shard.unlink()


def damage_folder(h: Hostile) -> None:
    h.shard.unlink()
    h.shard.mkdir()


def damage_pipe(h: Hostile) -> None:
    """A pipe would be read for ever."""
    h.shard.unlink()
    os.mkfifo(h.shard)


def damage_tokenizer(h: Hostile) -> None:
    (h.path / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize(
    "damage", [damage_truncate, damage_flip, damage_missing, damage_folder, damage_pipe, damage_tokenizer]
)
def test_damaged_files_are_refused(damage: Callable[[Hostile], None], hostile: Hostile) -> None:
    damage(hostile)
    hostile.refused("is missing or damaged; copy or train the model again")


@pytest.mark.parametrize("damage", [damage_truncate, damage_tokenizer])
def test_signed_damage_is_refused_too(damage: Callable[[Hostile], None], hostile: Hostile) -> None:
    damage(hostile)
    hostile.sign()
    hostile.refused("is damaged")


def test_a_tokenizer_that_the_record_does_not_name_is_not_read(hostile: Hostile) -> None:
    hostile.change(lambda record: record["files"].pop("tokenizer.json"))
    hostile.refused(r"tokenizer\.json is missing")


# weights


class Bomb:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch boom",)


def bomb_plain(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()))


def bomb_torch(path: Path) -> None:
    torch.save({"denoiser.network.enter.weight": Bomb()}, path)


def bomb_old(path: Path) -> None:
    torch.save({"denoiser.network.enter.weight": Bomb()}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("bomb", [bomb_plain, bomb_torch, bomb_old])
def test_pickles_are_never_opened(bomb: Callable[[Path], None], hostile: Hostile) -> None:
    bomb(hostile.shard)
    hostile.sign()
    hostile.refused("is damaged")


def test_a_pickle_of_another_name_is_not_read(hostile: Hostile) -> None:
    for name in ("weights.bin", "weights.pt", "weights.SafeTensors"):
        bomb_plain(hostile.path / name)
        hostile.change(lambda record, name=name: record["files"].update({name: sha256(hostile.path / name)}))  # type: ignore[misc]
    load_pipeline(hostile.path, "cpu")
    assert not Path("boom").exists()


def first(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in sorted(tensors) if name.startswith("denoiser."))


WEIGHTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "NaN": (lambda t: t[first(t)].view(-1)[0].fill_(float("nan")), "not numbers"),
    "infinity": (lambda t: t[first(t)].view(-1)[0].fill_(float("inf")), "not numbers"),
    "NaN in a buffer": (lambda t: t["autoencoder.latent_std"].fill_(float("nan")), "not numbers"),
    "whole numbers": (lambda t: t.update({first(t): t[first(t)].long()}), "not numbers"),
    "a missing weight": (lambda t: t.pop(first(t)), "do not fit"),
    "a weight too many": (lambda t: t.update({"denoiser.evil": torch.zeros(1)}), "do not fit"),
    "a part too many": (lambda t: t.update({"evil.weight": torch.zeros(1)}), "unknown weight 'evil.weight'"),
    "another shape": (lambda t: t.update({first(t): t[first(t)].flatten()[:-1].contiguous()}), "do not fit"),
    "no weights": (lambda t: t.clear(), "do not fit|wants more"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_are_wrong_are_refused(case: str, hostile: Hostile) -> None:
    change, match = WEIGHTS[case]
    hostile.tensors(change)
    hostile.refused(match)


def test_a_weight_in_two_shards_is_refused(hostile: Hostile) -> None:
    shutil.copy(hostile.shard, hostile.path / "more.safetensors")
    hostile.change(lambda record: record["files"].update({"more.safetensors": sha256(hostile.shard)}))
    hostile.refused("unknown weight")


@pytest.mark.parametrize("length", [0, 2**20, 2**62, 2**64 - 1])
def test_headers_that_lie_are_refused(length: int, hostile: Hostile) -> None:
    hostile.shard.write_bytes(length.to_bytes(8, "little") + b"{}")
    hostile.sign()
    hostile.refused("is damaged")


def test_a_header_of_terabytes_is_refused(hostile: Hostile) -> None:
    header = json.dumps({"denoiser.x": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}).encode()
    hostile.shard.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    hostile.sign()
    hostile.refused("is damaged")


def test_the_hash_of_nothing_is_no_excuse(hostile: Hostile) -> None:
    hostile.change(lambda record: record["files"].update({"gone": hashlib.sha256(b"").hexdigest()}))
    hostile.refused("gone is missing")
