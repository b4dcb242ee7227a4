from __future__ import annotations

from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import Past, advance
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.solvers.heun import heun
from unnoise.solvers.ipndm import even


@register("plms", "pndm")
class PLMS(Solver):
    """PNDM as Stable Diffusion ran it: iPNDM whose first step is Heun's, with a second call. No order claimed.

    Liu et al. 2022 (arXiv 2202.09778), started as in CompVis's PLMS sampler and diffusers' PNDM
    with ``skip_prk_steps``. The paper's own start, by Runge and Kutta, halves steps in t; a solver here sees no t.

    Args:
        steady: take Euler's first step where Heun's would magnify the errors of the estimates, as in heun.
    """

    use = "only to draw again what the first Stable Diffusion drew"
    starting = 1  # steps of more calls

    def __init__(self, steady: bool = True) -> None:
        self.steady = checks.flag("steady", steady)

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        if here.alpha == 0:
            return Move(there.mix(e.x0, e.eps), e, Past())
        x, first = here.mix(e.x0, e.eps), not (state and state.values)
        past = (state or Past()).then(here, e.eps, 4)
        if first and there.sigma != 0:
            return Move(heun(denoise, e, here, there, self.steady), e, past)
        return Move(advance("slope", x, here, there, past.values, even), e, past)
