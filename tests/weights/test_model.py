"""Model folders: what is saved comes back to the bit, and whatever is wrong with one is one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open

import tiny
from unnoise.core.denoiser import Denoiser
from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.errors import UnnoiseError
from unnoise.files import sha256
from unnoise.weights.model import SHARD_BYTES, load_model, save_model

PARTS = ("autoencoder", "text", "denoiser")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_round_trip_is_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    before = tiny.components()
    found, record = load_model(tiny.save(tmp_path / "a", dtype), PARTS)
    for part, module in before.items():
        weights = {name for name, _ in module.named_parameters()}
        state = found[part].state_dict()
        assert state.keys() == module.state_dict().keys()
        for name, tensor in module.state_dict().items():
            wanted = tensor.to(dtype).float() if name in weights else tensor
            assert torch.equal(state[name], wanted), f"{part}.{name}"
            assert not state[name].is_meta
        assert not found[part].training
    denoiser = found["denoiser"]
    assert isinstance(denoiser, Denoiser)
    assert (denoiser.path.name, denoiser.prediction.name, denoiser.noise_label) == ("flow", "flow", "time")
    assert record["name"] == "tiny"
    save_model(
        tmp_path / "b",
        found,
        {"name": "tiny", "defaults": tiny.DEFAULTS},
        {"tokenizer.json": tiny.tokenizer().json},
        dtype,
    )
    assert {p.name: sha256(p) for p in (tmp_path / "a").iterdir()} == {
        p.name: sha256(p) for p in (tmp_path / "b").iterdir()
    }


def test_a_model_that_was_loaded_can_be_trained(tiny_model: Path) -> None:
    modules, _ = load_model(tiny_model, ["text"])
    text = modules["text"].requires_grad_(True)
    text(torch.zeros(1, 16, dtype=torch.int64)).pooled.sum().backward()
    torch.optim.SGD(text.parameters(), 1.0).step()
    again = load_model(tiny_model, ["text"])[0]["text"]
    assert not torch.equal(text.position, again.position), "what is learnt stays in memory"


def test_one_part_can_be_loaded_alone(tiny_model: Path) -> None:
    assert list(load_model(tiny_model, ["text"])[0]) == ["text"]
    with pytest.raises(UnnoiseError, match="has no pair, only autoencoder, text, denoiser"):
        load_model(tiny_model, ["text", "pair"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_shards_are_small_enough(tmp_path: Path, dtype: torch.dtype) -> None:
    """At most 15 MiB, headers and all, whole tensors, each once."""
    text = CLIPText(CLIPTextConfig(vocabulary=2048, width=512, depth=4, hidden=2048))
    save_model(tmp_path / "m", {"text": text}, dtype=dtype)
    shards = sorted((tmp_path / "m").glob("*.safetensors"))
    assert len(shards) >= 2
    assert all(shard.stat().st_size <= SHARD_BYTES == 15 * 2**20 for shard in shards)
    names = [name for shard in shards for name in safe_open(shard, "pt").keys()]  # noqa: SIM118
    assert sorted(names) == sorted(f"text.{name}" for name in text.state_dict())


def test_a_folder_is_never_replaced(tiny_model: Path) -> None:
    before = {p.name: sha256(p) for p in tiny_model.iterdir()}
    with pytest.raises(UnnoiseError, match="already exists"):
        tiny.save(tiny_model)
    assert {p.name: sha256(p) for p in tiny_model.iterdir()} == before


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(UnnoiseError, match=r"was not written.*free some space"):
        tiny.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
