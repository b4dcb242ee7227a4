"""What ancestral solvers share: down to a lower level than the step's end, then up again with fresh noise."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

from torch import Tensor

from unnoise.core import checks
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.solvers.reverse import ancestral, refresh


class Ancestral(Solver):
    """A solver whose ``down`` takes the step down, and which adds the noise itself.

    Args:
        eta: how much of the noise is fresh, in [0, 1]; 0 is the step down alone.
        s_noise: factor on the fresh noise; anything but 1 leaves states noisier or cleaner than their level.
        rule: "posterior", right on every path, or "rectified", as programs for flow models do.
    """

    def __init__(
        self, eta: float = 1.0, s_noise: float = 1.0, rule: Literal["posterior", "rectified"] = "posterior"
    ) -> None:
        self.eta, self.s_noise = checks.number("eta", eta, 0, 1), checks.number("s_noise", s_noise, 0)
        self.rule = checks.choice("rule", rule, "posterior", "rectified")

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        kept, fresh = ancestral(here, there, self.eta, self.rule)
        x = self.down(denoise, e, here, NoiseLevel(there.alpha, kept), there)
        return Move(refresh(x, fresh, self.s_noise, noise, here, there), e)

    @abstractmethod
    def down(self, denoise: Denoise, e: Estimate, here: NoiseLevel, low: NoiseLevel, there: NoiseLevel) -> Tensor:
        """The state at ``low``, which has the alpha of ``there`` and less noise; ``here`` may be pure noise."""
