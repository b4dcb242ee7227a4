from __future__ import annotations

from typing import Any

from torch import Tensor

from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("lcm", "LCM", "LCMScheduler", "FlowMatchLCMScheduler")
class LCM(Solver):
    """Consistency sampling: believes the predicted picture, and buries it in noise that is all new. One call a step.

    Luo et al. 2023 (arXiv 2310.04378); Song et al. 2023 (arXiv 2303.01469), algorithm 1. For networks that
    were trained to answer with a picture at once; of others it makes pictures of too little variance. The boundary
    factors c_skip and c_out belong to such a network's prediction: at the levels that are visited they are 0 and 1.
    """

    stochastic = True
    use = "for consistency and LCM networks, in 1 to 8 steps"

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        x = float(there.alpha) * e.x0
        if there.sigma:
            x = x + float(there.sigma) * noise.between(here, there)
        return Move(x, e)
