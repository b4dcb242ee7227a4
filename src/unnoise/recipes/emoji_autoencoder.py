from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from unnoise.autoencoders.kl import KLAutoencoder, KLConfig
from unnoise.core import checks
from unnoise.core.registry import register
from unnoise.data.feeds import CropFeed, trained
from unnoise.data.store import open_set
from unnoise.errors import UnnoiseError
from unnoise.objectives.autoencoder import AutoencoderObjective
from unnoise.pictures import from_bytes, to_bytes
from unnoise.recipes.begin import begin_from
from unnoise.recipes.latent import weights_sha256
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings


@register("emoji-autoencoder")
def emoji_autoencoder(
    data: Path = Path("data/emoji"),
    train: TrainSettings = TrainSettings(samples=48_000, batch=32, warmup=1000, cooldown=0.8, preview_every=12_000),
    network: KLConfig = KLConfig(),
    crop: int = 64,
    whole: float = 0.2,
    gradient: float = 0.5,
    kl: float = 1e-4,
    init: Path | None = None,
    keep_latents: bool = False,
) -> Training:
    """The autoencoder between 128-pixel pictures and 16 x 16 x 4 latents.

    Args:
        data: the picture set.
        train: length and rates.
        network: its shape.
        crop: size in pixels of the crops it learns from.
        whole: the last part of the training that sees whole pictures.
        gradient: weight of the L1 of gradients.
        kl: weight of the divergence of latents from a unit Gaussian.
        init: a model folder whose autoencoder the training starts from.
        keep_latents: train its decoder alone: what denoisers were trained on stays as it is, and they stay good.
    """
    if keep_latents and init is None:
        raise UnnoiseError("--keep-latents keeps those of --init, and none is named", "name a model folder with --init")
    checks.number("whole", whole, 0, 1)
    pictures = open_set(data)
    torch.manual_seed(train.seed)
    autoencoder = KLAutoencoder(network)
    autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = begin_from(init, {"autoencoder": autoencoder}, "autoencoder") if init else []
    if train.minutes and whole:
        raise UnnoiseError(
            "whole pictures begin at a step, which a training by time cannot tell beforehand",
            "give its length with --train.samples, or add --whole 0",
        )
    whole_from = None if train.minutes else round(train.samples * (1 - whole) / train.batch)
    feed = CropFeed(pictures, trained(pictures, "autoencoder"), crop, whole_from)
    held_out = from_bytes(pictures.pictures(pictures.held_out("autoencoder", "validation")[:16]))

    def finish(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        if not keep_latents:
            measure_latents(cast(KLAutoencoder, modules["autoencoder"]), feed)
        return {"autoencoder": modules["autoencoder"]}

    def preview(parts: Mapping[str, nn.Module]) -> Tensor:
        averaged = cast(KLAutoencoder, parts["autoencoder"])
        device = next(averaged.parameters()).device
        again = averaged.decode(averaged.encode(held_out.to(device)).mean).cpu()
        return to_bytes(torch.stack([held_out, again], dim=1).flatten(0, 1))

    font = pictures.manifest.get("origin", {}).get("font", {})
    now = {"recipe": "emoji-autoencoder", **train.length(), "batch": train.batch, "font": font}
    if keep_latents:
        now["kept"] = "latents"
    return Training(
        AutoencoderObjective(autoencoder, gradient, kl, train_encoder=not keep_latents),
        feed,
        train,
        {
            "recipe": "emoji-autoencoder",
            "network": network,
            "crop": crop,
            "whole": whole,
            "gradient": gradient,
            "kl": kl,
            "init": weights_sha256(autoencoder) if init else None,
            "keep_latents": keep_latents,
        },
        finish,
        preview if len(held_out) else None,
        {"trained": {"autoencoder": [*before, now]}},
    )


@torch.no_grad()
def measure_latents(autoencoder: KLAutoencoder, feed: CropFeed) -> None:
    """Sets the latent's mean and scale, each channel its own, to those of 1024 pictures spread over the set."""
    device = next(autoencoder.parameters()).device
    total, square, count = torch.zeros(()), torch.zeros(()), 0
    for items in torch.split(feed.items[:: max(1, len(feed.items) // 1024)], 64):
        x = from_bytes(feed.pixels[items].to(device)).contiguous(memory_format=torch.channels_last)
        p = autoencoder.encode_raw(x)
        total = total + p.mean.double().sum((0, 2, 3)).cpu()
        square = square + (p.mean.double() ** 2 + p.std.double() ** 2).sum((0, 2, 3)).cpu()
        count += p.mean[:, 0].numel()
    mean = total / count
    autoencoder.latent_mean.copy_(mean)
    autoencoder.latent_std.copy_((square / count - mean**2).sqrt())
