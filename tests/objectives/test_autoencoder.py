"""The autoencoder's objective: reconstruction, edges, a small divergence, and a decoder that can be trained alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import tiny
from unnoise.autoencoders.kl import KLAutoencoder
from unnoise.core.objective import Draws
from unnoise.objectives.autoencoder import AutoencoderObjective

DRAWS = Draws(0, 0, 3, slice(None))


def pictures() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def autoencoder() -> KLAutoencoder:
    torch.manual_seed(0)
    return tiny.lively(KLAutoencoder(tiny.KL)).requires_grad_(True)


@torch.no_grad()
def test_the_loss_is_what_it_says() -> None:
    module, x = autoencoder(), pictures()
    loss = AutoencoderObjective(module, gradient=0.5, kl=0.01).loss({"pictures": x}, DRAWS)
    mean, std = module.encode_raw(x)
    y = module.decode_raw(mean + std * DRAWS.normal("latent", *mean.shape[1:]))
    l1 = (y - x).abs().mean((1, 2, 3))
    across = ((y[..., 1:] - y[..., :-1]) - (x[..., 1:] - x[..., :-1])).abs().mean((1, 2, 3))
    down = ((y[:, :, 1:] - y[:, :, :-1]) - (x[:, :, 1:] - x[:, :, :-1])).abs().mean((1, 2, 3))
    unit = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), unit).mean((1, 2, 3))
    assert loss.per_sample is not None
    assert torch.allclose(loss.per_sample, l1 + 0.5 * (across + down), rtol=1e-5)
    assert float(loss.total) == pytest.approx(float((l1 + 0.5 * (across + down) + 0.01 * kl).mean()), rel=1e-5)
    assert float(loss.metrics["kl"]) == pytest.approx(float(kl.mean()), rel=1e-5)
    error = (y.clamp(-1, 1) - x).pow(2).mean((1, 2, 3)) / 4  # of pictures in [0, 1]
    assert float(loss.metrics["psnr"]) == pytest.approx(float((-10 * torch.log10(error)).mean()), rel=1e-5)
    assert not any(value.requires_grad for value in loss.metrics.values())


def test_a_perfect_copy_costs_its_divergence_alone() -> None:
    class Copy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch.nn.Identity()

        def encode_raw(self, x: Tensor):  # type: ignore[no-untyped-def]
            from unnoise.core.autoencoder import Posterior

            return Posterior(x, torch.full_like(x, 1e-8))

        def decode_raw(self, z: Tensor) -> Tensor:
            return z

    loss = AutoencoderObjective(Copy(), kl=0.0).loss({"pictures": pictures()}, DRAWS)
    assert float(loss.total) < 1e-6
    assert float(loss.metrics["psnr"]) > 100
    assert math.isfinite(float(loss.metrics["kl"]))


@pytest.mark.parametrize("whole", [True, False])
def test_the_decoder_can_be_trained_alone(whole: bool) -> None:
    module = autoencoder()
    objective = AutoencoderObjective(module, train_encoder=whole)
    objective.loss({"pictures": pictures()}, DRAWS).total.backward()
    assert all(p.grad is not None for p in module.decoder.parameters())
    assert all((p.grad is not None) == whole for p in module.encoder.parameters())
    assert all(p.requires_grad == whole for p in module.encoder.parameters())


def test_whole_pictures_may_be_fewer_than_the_batch() -> None:
    """Toward the end a batch is a quarter as many whole pictures: they take the first rows of the noise."""
    module, x = autoencoder(), pictures()
    few = AutoencoderObjective(module).loss({"pictures": x[:1]}, Draws(0, 0, 3, slice(0, 1)))
    all_of_them = AutoencoderObjective(module).loss({"pictures": x}, DRAWS)
    assert few.per_sample is not None
    assert all_of_them.per_sample is not None
    assert torch.allclose(few.per_sample, all_of_them.per_sample[:1], rtol=1e-4)
