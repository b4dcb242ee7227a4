from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import Past, Value, halved, integral, line, pick, single_step, steady_part
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver


class Promise(NamedTuple):
    """The last step: the values it was made of, and its integral. It is taken again with one value more."""

    values: tuple[Value, ...]
    gained: Tensor


class Memory(NamedTuple):
    """Values of the past, and the step that is still to be corrected."""

    past: Past
    promise: Promise | None


@register("unipc", "uni_pc", "uni-pc", "uni_pc_bh2")
class UniPC(Solver):
    """UniPC: each call also corrects the step before it. One call a step; order 3, one above the points it looks at.

    Zhao et al. 2023 (arXiv 2302.04867). Exponential Adams, predicted and corrected: the corrector takes the last step
    again with the polynomial that also goes through the new estimate. In the paper's B(h), which is left wherever a
    formula has just two values, lies all that ``variant`` changes. The step to clean data is Euler's.

    Args:
        points: estimates that the predictor looks at, the paper's p; 1 to 3. The order is one more.
        variant: "bh2", B = e^h - 1, or "bh1", B = h.
        predicts: which half is followed, "x0" (for guided networks) or "eps".
        lower_order_final: in a run that ends in data, look at no more estimates than steps are left.
        singlestep_start: with 3 points, take the first step as one of third order, of three calls: without it a run is
            of third order as a whole, however small its error.
        steady: look at fewer estimates in a step much longer than those before it, where they would be magnified.
    """

    order = 3
    use = "as dpmpp-2m, and closer from about 16 steps on"

    def __init__(
        self,
        points: int = 2,
        variant: Literal["bh1", "bh2"] = "bh2",
        predicts: Literal["x0", "eps"] = "x0",
        lower_order_final: bool = True,
        singlestep_start: bool = False,
        steady: bool = True,
    ) -> None:
        self.points = checks.whole("points", points, 1, 3)
        self.order = self.points + 1
        self.variant = checks.choice("variant", variant, "bh2", "bh1")
        checks.choice("predicts", predicts, "x0", "eps")
        self.predicts: Literal["x0", "eps"] = predicts
        self.lower_order_final = checks.flag("lower_order_final", lower_order_final)
        self.singlestep_start = checks.flag("singlestep_start", singlestep_start)
        self.steady = checks.flag("steady", steady)
        self.starting = max(0, self.points - 2) if self.singlestep_start else 0  # steps of more calls

    def start(self, levels: Sequence[NoiseLevel]) -> Memory:
        return Memory(Past.before(levels) if self.lower_order_final else Past(), None)

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        value, (past, promise) = pick(self.predicts, e), state or Memory(Past(), None)
        x = here.mix(e.x0, e.eps)
        if promise is not None:  # by the difference, so that halves that guidance changed are kept
            before, values = promise.values[0][0], (*promise.values, (here, value))
            x = x + integral(self.predicts, before, here, values, self._weigh)[1] - promise.gained
        past = past.then(here, value, self.points)
        if here.alpha == 0 or there.sigma == 0:
            x = there.mix(e.x0, e.eps) if here.alpha == 0 else self._to_data(x, value, here, there)
            return Move(x, e, Memory(past.after(), None))
        if self.singlestep_start and self.points == 3 and len(past.values) == 1:
            return Move(single_step(denoise, e, here, there, "x0", 3), e, Memory(past.after(), None))
        values = past.usable()
        values = steady_part(self.predicts, here, there, values, self._weigh) if self.steady else values
        carry, gained = integral(self.predicts, here, there, values, self._weigh)
        return Move(carry * x + gained, e, Memory(past.after(), Promise(values, gained)))

    def _weigh(self, nodes: Sequence[float], z: float) -> list[float]:
        """Exact, but for two values, where the paper's systems are cut short and the slope counts B / 2."""
        if self.variant == "bh1" and len(nodes) == 2:
            return line(nodes, z, 0.5)
        return halved(nodes, z)

    def _to_data(self, x: Tensor, value: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        """Euler's step from the corrected state: the predicted picture, or what is left when the noise is taken off."""
        if self.predicts == "x0":
            return float(there.alpha) * value
        return (x - float(here.sigma) * value) * (float(there.alpha) / float(here.alpha))
