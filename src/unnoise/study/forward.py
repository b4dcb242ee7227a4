"""The forward process on one picture: noise is added until only noise is left."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from PIL import Image

from unnoise.core.noise import NoiseSource
from unnoise.core.path import Path
from unnoise.pictures import from_bytes, from_image, to_bytes, to_images


class Noised(NamedTuple):
    """A picture at one time.

    Attributes:
        t: time, from 0 (data) to 1 (noise).
        snr: signal-to-noise ratio alpha^2/sigma^2.
        image: the state alpha x0 + sigma eps, divided by sqrt(alpha^2 + sigma^2) if that is above 1, clipped.
    """

    t: float
    snr: float
    image: Image.Image


def noised(picture: Image.Image, path: Path, count: int, seed: int = 0) -> list[Noised]:
    """The picture at ``count`` equally spaced times from 0 to 1, with the same noise sample."""
    x0 = from_bytes(from_image(picture))[None]
    eps = NoiseSource([seed], x0.shape[1:]).initial()
    frames = []
    for number in range(count):
        t = number / (count - 1)
        level = path.at(t)
        size = max(1.0, math.hypot(float(level.alpha), float(level.sigma)))
        snr = (float(level.alpha) / float(level.sigma)) ** 2 if level.sigma else math.inf
        frames.append(Noised(t, snr, to_images(to_bytes(torch.as_tensor(level.mix(x0, eps)) / size))[0]))
    return frames
