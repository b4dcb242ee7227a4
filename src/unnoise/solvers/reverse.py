"""What stochastic solvers share: how much of a level's noise is fresh, and exact weights in log-SNR.

In xhat = x / alpha and lambda = log(alpha / sigma), every process with these marginals that goes from noise to data is

    d xhat = (1 + eta) (x0_hat - xhat) d lambda + sqrt(2 eta) sigma_hat dW

(Song et al. 2021, arXiv 2011.13456, equations 6 and 13, with eta = 0 and 1; Xue et al. 2023, arXiv 2309.05019, with eta
= tau^2). Its linear half is solved exactly over a step of length h. With kept = sigma' e^(-eta h), H = (1 + eta) h:

    x' = kept eps + alpha' (x0 + the integral of what x0_hat does on the way) + sqrt(sigma'^2 - kept^2) z

so a step is DDIM's with another kept, and solvers differ in how they guess what x0_hat does on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import phi, weights
from unnoise.core.noise import NoiseSource
from unnoise.errors import UnnoiseError


def kept_and_fresh(here: NoiseLevel, there: NoiseLevel, eta: float) -> tuple[float, float]:
    """there.sigma as (kept, fresh) after a step of the process above: kept = sigma' (sigma_hat' / sigma_hat)^eta.

    At eta 1 this is ``there.split(here, 1)``. A step from pure noise is infinitely long: any eta above 0 keeps nothing.
    """
    sigma = float(there.sigma)
    if eta == 0 or sigma == 0:
        return sigma, 0.0
    if here.alpha == 0:
        return 0.0, sigma
    log_kept = eta * (float(here.log_snr) - float(there.log_snr))
    return sigma * math.exp(log_kept), sigma * math.sqrt(-math.expm1(2 * log_kept))


def ancestral(here: NoiseLevel, there: NoiseLevel, eta: float, rule: str) -> tuple[float, float]:
    """there.sigma as (kept, fresh) of an ancestral step: down to a lower level, then up again with fresh noise.

    "posterior" is ``there.split``. "rectified" is what programs for flow models do: with s = sigma / (alpha + sigma),
    the flow's time, down to s' (1 - eta (1 - s'/s)).
    """
    if rule == "posterior" or there.sigma == 0:
        return there.split(here, eta)
    s, low = (float(level.sigma) / (float(level.alpha) + float(level.sigma)) for level in (here, there))
    down = low * (1 - eta * (1 - low / s))
    sigma = float(there.sigma)
    kept = float(there.alpha) * down / (1 - down)
    return kept, math.sqrt(max(0.0, sigma * sigma - kept * kept))


def refresh(x: Tensor, fresh: float, s_noise: float, noise: NoiseSource, here: NoiseLevel, there: NoiseLevel) -> Tensor:
    """x with fresh noise of that standard deviation for the interval; where there is none, none is drawn."""
    amount = fresh * s_noise
    return x + amount * noise.between(here, there) if amount else x


def moments(length: float, count: int) -> list[float]:
    """m_n = H times the integral over v in [0, 1] of e^(-H (1 - v)) v^n, for n below ``count`` and H = ``length`` > 0.

    m_0 = 1 - e^-H and m_n = 1 - (n / H) m_(n-1), which is H n! phi_(n+1)(-H), and computed so that no digits are lost.
    """
    return [length * math.factorial(n) * phi(n + 1, -length) for n in range(count)]


def adams(nodes: Sequence[float], length: float) -> list[float]:
    """Weights b_i with which the integral of x0_hat over a step is sum b_i x0_i, exact for polynomials in log-SNR.

    Args:
        nodes: where x0_i was predicted, in steps from the beginning: 0 is ``here``, 1 ``there``, below 0 is before.
        length: H; the weights sum to 1 - e^-H.
    """
    return [length * weight for weight in weights(nodes, -length)]


def levels_between(low: float, high: float) -> tuple[float, float]:
    """(low, high) of the levels, in sigma/alpha, at which a solver draws noise.

    Raises:
        UnnoiseError: one is no number of 0 or more, or no level lies between them.
    """
    low, high = checks.number("low", low, 0), checks.number("high", high, 0, math.inf)
    if low > high:
        raise UnnoiseError(f"low {low:g} and high {high:g} hold no levels", "choose low <= high")
    return low, high
