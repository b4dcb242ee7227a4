"""Chooses the levels of a run by minimising Align Your Steps' bound on the error of its distribution, exactly.

Sabour et al. 2024 (arXiv 2404.14507), section 3. With T = (alpha / sigma)^2 and y = T x / alpha, sampling with fresh
noise is dy = D dT + dB with D the predicted picture (Montanari 2023, arXiv 2305.10690), and ``euler-a`` is the same
with D constant over a step. Girsanov's theorem gives the Kullback-Leibler divergence between the two distributions of
whole trajectories, which the divergence of their ends cannot exceed. It is the paper's bound, KLUB:

    1/2 sum_i int_(T_i)^(T_(i+1)) E|D(x_T) - D(x_(T_i))|^2 dT

The paper draws states for each expectation and moves one level at a time. Here one more fact is used. Noisier states
hold no information that cleaner ones lack, so for a perfect denoiser D(x_(T_i)) is the mean of D(x_T) given x_(T_i),
and by Pythagoras the expectation is a difference of losses, L(T) = E|x0 - D(x_T)|^2:

    1/2 sum_i int_(T_i)^(T_(i+1)) (L(T_i) - L(T)) dT

which is the area between a staircase and the curve of the loss. The area under the curve is the information that states
hold about the picture (Guo, Shamai and Verdu 2005, arXiv cs/0412108, theorem 2). So only the loss at each level is
needed, and since the bound is a sum over steps, dynamic programming finds its minimum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unnoise.core.guidance import Bound
from unnoise.core.level import NoiseLevel
from unnoise.core.sample import check_levels
from unnoise.core.solver import Denoise
from unnoise.errors import UnnoiseError
from unnoise.study.search import cheapest


def losses(denoise: Bound | Denoise, levels: Sequence[NoiseLevel], x0: Tensor, eps: Tensor) -> Tensor:
    """(N + 1,) float64 mean over pictures of |x0 - D|^2, summed over a picture, at each level; one call a level.

    Args:
        denoise: as for ``sample``; without guidance, since guided estimates are no means.
        levels: from the noisiest on, all with noise.
        x0: (B, ...) pictures, of the data or drawn by the network itself.
        eps: (B, ...) standard normal noise, the same at all levels so that the curve is smooth.
    """
    estimates = [denoise(level.mix(x0, eps), level, level).x0 for level in levels]
    return torch.stack([(x0 - d).double().pow(2).flatten(1).sum(1).mean() for d in estimates])


def bounds(levels: Sequence[NoiseLevel], loss: Tensor) -> Tensor:
    """(N, N + 1) float64: the contribution of a step from level i to j to the bound, in nats; infinite unless j > i.

    Between levels the loss is interpolated linearly in T, so the grid should be fine. A loss that rises toward
    the data, as an estimate may, is replaced by the smallest before it.

    Args:
        levels: N + 1 of them, from the noisiest (pure noise may be one) to the last with noise.
        loss: (N + 1,) at each of them, see ``losses``.

    Raises:
        UnnoiseError: the levels do not fall, or the last is clean data, where T is infinite and so is the bound.
    """
    check_levels(levels)
    if float(levels[-1].sigma) == 0:
        raise UnnoiseError("the bound of a run to clean data is infinite", "end the grid at the last level with noise")
    time = torch.tensor([float(level.sigma_hat) ** -2 for level in levels], dtype=torch.float64)  # T, 0 at pure noise
    loss = loss.double().cpu().cummin(0).values
    pieces = (loss[1:] + loss[:-1]) / 2 * time.diff()
    area = torch.cat([pieces.new_zeros(1), pieces.cumsum(0)])  # under the curve, from the first level
    price = (loss[:, None] * (time - time[:, None]) - (area - area[:, None])) / 2
    ahead = torch.arange(len(levels)) > torch.arange(len(levels))[:, None]
    return torch.where(ahead, price, math.inf)[:-1]


def aligned(levels: Sequence[NoiseLevel], loss: Tensor, num_steps: int) -> list[NoiseLevel]:
    """``num_steps + 1`` levels of the grid with the smallest bound; the last is data.

    The bound covers the run down to the grid's last level, which is not visited: the last step goes past it to the
    predicted picture. Arguments are those of ``bounds``.

    Raises:
        UnnoiseError: as ``bounds``; or more steps than the grid has, or none.
    """
    way = cheapest(bounds(levels, loss), num_steps)
    return [*(levels[i] for i in way[:-1]), NoiseLevel(1.0, 0.0)]
