"""What the exponential Adams methods share: they differ in the half that they follow, and in how far they look back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import Form, Past, multistep
from unnoise.core.noise import NoiseSource
from unnoise.core.solver import Denoise, Move, Solver


class Adams(Solver):
    """A polynomial through the last estimates, in log-SNR, integrated exactly; the step to clean data is Euler's.

    Args:
        points: estimates that a step looks at, and its order; 1 to 4.
        lower_order_final: in a run that ends in data, look at no more estimates than steps are left.
        singlestep_start: take the first steps as single ones of third order, of three calls: without it a run of order
            above 2 is of second order as a whole, however small its error.
        steady: look at fewer estimates in a step much longer than those before it, where they would be magnified.
    """

    name: ClassVar[str]
    form: ClassVar[Form]

    def __init__(
        self, points: int, lower_order_final: bool = True, singlestep_start: bool = False, steady: bool = True
    ) -> None:
        self.points = self.order = checks.whole("points", points, 1, 4)
        self.lower_order_final = checks.flag("lower_order_final", lower_order_final)
        self.singlestep_start = checks.flag("singlestep_start", singlestep_start)
        self.steady = checks.flag("steady", steady)
        self.starting = max(0, self.points - 2) if self.singlestep_start else 0  # steps of more calls

    def start(self, levels: Sequence[NoiseLevel]) -> Past:
        return Past.before(levels) if self.lower_order_final else Past()

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        start, steady = self.singlestep_start, self.steady
        return multistep(denoise, x, here, there, state, self.form, self.points, singlestep_start=start, steady=steady)
