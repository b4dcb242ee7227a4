from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.path import Path
from unnoise.core.registry import find, register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.solvers.reverse import refresh


@register("tcd", "TCD", "TCDScheduler")
class TCD(Solver):
    """Trajectory consistency: down to a part of the next time, then up to it with fresh noise. One call a step.

    Zheng et al. 2024 (arXiv 2402.19159), strategic stochastic sampling: to (1 - eta) t', then forward to t'. For
    networks that were distilled to jump along their trajectory. The times are those of the path that the network was
    trained on, the one thing that a noise level does not carry.

    Args:
        eta: the paper's gamma, in [0, 1]: 0 is deterministic (Euler's step), 1 renoises all as lcm does.
        path: the path, or its name.
    """

    stochastic = True
    use = "for TCD networks, in 2 to 20 steps; eta sets the amount of fresh detail"

    def __init__(self, eta: float = 0.3, path: Path | str = "scaled-linear") -> None:
        self.eta = checks.number("eta", eta, 0, 1)
        own = find("paths", path)() if isinstance(path, str) else path
        self.path: Path = checks.instance("path", own, Path, "give a path or the name of one")

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        down = self.path.at((1 - self.eta) * float(self.path.time_of(there)))
        sigma = float(there.sigma)
        kept = min(sigma, float(there.alpha) * float(down.sigma_hat)) if there.alpha else sigma
        x = NoiseLevel(there.alpha, kept).mix(e.x0, e.eps)
        return Move(refresh(x, math.sqrt(sigma * sigma - kept * kept), 1.0, noise, here, there), e)
