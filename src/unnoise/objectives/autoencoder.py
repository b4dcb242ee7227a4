from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from unnoise.core import checks
from unnoise.core.autoencoder import Posterior
from unnoise.core.objective import Batch, Draws, Loss, Objective, Phase, Role
from unnoise.core.registry import register


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.diff(dim=-1), x.diff(dim=-2)


@register("autoencoder")
class AutoencoderObjective(Objective):
    """Reconstruction through a Gaussian bottleneck: L1, L1 of the gradients for sharp edges, and a small KL.

    Rombach et al. 2022 (arXiv 2112.10752), section 3.1, without the adversary: the KL keeps latents near a unit
    Gaussian and the noise that it lets in is far below what a decoder notices.

    Args:
        autoencoder: with ``encode_raw`` and ``decode_raw``.
        gradient: weight of the gradients' L1.
        kl: weight of the divergence from a unit Gaussian, in nats a latent number.
        train_encoder: False trains the decoder alone, for latents that networks already live in.
    """

    def __init__(
        self, autoencoder: torch.nn.Module, gradient: float = 0.5, kl: float = 1e-4, train_encoder: bool = True
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.gradient, self.kl = checks.number("gradient", gradient, 0), checks.number("kl", kl, 0)
        self.train_encoder = checks.flag("train_encoder", train_encoder)
        autoencoder.encoder.requires_grad_(train_encoder)

    def roles(self) -> dict[str, Role]:
        return {"autoencoder": Role(self.autoencoder)}

    def phases(self) -> list[Phase]:
        return [Phase("reconstruction", ("autoencoder",), 1, self.loss)]

    def loss(self, batch: Batch, draws: Draws) -> Loss:
        """``batch["pictures"]``: (B, 3, H, W) in [-1, 1]."""
        x: Tensor = batch["pictures"]
        with torch.set_grad_enabled(self.train_encoder):
            p: Posterior = self.autoencoder.encode_raw(x)  # type: ignore[operator]
            z = p.mean + p.std * draws.normal("latent", *p.mean.shape[1:]).to(p.mean.dtype)
        y: Tensor = self.autoencoder.decode_raw(z)  # type: ignore[operator]
        l1 = (y - x).abs().mean(dim=(1, 2, 3))
        edges = sum((a - b).abs().mean(dim=(1, 2, 3)) for a, b in zip(_gradients(y), _gradients(x), strict=True))
        kl = 0.5 * (p.mean**2 + p.std**2 - 1 - 2 * torch.log(p.std)).mean(dim=(1, 2, 3))
        per_sample = l1 + self.gradient * edges
        psnr = -10 * torch.log10(F.mse_loss(y.detach().float().clamp(-1, 1), x, reduction="none").mean((1, 2, 3)) / 4)
        metrics = {"psnr": psnr.mean(), "kl": kl.mean().detach()}
        return Loss((per_sample + self.kl * kl).mean(), per_sample.detach(), None, metrics)
