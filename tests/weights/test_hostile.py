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
from safetensors.torch import load_file, save_file

from unnoise.engine.load import load_engine
from unnoise.errors import UnnoiseError
from unnoise.files import sha256
from unnoise.weights.verify import verify_model
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
    hostile.refused("lies outside|is missing")


def test_links_out_of_the_folder_are_refused(hostile: Hostile) -> None:
    moved = hostile.path.parent / "elsewhere.safetensors"
    hostile.shard.rename(moved)
    hostile.shard.symlink_to(moved)
    hostile.refused("lies outside of its model")


def test_links_in_a_circle_are_refused(hostile: Hostile) -> None:
    hostile.shard.unlink()
    hostile.shard.symlink_to(hostile.shard.name)
    hostile.refused("is missing")


def test_a_link_to_the_folder_is_fine(hostile: Hostile) -> None:
    (hostile.path.parent / "link").symlink_to(hostile.path)
    assert (
        load_engine(hostile.path.parent / "link", "cpu").model.record == load_engine(hostile.path, "cpu").model.record
    )


def damage_truncate(h: Hostile) -> None:
    h.shard.write_bytes(h.shard.read_bytes()[:-100])


def damage_swap(h: Hostile) -> None:
    """The shard of another part."""
    shutil.copy(h.text, h.shard)


def damage_retrained(h: Hostile) -> None:
    """The shard of another model of the same shape."""
    tensors = load_file(h.shard)
    first_one = next(iter(tensors.values()))
    first_one.add_(1)
    save_file(tensors, h.shard, {"sha256": "0" * 64})


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


def damage_longer(h: Hostile) -> None:
    h.shard.write_bytes(h.shard.read_bytes() + bytes(100))


DAMAGE = [
    damage_truncate, damage_swap, damage_retrained, damage_missing, damage_folder, damage_pipe, damage_tokenizer,
    damage_longer,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused(damage: Callable[[Hostile], None], hostile: Hostile) -> None:
    damage(hostile)
    hostile.refused("(missing|damaged|cut short).*; copy or train the model again")


@pytest.mark.parametrize("damage", [damage_truncate, damage_tokenizer, damage_longer])
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
    hostile.refused("is (a pickle|a zip|damaged|no safetensors)")


def test_a_pickle_of_another_name_is_not_read(hostile: Hostile) -> None:
    for name in ("weights.bin", "weights.pt", "weights.SafeTensors"):
        bomb_plain(hostile.path / name)
        hostile.change(lambda record, name=name: record["files"].update({name: sha256(hostile.path / name)}))  # type: ignore[misc]
    load_engine(hostile.path, "cpu")
    assert not Path("boom").exists()


def first(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in sorted(tensors) if name.startswith("denoiser."))


WEIGHTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "whole numbers": (lambda t: t.update({first(t): t[first(t)].long()}), "not numbers"),
    "a missing weight": (lambda t: t.pop(first(t)), "do not fit"),
    "a weight too many": (lambda t: t.update({"denoiser.evil": torch.zeros(1)}), "do not fit"),
    "a part too many": (lambda t: t.update({"evil.weight": torch.zeros(1)}), "unknown weight 'evil.weight'"),
    "another shape": (lambda t: t.update({first(t): t[first(t)].flatten()[:-1].contiguous()}), "do not fit"),
    "another dtype": (lambda t: t.update({first(t): t[first(t)].half()}), "do not fit.*is F16, not float32"),
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
    hostile.refused("names more.safetensors and no part")
    hostile.change(lambda record: record["parts"]["denoiser"]["shards"].update({"more.safetensors": None}))
    hostile.refused("unknown weight")


NOT_FINITE = {
    "NaN": ("denoiser.network.leave.2.bias", float("nan")),
    "infinity": ("denoiser.network.leave.2.bias", float("inf")),
    "NaN in the decoder": ("autoencoder.decoder.0.bias", float("nan")),
    "NaN in a buffer": ("autoencoder.latent_std", float("nan")),
    "NaN in the text tower": ("text.norm.bias", float("nan")),
}


@pytest.mark.parametrize("case", NOT_FINITE)
def test_weights_that_are_not_finite_end_a_run_with_an_error(case: str, hostile: Hostile) -> None:
    """A load does not read all weights; whoever draws with such a model, or verifies it, is told."""
    name, value = NOT_FINITE[case]
    shard = hostile.path / f"{name.partition('.')[0]}-01-of-01.safetensors"
    hostile.tensors(lambda tensors: tensors[name].view(-1)[0].fill_(value), shard)
    with pytest.raises(UnnoiseError, match=f"not finite .{name}.; train it again"):
        verify_model(hostile.path)
    pipeline = load_engine(hostile.path, "cpu")
    with pytest.raises(UnnoiseError, match="finite"):
        pipeline.generate("red", seed=1)


@pytest.mark.parametrize("length", [0, 2**20, 2**62, 2**64 - 1])
def test_headers_that_lie_are_refused(length: int, hostile: Hostile) -> None:
    hostile.shard.write_bytes(length.to_bytes(8, "little") + b"{}")
    hostile.sign()
    hostile.refused("no safetensors file, or cut short")


def test_a_header_of_terabytes_is_refused(hostile: Hostile) -> None:
    header = json.dumps({"denoiser.x": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}).encode()
    hostile.shard.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    hostile.sign()
    hostile.refused("is damaged")


def test_the_hash_of_nothing_is_no_excuse(hostile: Hostile) -> None:
    hostile.change(lambda record: record["files"].update({"gone": hashlib.sha256(b"").hexdigest()}))
    hostile.refused("gone is missing")
