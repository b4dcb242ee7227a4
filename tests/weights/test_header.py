"""Headers of weight files: what is in them is told, and what lies is refused, without loading a tensor."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from unnoise.cli.main import main
from unnoise.errors import UnnoiseError
from unnoise.weights.header import read_header


def written(path: Path, *names: str, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: torch.zeros(2, 3, dtype=torch.float16) for name in names}, path, metadata)
    return path


def raw(path: Path, header: Any, room: int = 64) -> Path:
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(data)) + data + b"\0" * room)
    return path


def test_what_is_in_it(tmp_path: Path) -> None:
    header = read_header(
        written(tmp_path / "a.safetensors", "double_blocks.0.a", "single_blocks.0.b", metadata={"title": "x"})
    )
    assert header.kind() == "the denoiser of Flux.1"
    assert header.parameters == 12
    assert header.dtypes() == {"F16": 12}
    assert header.metadata == {"title": "x"}
    assert header.tensors["double_blocks.0.a"] == ("F16", (2, 3))


def test_the_verb(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny_model)]) == 0
    out = capsys.readouterr().out
    assert "an unnoise model" in out
    assert "denoiser.network" in out
    assert main(["inspect", str(tiny_model), "--json", "--depth", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parts"].keys() == {"autoencoder", "text", "denoiser"}
    assert found["parameters"] == sum(part["parameters"] for part in found["parts"].values())
    file = written(tmp_path / "a.safetensors", "x\x1b[31m.y", metadata={"\x1b]0;": "\x07"})
    assert main(["inspect", str(file)]) == 0
    assert not {"\x1b", "\x07"} & set(capsys.readouterr().out), "a file cannot command a terminal"


def test_no_torch_is_loaded(tiny_model: Path) -> None:
    code = "import sys; from unnoise.cli.main import main; main(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, "inspect", tiny_model], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"{,}", "damaged"),
        ([], "damaged"),
        ({"a": 1}, "damaged"),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 65]}}, "behind the file's end"),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}, "behind the file's end"),
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 16]}}, "16 bytes for 3 numbers"),
        ({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, "has no shape"),
        ({"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 16]}}, "has no shape"),
        ({"__metadata__": {"a": 1}}, "no strings"),
        (b"[" * 60, "damaged"),
        ({"a" * 2000: {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, "a name of 2,000 characters"),
        ({"a": {"dtype": "X", "shape": [2**60], "data_offsets": [0, 4]}}, "has no shape"),
        ({"a": {"dtype": "X", "shape": [1] * 100, "data_offsets": [0, 4]}}, "has no shape"),
        (b'{"a": [' + b"[]," * 2_000_000 + b"[]]}", "more than 1,000,000 objects"),
    ],
)
def test_headers_that_lie_are_refused(header: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnnoiseError, match=said):
        read_header(raw(tmp_path / "a.safetensors", header))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"\0" * 100, "nothing but zeros"),
        (b"\xff" * 8, "cut short"),
        (struct.pack("<Q", 2**40), "cut short"),
        (struct.pack("<Q", 2**30) + b"{" + bytes(2**10), "cut short"),
        (b"PK\x03\x04 and more", "pickle"),
        (b"\x80\x02}q\x00.....", "pickle"),
        (b"GGUF\x03\0\0\0\0\0", "GGUF"),
        (b'{"error": "you are not logged in"}', r"JSON text .*not logged in.*download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html><title>Sign in</title>", "a web page.*download it again, logged in"),
        (b"Invalid username or password.", "text .*Invalid username"),
    ],
)
def test_other_files_are_refused(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(UnnoiseError, match=said):
        read_header(tmp_path / "a")


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x4B50])
def test_a_header_whose_length_begins_as_a_pickle_does_is_read(length: int, tmp_path: Path) -> None:
    """640, 896, 1152 and 19,280 bytes: all lengths that the library, which pads them to eights, may write."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode().ljust(length)
    assert read_header(raw(tmp_path / "a.safetensors", header)).parameters == 4


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UnnoiseError, match="no file"):
        read_header(tmp_path / "none")
    with pytest.raises(UnnoiseError, match="folder"):
        read_header(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a"]), inner, max_size=4)))  # fmt: skip  # noqa: E501
def test_any_bytes_are_a_header_or_a_mistake(tmp_path: Path, header: Any) -> None:
    try:
        read_header(raw(tmp_path / "a.safetensors", header))
    except UnnoiseError:
        return
