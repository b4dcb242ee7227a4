from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import FAR, NEAR, reach
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.solvers.reverse import kept_and_fresh, moments, refresh


@register("dpmpp-3m-sde", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "DPM++ 3M SDE")
class DPMpp3MSDE(Solver):
    """DPM-Solver++(3M) for the stochastic equation: a parabola through three predicted pictures. One call a step.

    k-diffusion's sample_dpmpp_3m_sde, after Lu et al. 2022 (arXiv 2211.01095). There the second difference,
    which is half of the curvature, takes the curvature's weight, which is half of its own: "published" does so and is
    of order 2 even at eta 0; "corrected" weighs the parabola exactly. The first two steps have lower order.

    Args:
        eta: strength of the noise, 0 or more.
        s_noise: factor on the fresh noise.
        form: "corrected" or "published".
        steady: look at fewer pictures in a step much longer than those before it, where they would be magnified.
    """

    order = 2
    stochastic = True
    use = "as dpmpp-2m-sde with 30 steps or more, where the third order pays"

    def __init__(
        self,
        eta: float = 1.0,
        s_noise: float = 1.0,
        form: Literal["corrected", "published"] = "corrected",
        steady: bool = True,
    ) -> None:
        self.eta, self.s_noise = checks.number("eta", eta, 0), checks.number("s_noise", s_noise, 0)
        self.form = checks.choice("form", form, "corrected", "published")
        self.steady = checks.flag("steady", steady)

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        kept, fresh = kept_and_fresh(here, there, self.eta)
        x = NoiseLevel(there.alpha, kept).mix(e.x0, e.eps)
        if here.alpha == 0 or there.sigma == 0:
            return Move(refresh(x, fresh, self.s_noise, noise, here, there), e)
        points = ((e.x0, float(here.log_snr)), *(state or ()))  # (picture, log-SNR), the newest first
        used = points[: self._reach(points, float(there.log_snr))] if self.steady else points
        if len(used) > 1:
            x = x + float(there.alpha) * self._change(used, float(there.log_snr))
        return Move(refresh(x, fresh, self.s_noise, noise, here, there), e, points[:2])

    def _reach(self, points: tuple[tuple[Tensor, float], ...], end: float) -> int:
        h = end - points[0][1]
        nodes = [(place - points[0][1]) / h for _, place in points]
        return reach(nodes, -(1 + self.eta) * h, far=NEAR if self.eta else FAR)

    def _change(self, points: tuple[tuple[Tensor, float], ...], end: float) -> Tensor:
        """What the parabola adds to the newest picture, integrated over the step; a line where there are two points."""
        (now, a), (before, b) = points[:2]
        h = end - a
        _, first, second = moments((1 + self.eta) * h, 3)
        slope = (now - before) * (h / (a - b))
        if len(points) == 2:
            return first * slope
        earlier, c = points[2]
        bend = (slope - (before - earlier) * (h / (b - c))) * (h / (a - c))  # half of the curvature, times h^2
        slope = slope + bend * ((a - b) / h)
        return first * slope + (second if self.form == "corrected" else second / 2) * bend
