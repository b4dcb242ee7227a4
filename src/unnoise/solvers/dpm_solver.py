from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import single_step
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("dpm-solver", "dpm-2", "dpm_2", "dpm2", "kdpm2")
class DPMSolver(Solver):
    """DPM-Solver, single steps: the predicted noise at places within the step. As many calls a step as its order.

    Lu et al. 2022 (arXiv 2206.00927), algorithms 1 and 2. Of order 2, the default, it is k-diffusion's DPM-2; of order
    1 it is Euler. Steps that touch pure noise or clean data are Euler's.

    Args:
        order: 1, 2 or 3.
        predicts: the half that is followed: "eps", or "x0", which makes it DPM-Solver++'s single steps (Lu et al. 2022,
            arXiv 2211.01095).
        steady: lower the order of a step in which noise predicted near its clean end would magnify the errors of the
            estimates: of order 2 and for eps, where sigma/alpha falls by more than a factor of 7.
    """

    order = 2
    evaluations = 2
    use = "where a step must be exact: of order 3 the most accurate that needs no history"

    def __init__(
        self, order: Literal[1, 2, 3] = 2, predicts: Literal["eps", "x0"] = "eps", steady: bool = True
    ) -> None:
        self.steady = checks.flag("steady", steady)
        self.order = self.evaluations = checks.whole("order", order, 1, 3)
        checks.choice("predicts", predicts, "eps", "x0")
        self.predicts: Literal["eps", "x0"] = predicts
        self.stages: Literal[1, 2, 3] = self.order  # type: ignore[assignment]  # checked above

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        if here.alpha == 0 or there.sigma == 0:
            return Move(there.mix(e.x0, e.eps), e)
        return Move(single_step(denoise, e, here, there, self.predicts, self.stages, self.steady), e)
