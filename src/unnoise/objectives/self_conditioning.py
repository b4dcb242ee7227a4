"""What a network with self-conditioning is shown in training."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.objective import Draws
from unnoise.core.registry import register

USUAL = 0.5


@register("self-conditioning", "analog-bits")
class SelfConditioning:
    """A network reads its own earlier estimate: in a part of the steps it is asked twice, and learns from the second.

    Chen et al. 2022 (arXiv 2208.04202), section 2 and algorithm 1. In sampling it is shown what it said a step
    earlier; in training that is stood in for by what it says of the same state when it is shown nothing, without a
    gradient. In the other steps it is shown nothing, which is zeros. One coin a step, as in the paper: the first call
    is then only made where it is used, and how a batch is split changes nothing.

    Args:
        share: of the steps in which it is shown its own estimate.
    """

    kind: ClassVar[str] = "objectives"

    def __init__(self, share: float = USUAL) -> None:
        self.share = checks.number("feedback share", share, above=0, most=1)

    def previous(
        self, denoiser: Denoiser, x: Tensor, t: Tensor, level: NoiseLevel, cond: Condition | None, draws: Draws
    ) -> Tensor | None:
        """(B, C, ...) what is fed back for states x at these levels, detached; None in steps without."""
        coin = Draws(draws.seed, draws.step, 1, slice(None)).uniform("self-conditioning")
        if float(coin) >= self.share:
            return None
        with torch.no_grad():
            output, _ = denoiser.output(x, t, level, cond)
            value, _ = denoiser.split(output)
            return denoiser.fed_back(Estimate(*denoiser.prediction.decode(value.float(), x, level)))
