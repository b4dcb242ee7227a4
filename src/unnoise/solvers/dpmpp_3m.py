from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import Past, multistep, phi, weights
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


@register("dpmpp-3m", "dpmpp_3m", "dpm++3m", "dpm++ 3m")
class DPMpp3M(Solver):
    """DPM-Solver++(3M): a parabola through three predicted pictures, in log-SNR. One call a step, order 3.

    Lu et al. 2022 (arXiv 2211.01095) and their code. As published the second difference counts half, which
    leaves order 2; by default it counts whole. See docs/solvers.md.

    Args:
        published: count the second difference half, as the authors' code, diffusers and k-diffusion do.
        lower_order_final: in a run that ends in data, look at two pictures only in the last step but one.
        singlestep_start: take the first step as one of third order, of three calls: without it the run as a whole is
            of second order, however small its error.
        steady: look at fewer estimates in a step much longer than those before it, where they would be magnified.
    """

    order = 3
    use = "in 30 steps or more, where dpmpp-2m still changes with the number of steps"

    def __init__(
        self,
        published: bool = False,
        lower_order_final: bool = True,
        singlestep_start: bool = False,
        steady: bool = True,
    ) -> None:
        self.published = checks.flag("published", published)
        self.lower_order_final = checks.flag("lower_order_final", lower_order_final)
        self.singlestep_start = checks.flag("singlestep_start", singlestep_start)
        self.steady = checks.flag("steady", steady)
        self.order = 2 if self.published else 3
        self.starting = 1 if self.singlestep_start else 0  # steps of more calls

    def start(self, levels: Sequence[NoiseLevel]) -> Past:
        return Past.before(levels) if self.lower_order_final else Past()

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        weigh = _published if self.published else weights
        return multistep(denoise, x, here, there, state, "x0", 3, weigh, self.singlestep_start, steady=self.steady)


def _published(nodes: Sequence[float], z: float) -> list[float]:
    """``weights``, but with three nodes the second difference counts phi_3 and not 2 phi_3."""
    exact = weights(nodes, z)
    if len(nodes) < 3:
        return exact
    a, b, c = nodes
    shares = (1 / ((a - b) * (a - c)), 1 / ((b - a) * (b - c)), 1 / ((c - a) * (c - b)))
    return [weight - phi(3, z) * share for weight, share in zip(exact, shares, strict=True)]
