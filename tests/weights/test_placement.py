"""Weights of a model folder are mapped and placed part by part; verification reads them all, a load does not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from unnoise.core.registry import register
from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.engine.load import load_engine
from unnoise.errors import UnnoiseError
from unnoise.files import sha256
from unnoise.weights import model as saving
from unnoise.weights.model import load_model, save_model
from unnoise.weights.record import read_record
from unnoise.weights.verify import verify_model
from weights.hostile import Hostile, pair, same

# placement


def mapped_files(address: int) -> str:
    """The file that the memory at this address is a map of; "" for memory of the process's own."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        ends, *_, file = line.split(maxsplit=5) if len(line.split()) > 5 else (line.split()[0], "")
        low, high = (int(end, 16) for end in ends.split("-"))
        if low <= address < high:
            return Path(file).name if file.startswith("/") else ""
    raise AssertionError("no such memory")


def tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.state_dict().items()


def test_weights_are_mapped_and_not_copied(tmp_path: Path) -> None:
    """A cast copies them; so does the order of two-dimensional convolutions, and of these alone."""
    parts = tiny.components()
    save_model(tmp_path / "m", parts, dtype=torch.float32)
    found, _ = load_model(tmp_path / "m", list(parts))
    for part, module in found.items():
        planes = {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)}
        for name, tensor in tensors(module):
            file = mapped_files(tensor.data_ptr())
            assert file == ("" if name in planes else f"{part}-01-of-01.safetensors"), f"{part}.{name}"
    cast, _ = load_model(tmp_path / "m", ["text"], dtype=torch.bfloat16)
    assert {mapped_files(tensor.data_ptr()) for _, tensor in tensors(cast["text"])} == {""}


GROWTH = """
import sys
from pathlib import Path
import torch
from unnoise.weights.model import load_model

def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

load_model(Path(sys.argv[1]), ["text"], dtype=None)
before = private()
mapped = load_model(Path(sys.argv[1]), ["text"], dtype=None)
between = private()
copied = load_model(Path(sys.argv[1]), ["text"], dtype=torch.float32)
print(between - before, private() - between)
"""


@pytest.mark.slow
def test_loading_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    """Private memory grows by less than a tenth of the weights where they are mapped, and by all of them where cast.

    In a process of its own: one that has done other work takes memory that it has given back before.
    """
    text = CLIPText(CLIPTextConfig(vocabulary=16384, width=512, depth=2, hidden=2048))
    save_model(tmp_path / "m", {"text": text}, dtype=torch.bfloat16)
    size = sum(tensor.numel() for _, tensor in tensors(text)) * 2
    command = [sys.executable, "-c", GROWTH, str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    mapped, copied = map(int, done.stdout.split())
    assert mapped < size / 10
    assert copied > size


def test_what_is_written_to_a_weight_does_not_reach_the_file(tiny_model: Path) -> None:
    before = {p.name: sha256(p) for p in tiny_model.iterdir()}
    modules, _ = load_model(tiny_model, ["text"])
    for _, tensor in tensors(modules["text"]):
        tensor.add_(1)
    assert {p.name: sha256(p) for p in tiny_model.iterdir()} == before
    assert not same(load_model(tiny_model, ["text"])[0]["text"], modules["text"])


def test_each_part_has_a_dtype_and_a_device(tmp_path: Path) -> None:
    parts = {"text.a": pair(1), "text.b": pair(2), "text.c": pair(3)}
    save_model(tmp_path / "m", parts, dtype={"text.a": torch.float32, "text.b": torch.float16})
    entries = read_record(tmp_path / "m")["parts"]
    assert [entry["dtype"] for entry in entries.values()] == ["float32", "float16", "bfloat16"]

    def kinds(**changes: Any) -> list[torch.dtype]:
        found, _ = load_model(tmp_path / "m", list(parts), **changes)
        return [found[name].log_scale.dtype for name in parts]  # type: ignore[misc]

    assert kinds() == [torch.float32] * 3
    assert kinds(dtype=None) == [torch.float32, torch.float16, torch.bfloat16]
    assert kinds(dtype={"text.b": torch.float32}) == [torch.float32, torch.float32, torch.bfloat16]
    found, _ = load_model(tmp_path / "m", list(parts), device={"text.b": "meta"})
    assert [found[name].log_scale.device.type for name in parts] == ["cpu", "meta", "cpu"]


@dataclass(frozen=True)
class FilmConfig:
    channels: int = 8


@register("film-of-tests")
class Film(nn.Module):
    """Convolutions in space and time, and a plain one."""

    kind, Config = "encoders", FilmConfig

    def __init__(self, config: FilmConfig) -> None:
        super().__init__()
        self.config = config
        self.deep = nn.Conv3d(2, config.channels, 3)
        self.flat = nn.Conv2d(2, config.channels, 3)


def test_only_convolutions_in_two_dimensions_are_reordered(tmp_path: Path) -> None:
    film = Film(FilmConfig())
    with pytest.raises(RuntimeError):
        film.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_model(tmp_path / "m", {"film": film}, dtype=torch.float32)
    found: Any = load_model(tmp_path / "m", ["film"])[0]["film"]
    assert found.deep.weight.is_contiguous()
    assert found.flat.weight.is_contiguous(memory_format=torch.channels_last)
    assert found.deep(torch.zeros(1, 2, 3, 4, 4)).shape == (1, 8, 1, 2, 2)


# verification


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(data)


def test_verification_reads_all_and_a_load_does_not(hostile: Hostile) -> None:
    found = verify_model(hostile.path)
    held = sum(tensor.numel() for module in tiny.components().values() for _, tensor in tensors(module))
    assert found == (len(list(hostile.path.iterdir())) - 1, 3, held)
    flip(hostile.shard)
    load_engine(hostile.path, "cpu")
    with pytest.raises(UnnoiseError, match=r"denoiser-01-of-01\.safetensors is damaged: its SHA-256") as caught:
        verify_model(hostile.path)
    assert "\n" not in str(caught.value)


def test_verification_finds_what_a_load_finds(hostile: Hostile) -> None:
    shutil.copy(hostile.text, hostile.shard)
    hostile.sign()
    with pytest.raises(UnnoiseError, match="unknown weight"):
        verify_model(hostile.path)
    hostile.shard.unlink()
    with pytest.raises(UnnoiseError, match="is missing"):
        verify_model(hostile.path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_weights_that_are_not_finite_are_not_saved(value: float, tmp_path: Path) -> None:
    """Nor those that are not in the dtype that they are saved in."""
    part = pair(0).double()
    with torch.no_grad():
        part.text.weight[0, 0] = value
    with pytest.raises(UnnoiseError, match=r"pair\.text\.weight is not finite, and nothing was written"):
        save_model(tmp_path / "m", {"pair": part}, dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_wrongly_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(path: Path, tensors: dict[str, Tensor], metadata: Any) -> None:
        write(path, {name: tensor + (name == "pair.image.weight") for name, tensor in tensors.items()}, metadata)

    write = saving.save_tensors
    monkeypatch.setattr(saving, "save_tensors", careless)
    with pytest.raises(UnnoiseError, match=r"pair\.image\.weight was not written as it is"):
        save_model(tmp_path / "m", {"pair": pair(0)}, dtype=torch.float32)
    assert list(tmp_path.iterdir()) == []
