"""The linear map: the least-squares optimum for a decoder, found again to the bit, and exact where it can be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tiny import KL, lively
from unnoise.autoencoders import linear
from unnoise.autoencoders.kl import KLAutoencoder
from unnoise.autoencoders.linear import FITTED, HELD_OUT, LinearAutoencoder, LinearConfig, fit
from unnoise.core.autoencoder import Autoencoder
from unnoise.engine.load import default_model
from unnoise.errors import UnnoiseError
from unnoise.pictures import from_bytes, from_image
from unnoise.weights.model import load_model

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture(scope="module")
def own() -> KLAutoencoder:
    torch.manual_seed(0)
    return lively(KLAutoencoder(KL))


def seen(own: Autoencoder) -> tuple[Tensor, Tensor]:
    """(columns, pixels) of the cells that a map is fitted to."""
    with torch.no_grad():
        z = own.encode(linear.random_pictures(FITTED + HELD_OUT, 64)[:FITTED]).mean
        return linear.columns(z, 1), linear.cells(own.decode(z).clamp(-1, 1), 8)


def solution(decoder: LinearAutoencoder) -> Tensor:
    """The map as a matrix, the constant below the rest."""
    weight, bias = decoder.map.weight.double(), decoder.map.bias.double()
    return torch.cat([weight.flatten(1).mT, bias[None]])


def test_it_is_the_least_squares_optimum(own: KLAutoencoder) -> None:
    """What is left is orthogonal to everything that is read; of a map that differs a little it is not, and it is more.

    The map is kept in float32, so that the bound is its rounding.
    """
    x, y = seen(own)
    best = solution(fit(own).decoder)

    def along(map_: Tensor) -> float:
        """The largest cosine between what is left and what is read."""
        left = y - x @ map_
        return float((x.mT @ left).abs().div(x.norm(dim=0)[:, None] * left.norm(dim=0)).max())

    assert along(best) < 1e-4
    error = (y - x @ best).square().mean()
    generator = torch.Generator().manual_seed(0)
    for size in (1e-2, 1e-1):
        other = best + size * best.std() * torch.randn(best.shape, generator=generator).double()
        assert along(other) > size
        assert (y - x @ other).square().mean() > error


def test_the_map_decodes_as_it_was_solved(own: KLAutoencoder) -> None:
    x, _ = seen(own)
    decoder = fit(own).decoder
    with torch.no_grad():
        z = own.encode(linear.random_pictures(FITTED + HELD_OUT, 64)[:FITTED]).mean
        got = linear.cells(decoder.decode(z), 8)
    assert torch.allclose(got, x @ solution(decoder), atol=1e-5)


def test_fits_are_alike_to_the_bit_and_say_how_near_they_come(own: KLAutoencoder) -> None:
    first, second = fit(own), fit(own)
    assert torch.equal(first.decoder.map.weight, second.decoder.map.weight)
    assert first[1:] == second[1:]
    alone = fit(own, reach=0)
    assert alone.decoder.map.weight.shape == (192, 4, 1, 1)
    assert first.psnr > alone.psnr
    assert alone.explained < first.explained < 1


@torch.no_grad()
def test_a_decoder_that_is_linear_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    own = LinearAutoencoder(LinearConfig(latent_channels=3, stride=4)).eval()
    pictures = linear.random_pictures
    monkeypatch.setattr(linear, "random_pictures", lambda *args: 0.2 * pictures(*args))  # far from where it is clipped
    found = fit(own)
    assert found.psnr > 80
    assert found.explained > 1 - 1e-6
    z = torch.randn(1, 3, 5, 7)
    assert torch.allclose(found.decoder.decode(z), own.decode(z), atol=1e-3)


@torch.no_grad()
def test_many_channels_are_fitted_to_as_many_cells(own: KLAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    pictures = linear.random_pictures
    monkeypatch.setattr(linear, "random_pictures", lambda *args: drawn.append(args) or pictures(*args))
    fit(LinearAutoencoder(LinearConfig(latent_channels=32, stride=4)))
    assert drawn[0][0] * linear.CELLS**2 > linear.SCARCE * (32 * 9 + 1)


@torch.no_grad()
def test_it_encodes_what_does_not_change_from_cell_to_cell(own: KLAutoencoder) -> None:
    decoder = fit(own).decoder
    z = torch.randn(2, 4, 1, 1, generator=torch.Generator().manual_seed(0)).expand(2, 4, 3, 5)
    assert torch.allclose(decoder.encode(decoder.decode(z)).mean, z, atol=1e-3)


def test_numbers_that_are_not_finite_are_no_map() -> None:
    torch.manual_seed(0)
    broken = KLAutoencoder(KL).eval()
    broken.latent_mean[:] = torch.nan
    with pytest.raises(UnnoiseError, match="not finite"):
        fit(broken)


@pytest.mark.slow
@torch.no_grad()
def test_it_comes_near_to_the_default_models_decoder() -> None:
    """On pictures that it drew, 21 dB; without the neighbours 3 dB less."""
    own = load_model(default_model(), ["autoencoder"])[0]["autoencoder"]
    assert isinstance(own, Autoencoder)
    files = [FIXTURES / f"solver-{name}.png" for name in ("ddim", "euler", "heun", "unipc")]
    pictures = torch.stack([from_image(Image.open(file)) for file in files])
    z = own.encode(from_bytes(pictures)).mean
    y = own.decode(z).clamp(-1, 1)
    near, alone = (linear.nearness(fit(own, reach).decoder, z, y)[0] for reach in (1, 0))
    assert near > 19
    assert near > alone + 2
