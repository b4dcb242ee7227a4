"""What every autoencoder does: laws over the registry, each in the tiny shape that its config has for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import lively
from unnoise.core.registry import find, index
from unnoise.errors import UnnoiseError
from unnoise.pictures import from_bytes
from unnoise.weights.model import load_model, save_model


def make(name: str) -> Any:
    torch.manual_seed(0)
    cls = find("autoencoders", name)
    return lively(cls(cls.Config.tiny()), 0.02)


def pictures(rows: int = 2, width: int = 128, height: int = 128) -> Tensor:
    return torch.rand(rows, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def shapes_are_as_its_space_says(name: str) -> None:
    autoencoder = make(name)
    for size in ((64, 64), (128, 128), (96, 40), (8, 160)):
        x = pictures(2, *size)
        mean, std = autoencoder.encode(x)
        assert mean.shape == std.shape == (2, *autoencoder.space.shape(size))
        assert (std > 0).all() if autoencoder.spread else (std == 0).all()
        assert autoencoder.decode(mean).shape == x.shape


def refuses_other_sizes(name: str) -> None:
    autoencoder = make(name)
    with pytest.raises(UnnoiseError, match="width 100 is no multiple of 8; choose 96 or 104"):
        autoencoder.encode(pictures(1, 100, 64))
    with pytest.raises(UnnoiseError, match="height 4 is no multiple of 8; choose 8"):
        autoencoder.encode(pictures(1, 64, 4))


def is_much_smaller(name: str) -> None:
    """Stride 8 and 48 times fewer numbers."""
    autoencoder = make(name)
    assert autoencoder.space.stride == 8
    assert pictures(1)[0].numel() == 48 * autoencoder.encode(pictures(1)).mean.numel()


def normalises_its_latents(name: str) -> None:
    """The buffers' mean and scale are taken out on the way in and put back on the way out; they travel in the state."""
    autoencoder = make(name)
    x = pictures()
    before, decoded = autoencoder.encode(x), autoencoder.decode(autoencoder.encode(x).mean)
    autoencoder.latent_mean += torch.arange(4) - 1.0
    autoencoder.latent_std *= 1.0 + torch.arange(4)
    after = autoencoder.encode(x)
    scale = (1.0 + torch.arange(4)).reshape(1, 4, 1, 1)
    shift = (torch.arange(4) - 1.0).reshape(1, 4, 1, 1)
    assert torch.allclose(after.mean * scale + shift, before.mean, atol=1e-5)
    assert torch.allclose(after.std * scale, before.std, atol=1e-6)
    assert torch.allclose(autoencoder.decode(after.mean), decoded, atol=1e-4)
    assert {"latent_mean", "latent_std"} <= autoencoder.state_dict().keys()
    assert not {"latent_mean", "latent_std"} & dict(autoencoder.named_parameters()).keys()


def scales_its_latents_as_published(name: str) -> None:
    """The shift and scale of its config are taken out on the way in and put back on the way out."""
    autoencoder = make(name)
    shift, scale, x = autoencoder.config.shift, autoencoder.config.scale, pictures()
    assert shift != 0
    assert scale != 1
    raw, found = autoencoder.encode_raw(x), autoencoder.encode(x)
    assert torch.allclose(found.mean, (raw.mean - shift) * scale, atol=1e-6)
    assert torch.allclose(found.std, raw.std * scale, atol=1e-6)
    assert torch.allclose(autoencoder.decode(found.mean), autoencoder.decode_raw(raw.mean), atol=1e-5)


def takes_rows_alone(name: str) -> None:
    autoencoder = make(name)
    x = pictures(3)
    z = autoencoder.encode(x).mean
    y = autoencoder.decode(z)
    for row in range(3):
        part = slice(row, row + 1)
        assert torch.allclose(autoencoder.encode(x[part]).mean, z[part], rtol=0, atol=1e-5 * z.abs().max())
        assert torch.allclose(autoencoder.decode(z[part]), y[part], rtol=0, atol=1e-5 * y.abs().max())


def stays_finite(name: str) -> None:
    """Flat pictures, black, white and far outside of the range, and latents of great size."""
    autoencoder = make(name)
    for value in (-1.0, 0.0, 1.0, 50.0):
        mean, std = autoencoder.encode(torch.full((1, 3, 64, 64), value))
        assert torch.isfinite(mean).all()
        assert torch.isfinite(std).all()
        assert torch.isfinite(autoencoder.decode(torch.full_like(mean, value))).all()


def keeps_every_distance(name: str) -> None:
    """A permutation but for one scale: distances between pictures are those between latents, and white stays white."""
    autoencoder = make(name)
    x = pictures(4)
    z = autoencoder.encode(x).mean
    assert z.numel() == x.numel()
    apart = torch.cdist(z.flatten(1).double(), z.flatten(1).double())
    assert torch.allclose(apart * autoencoder.latent_std, torch.cdist(x.flatten(1).double(), x.flatten(1).double()))
    assert torch.allclose(autoencoder.decode(z), x, atol=1e-6)
    values = (z[0] * autoencoder.latent_std).flatten().sort().values
    centred = (x[0] - autoencoder.latent_mean[:, None, None]).flatten().sort().values
    assert torch.allclose(values, centred, atol=1e-6), "the very numbers"


LAWS = [shapes_are_as_its_space_says, refuses_other_sizes, takes_rows_alone, stays_finite]
LEARNT = [is_much_smaller]
MEASURED = [normalises_its_latents]
PUBLISHED = [scales_its_latents_as_published]
EXACT = [keeps_every_distance]


def laws(kind: Any) -> list[Callable[[str], None]]:
    """The laws of an autoencoder of that kind."""
    if kind.exact:
        return [*LAWS, *EXACT]
    if not kind.spread:  # it reads and writes latents that another has scaled
        return [*LAWS, *LEARNT]
    return [*LAWS, *LEARNT, *(PUBLISHED if hasattr(kind.Config, "scale") else MEASURED)]


CASES = [
    pytest.param(law, name, id=f"{name}: {law.__name__}")
    for name in index("autoencoders")
    for law in laws(find("autoencoders", name))
]


@pytest.mark.parametrize(("law", "name"), CASES)
def test_autoencoder(law: Callable[[str], None], name: str) -> None:
    law(name)


def test_a_size_that_is_cut_to_fit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The controls of the laws of size: cells that are swapped, and a check that is left out."""
    kind = find("autoencoders", "folded")
    encode = kind.encode
    monkeypatch.setattr(kind, "encode", lambda self, x: encode(self, x.mT))
    with pytest.raises(AssertionError):
        shapes_are_as_its_space_says("folded")
    monkeypatch.setattr(kind, "check_size", lambda self, x: None)
    with pytest.raises(RuntimeError):
        refuses_other_sizes("folded")


def test_laws_of_exactness_find_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a folding that scales one number of a cell is not one."""
    kind = find("autoencoders", "folded")
    encode = kind.encode

    def louder(self: Any, x: Tensor) -> Any:
        found = encode(self, x)
        found.mean[:, 5] *= 1.01
        return found

    monkeypatch.setattr(kind, "encode", louder)
    with pytest.raises(AssertionError):
        keeps_every_distance("folded")


def test_folding_measures_its_pictures(tmp_path: Path) -> None:
    """Zero mean for each colour and unit variance over all, and a saved folder that is the same space to the bit."""
    shades = torch.tensor([200, 90, 30])[None, :, None, None]
    noise = torch.randint(-25, 25, (32, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    pixels = (shades + noise).to(torch.uint8)
    folded = find("autoencoders", "folded")().measure(pixels)
    z = folded.encode(from_bytes(pixels)).mean
    assert torch.allclose(z.unflatten(1, (3, 64)).mean((0, 2, 3, 4)), torch.zeros(3), atol=0.02)
    assert float(z.std()) == pytest.approx(1, abs=0.01)
    assert z[1, 64, 2, 3] * folded.latent_std + folded.latent_mean[1] == from_bytes(pixels)[1, 1, 16, 24]
    save_model(tmp_path / "model", {"autoencoder": folded})
    again = load_model(tmp_path / "model", ["autoencoder"])[0]["autoencoder"]
    assert torch.equal(again.encode(from_bytes(pixels)).mean, z)
