"""Models by their names, from the list to an engine: a denoiser alone finds its missing parts there."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_models import modules, single_file
from unnoise.cli.choices import choices
from unnoise.engine.foreign import Choices
from unnoise.engine.load import load_engine
from unnoise.errors import UnnoiseError
from unnoise.weights import index, roles
from unnoise.weights.families.family import families


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
