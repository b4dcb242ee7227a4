"""Names of models: what a user types finds one file, or the line that it gets says what to type."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from unnoise.errors import UnnoiseError
from unnoise.files import sha256
from unnoise.weights import index
from unnoise.weights.lookup import find, part_file, parts_for, resolve
from unnoise.weights.quick import quick_hash
from weights import written
from weights.written import SD1, SDXL, TAESD, cached, clip, openclip, unet, vae, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models that is listed, with an empty list beside it."""
    monkeypatch.setenv("UNNOISE_HOME", str(tmp_path / "home"))
    root = tmp_path / "models"
    write(root / "checkpoints/SDXL/juggernautXL_v9.safetensors", SDXL, 1)
    write(root / "checkpoints/v1-5-pruned.safetensors", SD1, 2)
    write(root / "checkpoints/v1-5-pruned-emaonly.safetensors", SD1, 3)
    write(root / "loras/style.safetensors", written.LORA, 4)
    write(root / "a/twin.safetensors", SD1, 5)
    write(root / "b/twin.safetensors", SD1, 6)
    write(root / "a/copy.safetensors", SD1, 7)
    write(root / "b/copy.safetensors", SD1, 7)
    write(root / "checkpoints/both.safetensors", SD1, 8)
    write(root / "loras/both.safetensors", written.LORA, 9)
    (root / "old.ckpt").write_bytes(pickle.dumps({}, 2))
    (root / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    cached(root / "hub", "owner/name", {"one.safetensors": SDXL})
    index.add(root)
    return root


def refused(name: str, kind: str | None = None) -> str:
    with pytest.raises(UnnoiseError) as caught:
        resolve(name, kind=kind)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names(folder: Path) -> None:
    file = folder / "checkpoints/SDXL/juggernautXL_v9.safetensors"
    full = quick_hash(file)
    for name in ("juggernautXL_v9", "juggernautXL_v9.safetensors", "juggernautxl_V9", "SDXL/juggernautXL_v9", "jugg",
                 "SDXL/juggernautXL_v9.safetensors", full, full[:10], f"~{full[:10]}", full[:6].upper()):  # fmt: skip
        assert find(name) == file, name
    assert find("v1-5-pruned").name == "v1-5-pruned.safetensors", "a whole name goes before the beginning of others"
    assert (
        find("owner/name/one")
        == find("one")
        == folder / "hub/models--owner--name/snapshots/0123456789abcdef/one.safetensors"
    )


def test_a_sha256_is_a_name_where_it_is_known(folder: Path) -> None:
    file = folder / "checkpoints/v1-5-pruned.safetensors"
    digest = sha256(file)
    assert find(digest[:10]) is None
    entry = index.read_index().entries[str(file)]
    index.keep({str(file): entry._replace(sha256=digest)})
    assert find(digest[:10]) == find(digest.upper()) == file


def test_doubt_is_named(folder: Path) -> None:
    text = refused("twin")
    assert text.startswith("several models are called 'twin': twin (checkpoint, ~")
    assert text.count(str(folder)) == 2
    assert "type its path or its hash" in text
    assert find("a/twin") == folder / "a/twin.safetensors"
    assert find("copy") == folder / "a/copy.safetensors", "equal files are no doubt"
    text = refused("v1-5")
    assert "begins the names of several models: v1-5-pruned-emaonly" in text
    assert find("both").parent.name == "checkpoints", "a checkpoint goes before what is added to one"
    assert find("both", "adapter").parent.name == "loras"
    assert find("style", "denoiser") is None
    assert "no file, folder or listed model is called 'style'" in refused("style", "denoiser")
    assert find("both", "autoencoder") == find("both"), "a checkpoint may have it inside"


def test_what_cannot_be_used_is_said(folder: Path) -> None:
    assert re.search(
        r"old.ckpt is a pickle, .*rewrite it first: `unnoise convert .*old.ckpt --out .*old.safetensors`",
        refused("old"),
    )
    whole = folder / "whole"
    (whole / "unet").mkdir(parents=True)
    (whole / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
    (whole / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps({}, 2))
    index.add(folder)
    assert f"{whole} has its weights as pickles, which are never opened here; look for a copy" in refused("whole")
    assert "is broken: cut.safetensors is no safetensors file, or cut short" in refused("cut")
    assert "listed model is called 'jugernautXL'; did you mean juggernautXL_v9?" in refused("jugernautXL")
    assert "`unnoise models` lists them" in refused("zzz")
    assert find("") is None
    (folder / "loras/style.safetensors").unlink()
    assert "is gone; run `unnoise models scan`, or mount its disk" in refused("style")
    index.remove(folder)
    assert "listed model is called 'style'; add folders of models: `unnoise models add FOLDER`" in refused("style")


def test_parts_that_are_missing_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNNOISE_HOME", str(tmp_path / "home"))
    root = tmp_path / "models"
    assert parts_for("sdxl", "autoencoder") == []
    files = {
        "xl.safetensors": SDXL, "one.safetensors": SD1, "sdxl_vae.safetensors": vae(), "mine.safetensors": vae(),
        "vae-ft-mse.safetensors": vae(), "flux.safetensors": vae("", 16), "l.safetensors": clip(768),
        "g.safetensors": clip(1280), "h.safetensors": openclip(1024), "taesd.safetensors": TAESD,
        "taesdxl.safetensors": TAESD, "unet.safetensors": unet(2048),
    }  # fmt: skip
    for number, (name, shapes) in enumerate(files.items()):
        write(root / name, shapes, number)
    index.add(root)

    def names(family: str, part: str) -> list[str]:
        return [path.stem for path in parts_for(family, part)]

    assert names("sdxl", "autoencoder") == ["sdxl_vae", "xl"], "an autoencoder of no mark may be another family's"
    assert names("sdxl-refiner", "autoencoder") == ["sdxl_vae"]
    assert names("sd1", "autoencoder") == ["vae-ft-mse", "mine", "one"]
    assert names("sd2", "autoencoder") == ["vae-ft-mse", "mine"]
    assert names("flux1", "autoencoder") == []
    assert names("sdxl", "text.clip-l") == ["l", "xl"]
    assert names("sdxl", "text.clip-g") == ["g", "xl"]
    assert names("sd2", "text.clip-h") == ["h"]
    assert names("sdxl", "decoder") == ["taesdxl"]
    assert names("sd1", "denoiser") == ["one"]
    assert part_file("text.clip-g", "g") == root / "g.safetensors"
    assert part_file("autoencoder", str(root / "l.safetensors")).name == "l.safetensors", "a path is not judged"
    with pytest.raises(UnnoiseError, match="no file, folder or listed model is called 'g'"):
        part_file("autoencoder", "g")
    (root / "g.safetensors").unlink()
    assert names("sdxl", "text.clip-g") == ["xl"], "what is gone is no answer"
