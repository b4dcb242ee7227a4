"""What stands in a file's place is named by every door that opens files, with the mend."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from inspection.test_look import LFS, PAGE
from unnoise.cli.main import main

POINTER = "a Git LFS pointer, a few lines of text in the file's place"
SITE = "a web page, such as a login or an error page"


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main([str(arg) for arg in args]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize(
    ("held", "said", "mend"), [(LFS, POINTER, "git lfs pull"), (PAGE, SITE, "logged in"), (b"", "empty", "again")]
)
def test_a_model_folder(
    held: bytes, said: str, mend: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    for name in ("tokenizer.json", next(model.glob("*.safetensors")).name, "model.json"):
        before = (model / name).read_bytes()
        (model / name).write_bytes(held)
        if held or name != "model.json":
            line = refused(capsys, "generate", "x", "--model", model)
            assert f"{name} is {said}" in line
            assert mend in line
        (model / name).write_bytes(before)


def test_what_is_no_model_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"\x80\x02}q\0.")
    assert "is a pickle, which can run code; make safetensors of it: `unnoise convert" in refused(
        capsys, "generate", "x", "--model", tmp_path / "a.ckpt"
    )
    (tmp_path / "model_index.json").write_text("{}")
    assert "has no U-Net" in refused(capsys, "generate", "x", "--model", tmp_path)


@pytest.mark.parametrize(
    ("held", "said"), [(LFS, POINTER), (PAGE, SITE), (b"GGUF", "a GGUF file"), (b'{"error": 1}', "JSON text")]
)
def test_pictures(held: bytes, said: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, good = tmp_path / "bad.png", tmp_path / "good.png"
    bad.write_bytes(held)
    Image.new("RGB", (128, 128)).save(good)
    out = ("--out", tmp_path / "out", "--model", tiny_model)
    for args in (
        ("generate", "x", "--start", bad, *out),
        ("generate", "x", "--start", good, "--mask", bad, *out),
        ("replay", bad),
    ):
        assert said in refused(capsys, *args)


def test_picture_sets(tmp_path: Path) -> None:
    """A caption that is a pointer would be learnt, word for word."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("a", "b"):
        Image.effect_noise((64, 64), 60).convert("RGB").save(folder / f"{name}.png")
    (folder / "a.txt").write_bytes(LFS)
    (folder / "b.txt").write_text("a cat")
    (folder / "c.png").write_bytes(PAGE)
    (folder / "d.parquet").write_bytes(LFS)
    (folder / "e.tar").write_bytes(LFS)
    assert main(["data", "folder", str(folder), "--out", str(tmp_path / "set"), "--keep-back", "0"]) == 0
    report = (tmp_path / "set" / "report.json").read_text("utf-8")
    assert report.count("Git LFS pointer") == 3
    assert report.count("a web page") == 1
