from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import halved, reach
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("dpmpp-2m", "dpm++2m", "dpm++ 2m", "dpmpp_2m")
class DPMpp2M(Solver):
    """DPM-Solver++(2M): extrapolates the predicted picture in log-SNR from the step before. One call a step, order 2.

    Lu et al. 2022 (arXiv 2211.01095), algorithm 2. The first step, a step from pure noise and the step to clean data
    are of first order: there is nothing to extrapolate from, or no finite log-SNR to do it in.

    Args:
        steady: do not extrapolate over a step more than three and a half times as long as the one before it.
    """

    order = 2
    use = "the everyday one: good pictures in 10 to 30 steps"

    def __init__(self, steady: bool = True) -> None:
        self.steady = checks.flag("steady", steady)

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        if here.alpha == 0:  # an infinite log-SNR is no point to extrapolate from
            return Move(there.mix(e.x0, e.eps), e)
        now = float(here.log_snr)
        if there.sigma == 0 or state is None:
            return Move(there.mix(e.x0, e.eps), e, (e.x0, now))
        x0_before, before = state
        h = float(there.log_snr) - now
        r = (now - before) / h
        if self.steady and reach([0.0, -r], -h, halved) < 2:
            return Move(there.mix(e.x0, e.eps), e, (e.x0, now))
        x0 = e.x0 + (e.x0 - x0_before) / (2 * r)
        ratio = float(there.sigma) / float(here.sigma)
        x = ratio * here.mix(e.x0, e.eps) - float(there.alpha) * math.expm1(-h) * x0
        return Move(x, e, (e.x0, now))
