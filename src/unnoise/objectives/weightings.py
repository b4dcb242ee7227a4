"""How much each noise level counts in the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.prediction import Prediction
from unnoise.core.registry import register


class Weighting(ABC):
    """The factor on the squared error of a network's output, by level."""

    kind: ClassVar[str] = "objectives"

    @abstractmethod
    def weight(self, level: NoiseLevel, prediction: Prediction) -> Tensor:
        """(B,) factors for levels of (B,) tensors; finite wherever the prediction can be inverted."""


@register("uniform-weight")
class Uniform(Weighting):
    """The squared error of the output as it is: DDPM's simple loss (arXiv 2006.11239, equation 14), and the flow's."""

    def weight(self, level: NoiseLevel, prediction: Prediction) -> Tensor:
        return torch.ones_like(torch.as_tensor(level.sigma))


@register("min-snr")
class MinSNR(Weighting):
    """The error of x0 times min(SNR, gamma): easy levels, of little noise, are kept from ruling the training.

    Hang et al. 2023 (arXiv 2303.09556), sections 3.4 and 4.2, for any prediction: for noise min(1, gamma/SNR), for v
    min(SNR, gamma)/(SNR + 1). Written without SNR as a divisor, so that it is finite at SNR = 0.

    Args:
        gamma: the cap, in SNR = (alpha/sigma)^2.
    """

    def __init__(self, gamma: float = 5.0) -> None:
        self.gamma = checks.number("gamma", gamma, above=0)

    def weight(self, level: NoiseLevel, prediction: Prediction) -> Tensor:
        alpha, sigma = (torch.as_tensor(v) for v in level)
        a, b = prediction.target(level)
        # min(alpha^2/sigma^2, gamma) / ((a sigma - b alpha)/sigma)^2, multiplied through by sigma^2
        per_x0 = torch.minimum(alpha**2, self.gamma * sigma**2)
        output = (a * sigma - b * alpha) ** 2 + torch.zeros_like(sigma)
        # both vanish for noise prediction at alpha = 0, where their ratio tends to 1, and for data prediction at
        # sigma = 0, where it tends to gamma
        limit = torch.where(sigma == 0, torch.full_like(sigma, self.gamma), torch.ones_like(sigma))
        return torch.where(output > 0, per_x0 / output.clamp_min(1e-300), limit)


@register("edm-weight")
class EDMWeight(Weighting):
    """EDM's weight: (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 on the error of x0, in sigma/alpha.

    Karras et al. 2022 (arXiv 2206.00364), table 1. With EDM's prediction of the same sigma_data it is 1 everywhere.

    Args:
        sigma_data: standard deviation of the data.
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        self.sigma_data = checks.number("sigma_data", sigma_data, above=0)

    def weight(self, level: NoiseLevel, prediction: Prediction) -> Tensor:
        alpha, sigma = (torch.as_tensor(v) for v in level)
        a, b = prediction.target(level)
        per_x0 = (sigma**2 + (alpha * self.sigma_data) ** 2) / self.sigma_data**2  # times sigma^2 / sigma^2
        return per_x0 / ((a * sigma - b * alpha) ** 2 + torch.zeros_like(sigma))


@register("velocity-weight")
class VelocityWeight(Weighting):
    """The squared error of the velocity eps - x0, whatever the network says.

    Networks that say different things are then trained by one loss, and only what they say sets them apart: the v-loss
    of Li and He 2025 (arXiv 2511.13720), table 1. On the flow's path an error of x0 is divided by sigma for it, and one
    of eps by alpha. Of the velocity itself it is `uniform-weight`.

    Args:
        least: divisors below this count as this, so that no level rules the training; 0.05 in their code.
    """

    def __init__(self, least: float = 0.05) -> None:
        self.least = checks.number("least", least, above=0, most=1)

    def weight(self, level: NoiseLevel, prediction: Prediction) -> Tensor:
        alpha, sigma = (torch.as_tensor(v) for v in level)
        a, b = prediction.target(level)
        # an error of x0 by d and of eps by -d alpha/sigma, which leave x as it is, are (a - b alpha/sigma) d in the
        # output and -(1 + alpha/sigma) d in the velocity
        share = (a * sigma - b * alpha).abs() / (alpha + sigma)
        return share.clamp_min(self.least) ** -2


@register("p2")
class P2(Weighting):
    """The error of eps divided by (k + SNR)^gamma: levels of little noise, where nothing visible is learnt, count less.

    Choi et al. 2022 (arXiv 2204.00227), perception prioritized training, for any prediction. A network that predicts
    something else is weighted as if its error of eps were. With gamma 0 it is `uniform-weight` of noise prediction.

    Args:
        gamma: 1 in the paper, or 0.5.
        k: 1 in the paper; keeps the weight of pure noise finite.
    """

    def __init__(self, gamma: float = 1.0, k: float = 1.0) -> None:
        self.gamma, self.k = checks.number("gamma", gamma, 0), checks.number("k", k, above=0)

    def weight(self, level: NoiseLevel, prediction: Prediction) -> Tensor:
        alpha, sigma = (torch.as_tensor(v) for v in level)
        a, b = prediction.target(level)
        output = (a * sigma - b * alpha) ** 2 + torch.zeros_like(sigma)
        # (error of eps / error of the output)^2; 0/0 for noise prediction at alpha = 0, where the two are the same
        per_eps = torch.where(output > 0, alpha**2 / output.clamp_min(1e-300), torch.ones_like(sigma))
        return per_eps / (self.k + (alpha / sigma) ** 2) ** self.gamma
