"""The power of a picture by spatial frequency, summed over rings of the spectrum."""

from __future__ import annotations

import torch
from torch import Tensor

EDGES = (0.5, 1.5, 3.0, 6.0, 12.0, 24.0, 48.0)  # cycles per picture width: octaves, coarse to fine, without corners
NAMES = tuple(f"{low:g} to {high:g}" for low, high in zip(EDGES[:-1], EDGES[1:], strict=True))
COARSE, FINE = slice(2), slice(3, None)  # bands below 3 cycles, the layout, and above 6, the texture


def grey(pixels: Tensor) -> Tensor:
    """(N, H, W) float64 mean of the channels in [0, 1], from uint8 (N, 3, H, W)."""
    return pixels.double().mean(1) / 255


def power(x: Tensor) -> Tensor:
    """(N, 6) power in each band of ``EDGES``, from (N, H, W): |F|^2 of the two-dimensional DFT, a sum over a ring.

    Divided by (H W)^2, so that a wave of amplitude a has a^2 / 2 in its own ring, and all rings together, corners
    included, sum to the variance (Parseval). Power spectra usually take the mean over a ring; here it is the sum, since
    a study of steps needs each band's share of the picture.
    """
    height, width = x.shape[-2:]
    down = torch.fft.fftfreq(height, 1 / height, dtype=torch.float64)
    across = torch.fft.fftfreq(width, 1 / width, dtype=torch.float64)
    radius = torch.hypot(down[:, None], across)  # (H, W) cycles a picture
    spectrum = torch.fft.fft2(x.double()).abs() ** 2 / (height * width) ** 2
    rings = [(radius >= low) & (radius < high) for low, high in zip(EDGES[:-1], EDGES[1:], strict=True)]
    return torch.stack([spectrum[:, ring].sum(1) for ring in rings], dim=1)


def fineness(pixels: Tensor) -> Tensor:
    """(N,) power of uint8 pictures (N, 3, H, W) above 6 cycles per width: a blur has too little, noise too much."""
    return power(grey(pixels))[:, FINE].sum(1)


def compared(pixels: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """(ratio, off), (6,) each: by band, the power of pictures, and of their difference from the last ones, over the
    power of the last ones.

    A blurred picture has a ratio below 1 in fine bands; a sharp picture of something else has 1 there, and is off by 2.

    Args:
        pixels, last: uint8 (N, 3, H, W) of the same rows; powers are summed over rows before they are divided.
    """
    total = power(grey(last)).sum(0).clamp_min(1e-12)
    return power(grey(pixels)).sum(0) / total, power(grey(pixels) - grey(last)).sum(0) / total
