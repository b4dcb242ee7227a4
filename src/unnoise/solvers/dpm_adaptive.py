from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import advance, halved, stages
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.errors import UnnoiseError


class Control(NamedTuple):
    """The next step in log-SNR, one over the last errors, the newest first, and the last cruder answer over alpha."""

    h: float
    trust: tuple[float, float, float] | None = None
    low: Tensor | None = None


@register("dpm-adaptive", "dpm_adaptive", "dpm adaptive")
class DPMAdaptive(Solver):
    """DPM-Solver that chooses its own steps: two orders are compared, and a step is kept if they agree. 3 calls a try.

    Lu et al. 2022 (arXiv 2206.00927), with k-diffusion's controller. The run's levels are stops on the way: to leave
    it all its freedom give it 2 steps of the ``karras`` spacing, from the noisiest level to the last. A batch has its
    steps in common, by its worst picture, so that here alone a picture may change with its company. Steps that touch
    pure noise or clean data are Euler's.

    Args:
        pair: 23 compares orders 2 and 3, 12 compares 1 and 2.
        rtol, atol: the error allowed, of the state's size and beside it; above 0.
        h_init: the first step that is tried, in log-SNR; above 0.
        p, i, d: how much the last error, the errors so far, and their change count for the next step.
        accept: a try is kept if the step that it suggests is at least this part of its own; in (0, 1].
    """

    evaluations = 3
    use = "to see how many calls a picture needs; the number of steps is the solver's choice"
    adaptive = True

    def __init__(
        self,
        pair: Literal[12, 23] = 23,
        rtol: float = 0.05,
        atol: float = 0.0078,
        h_init: float = 0.05,
        p: float = 0.0,
        i: float = 1.0,
        d: float = 0.0,
        accept: float = 0.81,
    ) -> None:
        if checks.whole("pair", pair, 12, 23) not in (12, 23):
            raise UnnoiseError(f"there is no pair {pair}", "choose 23 or 12")
        self.rtol, self.atol = checks.number("rtol", rtol, above=0), checks.number("atol", atol, above=0)
        self.h_init = checks.number("h_init", h_init, above=0)
        p, i, d = checks.number("p", p), checks.number("i", i), checks.number("d", d)
        self.accept = checks.number("accept", accept, above=0, most=1)
        self.high: Literal[2, 3] = 3 if pair == 23 else 2
        self.evaluations = self.high
        self.exponents = ((p + i + d) / self.high, -(p + 2 * d) / self.high, d / self.high)

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        control = state or Control(self.h_init)
        if here.alpha == 0 or there.sigma == 0:
            return Move(there.mix(e.x0, e.eps), e, control)
        x, left = here.mix(e.x0, e.eps), float(there.log_snr) - float(here.log_snr)
        before = x / float(here.alpha) if control.low is None else control.low
        for _ in range(100):
            whole = control.h >= left - 1e-5  # what would be left over is not worth a step
            reached = there if whole else here.between(there, control.h / left)
            values = stages(denoise, e, here, reached, "eps", self.high)
            low = advance("eps", x, here, reached, values[: self.high - 1], halved) / float(reached.alpha)
            high = advance("eps", x, here, reached, [values[0], values[2]] if self.high == 3 else values[1:])
            error = self._error(low, high / float(reached.alpha), before)
            accepted, control = self._judge(control, error) if math.isfinite(error) else (True, control)
            if accepted:  # also what is not finite, for the run to report
                return Move(high, e, control._replace(low=low), reached)
        raise UnnoiseError("no step is short enough for the tolerance", "raise rtol or atol")

    def _error(self, low: Tensor, high: Tensor, before: Tensor) -> float:
        """Of the worst picture: the root of the mean square of the two answers' difference over what is allowed."""
        allowed = (self.rtol * torch.maximum(low.abs(), before.abs())).clamp(min=self.atol)
        return float(((low - high) / allowed).square().flatten(1).mean(1).sqrt().max())

    def _judge(self, control: Control, error: float) -> tuple[bool, Control]:
        """Whether to keep a try, and the control after it. The step changes by a factor from 0.2 to 2.6."""
        new = 1 / (error + 1e-8)
        _, second, third = control.trust or (new, new, new)
        product = math.prod(base**power for base, power in zip((new, second, third), self.exponents, strict=True))
        factor = 1 + math.atan(product - 1)
        accepted = factor >= self.accept
        trust = (new, new, second) if accepted else (new, second, third)
        return accepted, control._replace(h=control.h * factor, trust=trust)
