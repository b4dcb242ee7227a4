"""What every autoencoder does: laws over the registry, on default settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import lively
from unnoise.core.registry import find, index


def make(name: str) -> Any:
    torch.manual_seed(0)
    return lively(find("autoencoders", name)(), 0.02)


def pictures(rows: int = 2, size: int = 128) -> Tensor:
    return torch.rand(rows, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def shapes_are_as_its_space_says(name: str) -> None:
    autoencoder = make(name)
    for size in (64, 128):
        x = pictures(2, size)
        mean, std = autoencoder.encode(x)
        assert mean.shape == std.shape == (2, *autoencoder.space.shape(size))
        assert (std > 0).all()
        assert autoencoder.decode(mean).shape == x.shape


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


LAWS = [shapes_are_as_its_space_says, is_much_smaller, normalises_its_latents, takes_rows_alone, stays_finite]


@pytest.mark.parametrize("name", index("autoencoders"))
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_autoencoder(law: Callable[[str], None], name: str) -> None:
    law(name)
