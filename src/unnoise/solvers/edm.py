from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.solvers.heun import heun
from unnoise.solvers.reverse import levels_between, refresh


@register("edm", "edm_churn")
class EDM(Solver):
    """EDM's stochastic sampler: first some noise is added, then a Heun step leads down from there. Two calls a step.

    Karras et al. 2022 (arXiv 2206.00364), algorithm 2: sigma/alpha grows by the factor 1 + gamma, with gamma = churn
    over the number of steps, at most sqrt(2) - 1, and the network sees the state after that. Adding noise is exact, so
    the marginals have the order of the step down. Pure noise is not churned; steps from it and to data are Euler's.

    Args:
        churn: how much noise is exchanged in a run; 0 is heun (or euler). The paper uses 30 to 80.
        low, high: only states with sigma/alpha from low to high are churned (S_tmin and S_tmax).
        s_noise: factor on the added noise (S_noise); the paper uses up to 1.007 against networks that smooth.
        form: the step down: "heun" or "euler".
        steady: as in heun.
    """

    order = 2
    stochastic = True
    evaluations = 2
    use = "to spend many steps on fidelity: noise washes out the errors of earlier steps"

    def __init__(
        self,
        churn: float = 40.0,
        low: float = 0.0,
        high: float = math.inf,
        s_noise: float = 1.0,
        form: Literal["heun", "euler"] = "heun",
        steady: bool = True,
    ) -> None:
        self.churn, self.s_noise = checks.number("churn", churn, 0), checks.number("s_noise", s_noise, 0)
        self.low, self.high = levels_between(low, high)
        self.form = checks.choice("form", form, "heun", "euler")
        self.steady = checks.flag("steady", steady)
        if form == "euler":
            self.order = self.evaluations = 1

    def start(self, levels: Sequence[NoiseLevel]) -> float:
        """gamma, which depends on the number of steps."""
        return min(self.churn / (len(levels) - 1), math.sqrt(2) - 1)

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        up = here
        if state and here.alpha and self.low <= float(here.sigma_hat) <= self.high:
            up = NoiseLevel(here.alpha, float(here.sigma) * (1 + state))
            x = refresh(x, float(here.sigma) * math.sqrt(state * (2 + state)), self.s_noise, noise, here, up)
        e = denoise(x, up, there)
        if self.form == "euler" or there.sigma == 0 or up.alpha == 0:
            return Move(there.mix(e.x0, e.eps), e, state)
        return Move(heun(denoise, e, up, there, self.steady), e, state)
