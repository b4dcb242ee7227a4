from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import register
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.solvers.reverse import kept_and_fresh, moments


class _Walk:
    """One step's way: states inside it share one noise, which is carried along and grows by what is drawn since."""

    def __init__(self, here: NoiseLevel, eta: float, s_noise: float, noise: NoiseSource) -> None:
        self.start = self.last = here
        self.eta, self.s_noise, self.noise = eta, s_noise, noise
        self.carried: Tensor | float = 0.0  # the noise at ``last`` that was drawn since ``start``, over its sigma

    def to(self, level: NoiseLevel, x0: Tensor, eps: Tensor, change: Tensor | float = 0.0) -> Tensor:
        """The state at a level: the linear half of the step, what x0 does on the way, and the noise."""
        kept, _ = kept_and_fresh(self.start, level, self.eta)
        if self.eta * self.s_noise:
            sigma = float(level.sigma)
            old, new = (part / sigma for part in kept_and_fresh(self.last, level, self.eta))
            self.carried = old * self.carried + new * self.noise.between(self.last, level)
        self.last = level
        noise = self.s_noise * float(level.sigma) * self.carried
        return NoiseLevel(level.alpha, kept).mix(x0, eps) + float(level.alpha) * change + noise


def _is_plain(here: NoiseLevel, there: NoiseLevel) -> bool:
    return bool(here.alpha == 0 or there.sigma == 0)  # no finite log-SNR: a first-order step


def _plain(e: Any, here: NoiseLevel, there: NoiseLevel, walk: _Walk) -> Move:
    return Move(there.mix(e.x0, e.eps) if there.sigma == 0 else walk.to(there, e.x0, e.eps), e)


@register("seeds-2", "seeds_2")
class Seeds2(Solver):
    """SEEDS-2: an exponential Runge-Kutta step for the stochastic equation, its noise exact inside too. Two calls.

    Gonzalez et al. 2023 (arXiv 2305.14267), for predicted pictures as in ComfyUI's sample_seeds_2. The state inside the
    step has the noise of its part of the way, and the rest is added to the same noise.

    Args:
        eta: strength of the noise, 0 or more: 1 is the reverse diffusion, 0 deterministic.
        s_noise: factor on the fresh noise.
        r: where inside the step to look, in log-SNR.
        form: weight of what is seen there: "phi-1" (with r = 1/2 the midpoint rule) or "phi-2" (exact for a slope).
    """

    order = 2
    stochastic = True
    evaluations = 2
    use = "as dpmpp-sde, for any strength of the noise"

    def __init__(
        self, eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5, form: Literal["phi-1", "phi-2"] = "phi-1"
    ) -> None:
        self.eta, self.s_noise = checks.number("eta", eta, 0), checks.number("s_noise", s_noise, 0)
        self.r = checks.number("r", r, above=0, below=1)
        self.form = checks.choice("form", form, "phi-1", "phi-2")

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        walk = _Walk(here, self.eta, self.s_noise, noise)
        if _is_plain(here, there):
            return _plain(e, here, there, walk)
        middle = here.between(there, self.r)
        x0 = denoise(walk.to(middle, e.x0, e.eps), middle, there).x0
        whole, slope = moments((1 + self.eta) * (float(there.log_snr) - float(here.log_snr)), 2)
        weight = (whole / 2 if self.form == "phi-1" else slope) / self.r
        return Move(walk.to(there, e.x0, e.eps, weight * (x0 - e.x0)), e)


@register("seeds-3", "seeds_3")
class Seeds3(Solver):
    """SEEDS-3: three looks at a step of the stochastic equation, the noise exact inside too. Three calls.

    Gonzalez et al. 2023 (arXiv 2305.14267), for predicted pictures as in ComfyUI's sample_seeds_3. Third order without
    noise; with noise the smoothness that a third order needs is not there.

    Args:
        eta: strength of the noise, 0 or more.
        s_noise: factor on the fresh noise.
        r_1, r_2: where inside the step to look, in log-SNR, one after the other.
    """

    order = 2
    stochastic = True
    evaluations = 3
    use = "the most exact noisy step; where calls are cheap"

    def __init__(self, eta: float = 1.0, s_noise: float = 1.0, r_1: float = 1 / 3, r_2: float = 2 / 3) -> None:
        self.eta, self.s_noise = checks.number("eta", eta, 0), checks.number("s_noise", s_noise, 0)
        self.r_2 = checks.number("r_2", r_2, above=0, below=1)
        self.r_1 = checks.number("r_1", r_1, above=0, below=self.r_2)
        if self.eta == 0:
            self.order = 3

    def step(
        self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: NoiseSource
    ) -> Move:
        e = denoise(x, here, there)
        walk = _Walk(here, self.eta, self.s_noise, noise)
        if _is_plain(here, there):
            return _plain(e, here, there, walk)
        length = (1 + self.eta) * (float(there.log_snr) - float(here.log_snr))
        first, second = here.between(there, self.r_1), here.between(there, self.r_2)
        x0_first = denoise(walk.to(first, e.x0, e.eps), first, there).x0
        change = moments(self.r_2 * length, 2)[1] * self.r_2 / self.r_1 * (x0_first - e.x0)
        x0_second = denoise(walk.to(second, e.x0, e.eps, change), second, there).x0
        change = moments(length, 2)[1] / self.r_2 * (x0_second - e.x0)
        return Move(walk.to(there, e.x0, e.eps, change), e)
