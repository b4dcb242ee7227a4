"""Models by their names, from the list to an engine: a denoiser alone finds its missing parts there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from small_models import diffusers_folder, modules, single_file
from unnoise.cli.choices import choices
from unnoise.cli.main import main
from unnoise.engine.foreign import Choices
from unnoise.engine.load import load_engine
from unnoise.errors import UnnoiseError
from unnoise.weights import index, roles
from unnoise.weights.families.family import families
from weights.fake_hub import serving


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a denoiser, an autoencoder and a text tower in a file each, which is on the list."""
    monkeypatch.setenv("UNNOISE_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(roles.WIDTHS, 64, "clip-l")  # of the small models
    root = tmp_path / "models"
    root.mkdir()
    parts = modules(families()["sd1"])
    for name, part in (("alone", "denoiser"), ("vae-ft-mse", "autoencoder"), ("clip_l", "text.clip-l")):
        single_file(root / f"{name}.safetensors", "sd1", parts, only=(part,))
    index.add(root)
    return root


@pytest.mark.slow
def test_missing_parts_come_from_the_list(listed: Path) -> None:
    engine = load_engine("alone", "cpu", choices=Choices(family="sd1"))
    files = sorted(engine.model.record["files"])
    assert files == [
        "autoencoder/vae-ft-mse.safetensors",
        "denoiser/alone.safetensors",
        "text.clip-l/clip_l.safetensors",
    ]
    named = choices(["autoencoder=VAE-ft-mse", "text.clip-l=clip_l.safetensors"], "sd1", None)
    assert named.parts == {
        "autoencoder": listed / "vae-ft-mse.safetensors",
        "text.clip-l": listed / "clip_l.safetensors",
    }
    assert load_engine("alone", "cpu", choices=named).model.record["files"] == engine.model.record["files"]
    (listed / "vae-ft-mse.safetensors").unlink()
    with pytest.raises(UnnoiseError, match=r"has no autoencoder; .*--part autoencoder=.*`unnoise models add`"):
        load_engine("alone", "cpu", choices=Choices(family="sd1"))


@pytest.mark.slow
def test_a_model_is_fetched_from_a_hub_and_drawn_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command line: refused without --download, fetched with it, and found in the cache from then on."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("UNNOISE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    diffusers_folder(tmp_path / "made", "sd1")
    files = {path.relative_to(tmp_path / "made").as_posix(): path for path in (tmp_path / "made").rglob("*.*")}
    draw = ["generate", "red apple", "--model", "o/sd", "--size", "64", "--steps", "1", "--seed", "1"]
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        hub.repositories["o/sd"] = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
        assert main(draw) == 1
        assert "add --download to fetch it" in capsys.readouterr().err
        assert not hub.asked
        assert main([*draw, "--download", "--out", "a"]) == 0
        assert "note: fetching o/sd to " in capsys.readouterr().err
        count = len(hub.asked)
        assert main([*draw, "--out", "b"]) == 0
        assert len(hub.asked) == count
    (first,), (second,) = (tmp_path / "a").glob("*.png"), (tmp_path / "b").glob("*.png")
    assert first.read_bytes() == second.read_bytes()
