from __future__ import annotations

from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("ddim")
class DDIM(Solver):
    """DDIM: a part eta of the ancestral noise is fresh, the rest is kept; with eta 0, the default, equal to Euler.

    Song et al. 2020 (arXiv 2010.02502), equations 12 and 16.

    Args:
        eta: 0 draws no noise, 1 is ancestral sampling; in [0, 1].
    """

    order = 1
    use = "as Euler; with eta above 0, to move a picture a little with fresh noise"

    def __init__(self, eta: float = 0.0) -> None:
        self.eta = checks.number("eta", eta, 0, 1)

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        kept, fresh = there.split(here, self.eta)
        x = NoiseLevel(there.alpha, kept).mix(e.x0, e.eps)
        if fresh:
            x = x + fresh * noise.between(here, there)
        return Move(x, e)
