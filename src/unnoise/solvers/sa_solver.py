from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import FAR, NEAR, reach
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.errors import UnnoiseError
from unnoise.solvers.reverse import adams, kept_and_fresh, levels_between, refresh


class _State(NamedTuple):
    points: tuple[tuple[Tensor, float], ...]  # (picture, log-SNR) at the levels before, the newest first
    added: Tensor  # what the last prediction added for the pictures
    length: float  # its H
    alpha: float  # where it led


@register("sa-solver", "sa_solver", "SASolverScheduler")
class SASolver(Solver):
    """Stochastic Adams: predicts with the pictures of earlier steps, then corrects with the new one. One call a step.

    Xue et al. 2023 (arXiv 2309.05019), data prediction; eta 0 is a deterministic predictor-corrector. A prediction and
    its correction share the linear half and the noise, so that correcting is exchanging one weighted sum of pictures
    for another. The picture is not predicted again after it (PEC). A step from pure noise is of first order, is not
    corrected and leaves no history.

    Args:
        predictor: pictures that a prediction uses, 1 to 4.
        corrector: pictures that a correction uses, the new one among them, 2 to 4; 0 for none.
        tau: strength of the noise, 0 or more: 1 is the reverse diffusion (tau^2 is the eta of other solvers).
        low, high: steps from sigma/alpha between these draw noise, the others none.
        s_noise: factor on the fresh noise.
        simple: two pictures are weighted by the paper's simpler rule, which diffusers uses; of the same order.
        steady: use fewer pictures in a step much longer than those before it, where they would be magnified.
    """

    order = 2
    stochastic = True
    use = "multistep with noise and a corrector: steady at 20 steps or more"

    def __init__(
        self,
        predictor: int = 3,
        corrector: int = 3,
        tau: float = 1.0,
        low: float = 0.0,
        high: float = math.inf,
        s_noise: float = 1.0,
        simple: bool = False,
        steady: bool = True,
    ) -> None:
        self.predictor, self.corrector = (
            checks.whole("predictor", predictor, 1, 4),
            checks.whole("corrector", corrector, 0, 4),
        )
        if self.corrector == 1:
            raise UnnoiseError("there is no corrector of 1", "choose 2 to 4, or 0 for none")
        self.tau, self.s_noise = checks.number("tau", tau, 0), checks.number("s_noise", s_noise, 0)
        self.low, self.high = levels_between(low, high)
        self.simple = checks.flag("simple", simple)
        self.steady = checks.flag("steady", steady)
        if self.predictor == 1 and not self.corrector:
            self.order = 1

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        eta = self.tau**2 if self.low <= float(here.sigma_hat) <= self.high else 0.0
        kept, fresh = kept_and_fresh(here, there, eta)
        if here.alpha == 0 or there.sigma == 0:
            x = NoiseLevel(there.alpha, kept).mix(e.x0, e.eps)
            return Move(refresh(x, fresh, self.s_noise, noise, here, there), e)
        points = ((e.x0, float(here.log_snr)), *(state.points if state else ()))
        x = here.mix(e.x0, e.eps)
        if state and self.corrector:
            x = x - state.added + state.alpha * self._sum(points[: self.corrector], points[1][1], state.length)
        length = (1 + eta) * (float(there.log_snr) - points[0][1])
        added = float(there.alpha) * self._sum(points[: self.predictor], points[0][1], length, float(there.log_snr))
        x = kept / float(here.sigma) * x + added
        keep = max(self.predictor, self.corrector) - 1 or 1
        state = _State(points[:keep], added, length, float(there.alpha))
        return Move(refresh(x, fresh, self.s_noise, noise, here, there), e, state)

    def _sum(
        self, points: tuple[tuple[Tensor, float], ...], start: float, length: float, end: float | None = None
    ) -> Tensor:
        """The pictures, weighted for the step between two log-SNRs; without an end it is that of the newest picture."""
        h = (points[0][1] if end is None else end) - start
        nodes = [(place - start) / h for _, place in points]
        if self.steady:
            nodes = nodes[: reach(nodes, -length, far=NEAR if self.tau else FAR)]
            points = points[: len(nodes)]
        weights = adams(nodes, length)
        if self.simple and len(points) == 2:  # the slope's weight is H / 2, that of short steps
            whole = sum(weights)
            other = (length / 2 - nodes[0] * whole) / (nodes[1] - nodes[0])
            weights = [whole - other, other]
        total = weights[0] * points[0][0]
        for weight, (x0, _) in zip(weights[1:], points[1:], strict=True):
            total = total + weight * x0
        return total
