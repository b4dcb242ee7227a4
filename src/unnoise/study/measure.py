"""Figures for each part of a model, on pictures that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unnoise.core.autoencoder import Autoencoder
from unnoise.core.denoiser import Denoiser
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import normal
from unnoise.data.feeds import rows_of
from unnoise.data.store import PictureSet
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.pictures import from_bytes

LOG_SNRS = (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0)


class Reconstruction(NamedTuple):
    """PSNR in dB of each picture after the autoencoder (RGB in [0, 255] rounded, posterior mean)."""

    items: list[int]
    psnr: Tensor

    def worst(self, count: int = 10) -> list[tuple[int, float]]:
        """(picture, dB) of the worst, worst first."""
        order = self.psnr.argsort()[:count].tolist()
        return [(self.items[i], float(self.psnr[i])) for i in order]


@torch.inference_mode()
def reconstruction(autoencoder: Autoencoder, pictures: PictureSet, items: Sequence[int]) -> Reconstruction:
    """How faithfully an autoencoder reproduces these pictures; the posterior's mean is decoded, rounded to 8 bits."""
    device = next(autoencoder.parameters()).device
    values = []
    for rows in torch.split(torch.tensor(list(items)), 16):
        pixels = pictures.pictures(rows).to(device)
        x = from_bytes(pixels).contiguous(memory_format=torch.channels_last)
        y = ((autoencoder.decode(autoencoder.encode(x).mean).clamp(-1, 1) + 1) * 127.5).round()
        error = ((y - pixels) ** 2).mean(dim=(1, 2, 3))
        values.append(10 * torch.log10(255**2 / error.clamp_min(1e-10)))
    return Reconstruction(list(items), torch.cat(values).cpu())


class Retrieval(NamedTuple):
    """How often the right one is among the first k: pictures by captions, and captions by pictures."""

    candidates: int
    k: int
    by_caption: float
    by_picture: float


@torch.inference_mode()
def retrieval(
    text: nn.Module,
    image: nn.Module,
    pair: nn.Module,
    tokenizer: Tokenizer,
    pictures: PictureSet,
    items: Sequence[int],
    k: int = 10,
) -> Retrieval:
    """Recall@k of a contrastive pair among these pictures and their first captions; identical pictures count as one."""
    device = next(text.parameters()).device
    ids = rows_of([pictures.captions[i][0] for i in items], tokenizer).to(device)
    x = from_bytes(pictures.pictures(list(items)).to(device))
    looks = torch.cat([image(rows) for rows in torch.split(x, 64)])  # (pictures, width)
    scores = pair(text(ids).pooled, looks).cpu()  # (captions, pictures)
    group = torch.tensor([pictures.identical[i] for i in items])
    right = group[:, None] == group  # (N, N)

    def recall(matrix: Tensor) -> float:
        top = matrix.topk(min(k, len(items)), dim=1).indices
        return float(right.gather(1, top).any(1).double().mean())

    return Retrieval(len(items), k, recall(scores), recall(scores.T))


@torch.inference_mode()
def noise_error(
    denoiser: Denoiser,
    text: nn.Module,
    autoencoder: Autoencoder,
    tokenizer: Tokenizer,
    pictures: PictureSet,
    items: Sequence[int],
    log_snrs: Sequence[float] = LOG_SNRS,
    seed: int = 0,
) -> dict[float, float]:
    """Mean squared error of the predicted noise at fixed log-SNR, with the first caption; 1 without any knowledge.

    Pictures, levels and noise are the same for every path and prediction, so that denoisers can be compared.
    """
    device = next(denoiser.parameters()).device
    errors: dict[float, float] = {}
    x = from_bytes(pictures.pictures(list(items)).to(device))
    x0 = torch.cat(
        [autoencoder.encode(rows.contiguous(memory_format=torch.channels_last)).mean for rows in torch.split(x, 16)]
    )
    cond = text(rows_of([pictures.captions[i][0] for i in items], tokenizer).to(device))
    for number, log_snr in enumerate(log_snrs):
        # a variance-preserving level; the denoiser rescales it onto its own path
        sigma = float(torch.sigmoid(torch.tensor(-2.0 * log_snr, dtype=torch.float64)).sqrt())
        level = NoiseLevel((1 - sigma**2) ** 0.5, sigma)
        eps = normal(x0.shape, "measure", seed, number).to(x0)
        parts = []
        for start in range(0, len(items), 64):
            rows = slice(start, start + 64)
            estimate = denoiser(level.mix(x0[rows], eps[rows]), level, cond=cond.rows(rows))
            parts.append(((estimate.eps - eps[rows]) ** 2).mean(dim=(1, 2, 3)))
        errors[log_snr] = float(torch.cat(parts).mean())
    return errors


class Adherence(NamedTuple):
    """How often a drawn picture's own prompt is the judge's first choice among ``candidates`` prompts.

    Attributes:
        candidates: prompts to choose among, the right one included.
        first: share of the pictures whose prompt came first.
        similarity: mean cosine similarity of picture and prompt.
    """

    candidates: int
    first: float
    similarity: float


@torch.inference_mode()
def adherence(
    pictures: Tensor, prompts: Sequence[str], text: nn.Module, image: nn.Module, pair: nn.Module, tokenizer: Tokenizer
) -> Adherence:
    """Judges pictures by a contrastive pair: is each one's own prompt the nearest of all prompts?

    Args:
        pictures: (N, 3, H, W) float pictures in about [-1, 1], one per prompt.
        prompts: N prompts, all different.
        text, image, pair, tokenizer: the judge; the fewer weights it shares with the generator, the better.
    """
    scores = pair(text(rows_of(prompts, tokenizer)).pooled, image(pictures.clamp(-1, 1)))  # (prompts, pictures)
    first = (scores.argmax(0) == torch.arange(len(prompts))).double().mean()
    return Adherence(len(prompts), float(first), float(scores.diagonal().mean()))
