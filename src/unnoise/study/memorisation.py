"""Whether drawn pictures are training pictures, with a perfect memoriser as the control."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from unnoise.core.mixture import Deltas
from unnoise.core.noise import NoiseSource
from unnoise.core.sample import sample
from unnoise.paths.flow import Flow
from unnoise.solvers.euler import Euler
from unnoise.spacings.trailing import Trailing
from unnoise.study.distances import Figure, bootstrap

SIDE = 32


def thumbnails(pixels: Tensor) -> Tensor:
    """(N, 3 * 32 * 32) float64 in levels of 255, from uint8 (N, 3, H, W).

    Means of cells, so that a shift by a pixel or the grain of an autoencoder hardly matters.
    """
    return torch.cat([F.adaptive_avg_pool2d(rows.double(), SIDE).flatten(1) for rows in torch.split(pixels, 64)])


def nearest(pixels: Tensor, training: Tensor) -> Tensor:
    """(N,) distance of each picture to the nearest training picture: root mean square over its thumbnail, 0 to 255."""
    return distances(pixels, thumbnails(training)).amin(1)


def distances(pixels: Tensor, training: Tensor) -> Tensor:
    """(N, M) distance of each picture to each of M training pictures, given as ``thumbnails``."""
    near = thumbnails(pixels)
    exact = "donot_use_mm_for_euclid_dist"  # the fast form has no correct digits for equal pictures
    rows = [torch.cdist(x, training, compute_mode=exact) for x in torch.split(near, 16)]
    root_mean_square: Tensor = torch.cat(rows) / near.shape[1] ** 0.5
    return root_mean_square


def singled_out(pixels: Tensor, training: Tensor, neighbours: int = 50) -> Tensor:
    """(N,) distance of each picture to the nearest training picture, divided by its mean distance to the nearest 50.

    0 is a copy, 1 a picture at the same distance from all. The plain distance would call every blurred picture a copy,
    since such pictures are near to all; early in a training all pictures are blurred. The measure is that of Carlini
    et al. 2023 (arXiv 2301.13188, on CIFAR-10), without their factor alpha, which does not change ranks.

    Args:
        pixels: uint8 (N, 3, H, W).
        training: (M, 3 * 32 * 32) ``thumbnails`` of the training pictures.
        neighbours: how many, at most M.
    """
    near = distances(pixels, training).topk(min(neighbours, len(training)), dim=1, largest=False).values  # (N, k)
    return near[:, 0] / near.mean(1).clamp_min(1e-12)


def copied(ours: Tensor, real: Tensor, seed: int = 0) -> Figure:
    """The probability that a drawn picture is nearer to the training pictures than a real held-out one; ties are half.

    It is the Mann-Whitney statistic as a share, from the test of Meehan, Chaudhuri and Dasgupta 2020 (arXiv
    2004.05675): both sets are compared with the same training pictures, so their number has no influence. New pictures
    of the same kind get one half, copies 1; less than a half means far from everything.

    Args:
        ours, real: (N,) ``nearest`` or ``singled_out`` of drawn pictures and of real ones, for the same N held-out
            prompts.
    """
    nearer = (ours[:, None] < real).double() + 0.5 * (ours[:, None] == real).double()  # (N, N)
    return bootstrap(lambda counts: ((counts @ nearer) * counts).sum(1) / counts.sum(1) ** 2, len(ours), seed)


@torch.inference_mode()
def memoriser(latents: Tensor, seeds: Sequence[int], steps: int = 20) -> Tensor:
    """Latents drawn by the denoiser of a list of training latents: each ends on one of them (``core.mixture.Deltas``).

    It reads no prompt. A figure for memorisation that does not expose it is useless.

    Args:
        latents: (N, C, h, w) of the training pictures.
        seeds: one per picture.
    """
    shape = tuple(latents.shape[1:])
    levels = Trailing().levels(Flow(), steps, shape)
    noise = NoiseSource(seeds, shape, torch.float32)
    x = noise.initial() * levels[0].sigma
    for step in sample(Deltas(latents).estimate, Euler(), levels, x, noise):
        x = step.run.x
    return x
