from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from unnoise.core import checks
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.errors import UnnoiseError


@register("ddpm", "ancestral")
class DDPM(Solver):
    """Ancestral sampling, the classic: the exact posterior given the predicted picture, noise drawn anew each step.

    Ho et al. 2020 (arXiv 2006.11239), algorithm 2. Meant for hundreds of steps. The step to sigma = 0 draws none.

    The two variances of a step, beta~ and beta, differ by the factor (here.sigma/there.sigma)^2 alone, so that one with
    its logarithm a fraction f of the way is beta~ times this to the f: Nichol and Dhariwal 2021 (arXiv 2102.09672),
    equation 15, for the levels that are visited. The fraction is learnt on the levels of the network's own path.

    Args:
        variance: of the fresh noise: "small", the posterior's for data of one point; "large", the forward step's;
            "learned", between them as the network predicts; "auto", learned where it predicts one, else small.
    """

    order = 1
    stochastic = True
    use = "to sample as the first papers did, with hundreds of steps"

    def __init__(self, variance: Literal["auto", "small", "large", "learned"] = "auto") -> None:
        self.variance = checks.choice("variance", variance, "auto", "small", "large", "learned")

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        kept, fresh = there.split(here, 1.0)
        x = NoiseLevel(there.alpha, kept).mix(e.x0, e.eps)
        if fresh:
            wider = (float(here.sigma) / float(there.sigma)) ** self._fraction(e)
            x = x + fresh * wider * noise.between(here, there)
        return Move(x, e)

    def _fraction(self, e: Estimate) -> float | Tensor:
        if self.variance in ("small", "large"):
            return float(self.variance == "large")
        if e.fraction is None and self.variance == "learned":
            raise UnnoiseError("this network has not learnt a variance", "choose ddpm(small) or ddpm(large)")
        return 0.0 if e.fraction is None else e.fraction.to(e.x0)
