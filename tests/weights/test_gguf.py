"""Tensors of GGUF files: types, shapes in reverse, shapes that a converter has changed, and files that lie."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from unnoise.cli.main import main
from unnoise.inspection.look import look
from unnoise.weights.gguf import gguf_spans
from weights import foreign_files as made
from weights.test_jail import refusal, tried

NUMBERS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 30, torch.float64: 28, torch.int32: 26}


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def value(content: Any) -> bytes:
    """A key's value with its type in front."""
    if isinstance(content, str):
        return struct.pack("<I", 8) + string(content)
    if isinstance(content, list):
        return struct.pack("<IIQ", 9, 5, len(content)) + struct.pack(f"<{len(content)}i", *content)
    return struct.pack("<II", 4, content)


def gguf(
    tensors: Mapping[str, torch.Tensor],
    keys: Mapping[str, Any] | None = None,
    kinds: Mapping[str, int] | None = None,
    align: int = 32,
) -> bytes:
    """A file of version 3; ``kinds`` gives tensors other types than they have."""
    keys = {"general.architecture": "sd1", **({"general.alignment": align} if align != 32 else {}), **(keys or {})}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(string(key) + value(content) for key, content in keys.items())
    data = b""
    for name, tensor in tensors.items():
        kind = (kinds or {}).get(name, NUMBERS[tensor.dtype])
        dims = struct.pack(f"<I{tensor.dim()}Q", tensor.dim(), *reversed(tensor.shape))
        head += string(name) + dims + struct.pack("<IQ", kind, len(data))
        data += tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        data += bytes(-len(data) % align)
    return head + bytes(-len(head) % align) + data


def some() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(5, 3, 2, 2, generator=generator),
        "a.bias": torch.randn(5, generator=generator).half(),
        "b.weight": torch.randn(3, 7, generator=generator).bfloat16(),
        "c": torch.randn(2, generator=generator).double(),
        "d": torch.arange(4, dtype=torch.int32),
    }


@pytest.mark.parametrize("align", [32, 8, 256])
def test_every_bit_arrives(align: int, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(some(), align=align))
    answer, tensors = tried(path)
    assert answer["form"] == "a GGUF file"
    assert tensors.keys() == some().keys()
    assert [name for name, tensor in some().items() if not made.same(tensors[name], tensor)] == []


def test_shapes_that_a_converter_changed(tmp_path: Path) -> None:
    """ComfyUI-GGUF keeps the shape of what it flattened in a key."""
    weight = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    key = {"comfy.gguf.orig_shape.w": [2, 3, 4, 5], "comfy.gguf.orig_shape.other": [7]}
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf({"w": weight.reshape(6, 20), "v": torch.ones(3)}, key))
    assert made.same(tried(path)[1]["w"], weight)
    assert gguf_spans(path)["w"].shape == (2, 3, 4, 5)
    path.write_bytes(gguf({"w": weight.reshape(6, 20)}, {"comfy.gguf.orig_shape.w": [2, 3, 4, 6]}))
    assert "the original shape of 'w' is not as large as it" in refusal(path)


def test_types_are_converted(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(some()))
    _, tensors = tried(path, "float16")
    assert made.same(tensors["a.weight"], some()["a.weight"].half())
    assert made.same(tensors["b.weight"], some()["b.weight"].half())
    assert made.same(tensors["d"], some()["d"])


def test_quantised_types_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf({"w": torch.zeros(64), "v": torch.zeros(256), "f": torch.zeros(2)}, kinds={"w": 8, "v": 12}))
    assert "is quantised (Q4_K, Q8_0), and this program reads F32, F16 and BF16 of GGUF" in refusal(path)
    assert look(path).note == "this program does not read quantised weights (Q4_K, Q8_0)"
    path.write_bytes(gguf({"w": torch.zeros(64)}, kinds={"w": 77}))
    assert "is quantised (type 77)" in refusal(path)


def changed(data: bytes, at: int, code: str, number: int) -> bytes:
    return data[:at] + struct.pack(code, number) + data[at + struct.calcsize(code) :]


def test_files_that_lie(tmp_path: Path) -> None:
    path, data = tmp_path / "model.gguf", gguf({"tensor": torch.arange(64.0)})
    at = data.index(b"tensor") + 6  # how many axes, the axis, the type, the place
    cases = {
        "its tensors end at byte": data[:-1],
        "it ends in its header": data[:60],
        "it claims 4,611,686,018,427,387,904 tensors": changed(data, 8, "<Q", 2**62),
        "'tensor' has 99 dimensions": changed(data, at, "<I", 99),
        "'tensor' has no shape": changed(data, at + 4, "<Q", 2**60),
        r"its tensors end at byte 17,592,186,04\d,\d+": changed(data, at + 4, "<Q", 2**42),
        "its tensors end at byte .*it is cut short": changed(data, at + 16, "<Q", 2**40),
        "version 9 is not known": changed(data, 4, "<I", 9),
        "its numbers are big-endian": changed(data, 4, "<I", 3 << 24),
        "'__metadata__' is no name for a tensor": gguf({"__metadata__": torch.ones(2)}),
    }
    for why, content in cases.items():
        path.write_bytes(content)
        line = refusal(path)
        assert re.search(why, line), line
    path.write_bytes(gguf({"same": torch.ones(2), "samf": torch.ones(2)}).replace(b"samf", b"same"))
    assert "two tensors have the name" in refusal(path)


def test_damaged_files(tmp_path: Path) -> None:
    """Each is refused in one line, or gives tensors within its bytes."""
    path, data, chance = tmp_path / "model.gguf", gguf(some(), {"comfy.gguf.orig_shape.c": [1, 2]}), random.Random(5)
    head = data.index(b"d\x01\x00\x00\x00") + 30
    outcomes = {True: 0, False: 0}
    for _ in range(300):
        content = bytearray(data)
        for _ in range(chance.choice((1, 2, 8))):
            content[chance.randrange(head)] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        path.write_bytes(content[: chance.choice((len(content), len(content), chance.randrange(len(content))))])
        answer, tensors = tried(path)
        outcomes["refused" in answer] += 1
        assert sum(t.numel() * t.element_size() for t in tensors.values()) <= 2 * len(data)
    assert min(outcomes.values()) > 20


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "taesd.gguf"
    path.write_bytes(gguf({"first_stage_model.decoder.1.weight": torch.ones(64, 4, 3, 3)}))
    assert main(["convert", str(path), "--out", str(tmp_path / "out.safetensors")]) == 0
    assert "1 tensor, 2,304 numbers (F32 2,304) from a GGUF file" in capsys.readouterr().out
