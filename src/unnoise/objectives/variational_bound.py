"""What trains a learned variance."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import over
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.errors import UnnoiseError

USUAL = 0.001


@register("variational-bound", "l-vlb")
class VariationalBound:
    """The bound on the likelihood that teaches a network its variance: L_hybrid = L_simple + weight L_vlb.

    Nichol and Dhariwal 2021 (arXiv 2102.09672), equations 15 and 16. A step from a level to the next of the table has
    the mean that x0_hat gives and the variance exp(f ln beta + (1 - f) ln beta~), with f from the network; what counts
    is how far that is from the true step given x0. The mean is held fixed, so that it is L_simple's alone. In bits a
    number, as the authors' code counts.

    The last step, to the data, is a density: latents are not counted in whole numbers as pixels are, and the authors'
    discretised likelihood tends to this in ever smaller bins. As there, beta~ = 0 is replaced by the step before it.

    Args:
        weight: of L_vlb, the sum over all levels.
    """

    kind: ClassVar[str] = "objectives"

    def __init__(self, weight: float = USUAL) -> None:
        self.weight = checks.number("bound weight", weight, above=0)

    def check(self, path: Path) -> None:
        """Refuses a path without steps.

        Raises:
            UnnoiseError: it is no table of levels.
        """
        if path.num_levels is None:
            raise UnnoiseError(
                f"a learned variance is that of a step between two levels of a table, and the path "
                f"{getattr(path, 'name', type(path).__name__)} is none",
                "train it with emoji-ddpm, or leave out --network.learned-variance",
            )

    def __call__(self, path: Path, t: Tensor, x0: Tensor, x0_hat: Tensor, fraction: Tensor) -> Tensor:
        """(B,) the term of each row's level times the number of levels: its mean over even levels is L_vlb.

        Args:
            path: with ``num_levels``.
            t: (B,) times of its levels.
            x0, x0_hat: (B, C, ...) data and prediction; no gradient is meant to reach the second.
            fraction: (B, C, ...) f.
        """
        num = path.num_levels or 0
        here, there = path.at(t), path.at((t * num - 1).round() / num)
        # both variances of a step are (1 - c) sigma^2, at its beginning and at its end; (B,) float64 all
        rest = 1 - (there.sigma * here.alpha / (there.alpha * here.sigma)) ** 2
        wide, narrow = (torch.as_tensor(rest * level.sigma**2) for level in (here, there))  # beta, beta~
        first, second = path.at(1 / num), path.at(2 / num)
        least = first.sigma**2 * (1 - (first.sigma * second.alpha / (first.alpha * second.sigma)) ** 2)
        to_data = narrow == 0
        low = torch.where(to_data, least, narrow).log()
        log_variance = over(low, x0) + fraction * over(wide.log() - low, x0)  # (B, C, ...)
        gap = over(torch.as_tensor(there.alpha * rest), x0) * (x0 - x0_hat)  # between the two means
        misfit = (over(narrow, x0) + gap**2) * torch.exp(-log_variance)
        offset = torch.where(to_data, torch.full_like(low, math.log(2 * math.pi)), -low - 1)
        nats = 0.5 * (log_variance + misfit + over(offset, x0))
        return num * nats.mean(dim=tuple(range(1, x0.ndim))) / math.log(2)
