"""Which levels a run should visit, by how far its law may be off: Align Your Steps' criterion, minimised exactly.

Sabour et al. 2024 (arXiv 2404.14507), section 3. With T = (alpha / sigma)^2 and y = T x / alpha, sampling with fresh
noise is dy = D dT + dB with D the predicted picture (Montanari 2023, arXiv 2305.10690), and ``euler-a`` is the same
with D kept over a step. Girsanov's theorem gives the Kullback-Leibler divergence of the one law of whole trajectories
from the other, which the divergence of their ends cannot exceed. It is the paper's bound, KLUB:

    1/2 sum_i int_(T_i)^(T_(i+1)) E|D(x_T) - D(x_(T_i))|^2 dT

The paper draws states for each expectation and moves one level at a time. Here one more fact is used. Noisier states
know nothing that cleaner ones do not, so that for a perfect denoiser D(x_(T_i)) is the mean of D(x_T) given x_(T_i),
and by Pythagoras the expectation is a difference of losses, L(T) = E|x0 - D(x_T)|^2:

    1/2 sum_i int_(T_i)^(T_(i+1)) (L(T_i) - L(T)) dT

that is a staircase above the curve of the loss, less the curve. The area under the curve is the information that states
hold of the picture (Guo, Shamai and Verdu 2005, arXiv cs/0412108, theorem 2). So all that is to be known of data and
network is the loss at each level, and since the bound is a sum over steps, dynamic programming finds its least value.
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
        denoise: as for ``sample``; without guidance, since guided pictures are no means.
        levels: from the noisiest on, all with noise.
        x0: (B, ...) pictures, of the data or drawn by the network itself.
        eps: (B, ...) standard normal noise, the same at all levels so that the curve is smooth.
    """
    told = [denoise(level.mix(x0, eps), level, level).x0 for level in levels]
    return torch.stack([(x0 - d).double().pow(2).flatten(1).sum(1).mean() for d in told])


def bounds(levels: Sequence[NoiseLevel], loss: Tensor) -> Tensor:
    """(N, N + 1) float64: what a step from level i to j adds to the bound, in nats; infinite where j is not below i.

    Between levels the loss is taken for a straight line in T, so that the grid should be fine. A loss that rises toward
    the data, as an estimate may, is replaced by the least before it.

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
    """``num_steps + 1`` levels with the least bound among all that the grid allows; the last is data.

    The bound is counted down to the grid's last level, which is not visited: the last step goes past it to the picture
    that it predicts. Arguments are those of ``bounds``.

    Raises:
        UnnoiseError: as ``bounds``; or more steps than the grid has, or none.
    """
    way = cheapest(bounds(levels, loss), num_steps)
    return [*(levels[i] for i in way[:-1]), NoiseLevel(1.0, 0.0)]
