"""Files and weights that are wrong, by accident or by intent: each is one clear error, and none is ever run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unnoise.engine.load import load_pipeline
from unnoise.files import sha256
from weights import hostile as ear
from weights.hostile import Hostile

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
    assert load_pipeline(hostile.path.parent / "link", "cpu").record == load_pipeline(hostile.path, "cpu").record


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


def test_the_ear_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a pickle that is opened, here on purpose, is noticed."""
    monkeypatch.chdir(tmp_path)
    ear.heard.clear()
    monkeypatch.setattr(ear, "listening", True)
    pickle.loads(pickle.dumps(Bomb()))
    heard = list(ear.heard)
    assert [event.split()[0] for event in heard] == ["pickle.find_class", "os.system"]
    assert (tmp_path / "boom").exists()


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
