"""Exact weights: a polynomial through what is known, carried along the sampling equation.

With l the log-SNR, s = sigma / alpha and a prime at the end of the step, ``dx = x0 d(alpha) + eps d(sigma)`` is

    x' = (sigma'/sigma) x + alpha' int e^(l - l') x0 dl     form "x0":    Lu et al. 2022 (arXiv 2211.01095)
    x' = (alpha'/alpha) x - sigma' int e^(l' - l) eps dl    form "eps":   Lu et al. 2022 (arXiv 2206.00927), section 3
    x' = (alpha'/alpha) x + alpha' int eps ds               form "slope": Karras et al. 2022 (arXiv 2206.00364), eq. 1

All that solvers of these forms can differ in is the polynomial that they put for the estimate: which values it goes
through, old ones or ones from within the step. The integral of a polynomial is a weighted sum of those values, and the
weights are numbers of the levels alone. Hochbruck and Ostermann 2010 (Acta Numerica 19), section 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.solver import Denoise, Move

Form = Literal["x0", "eps", "slope"]
Value = tuple[NoiseLevel, Tensor]  # what was predicted at a level: x0 in form "x0", eps in the others
Weigh = Callable[[Sequence[float], float], list[float]]
Rest = Callable[[Denoise, Estimate], Tensor]  # what is left of a step after its first call: to the state at its end
FAR = 1.5  # how many times as much as even steps at their worst a step may magnify the errors of its values
NEAR = 1.0  # the same where noise is drawn: old values differ from the newest by more than their errors


def phi(k: int, z: float) -> float:
    """phi_0 = e^z, phi_k = int_0^1 e^((1 - u) z) u^(k - 1) / (k - 1)! du; to 1e-14 of itself for k to 5.

    The recurrence phi_(k+1) = (phi_k - 1/k!) / z cancels where z is small: there it is the series.
    """
    if abs(z) < 2:
        return math.fsum(z**j / math.factorial(j + k) for j in range(30))
    value = math.exp(z)
    for j in range(k):
        value = (value - 1 / math.factorial(j)) / z
    return value


def weights(nodes: Sequence[float], z: float) -> list[float]:
    """The weight of each node's value in int_0^1 e^((1 - u) z) p(u) du, where p is the polynomial through them all.

    ``nodes`` are distinct places, 0 the step's start and 1 its end. With z = 0 these are the weights of Adams.
    """
    moments = [math.factorial(k) * phi(k + 1, z) for k in range(len(nodes))]  # of u^k
    result = []
    for node in nodes:
        basis = [1.0]  # Lagrange's polynomial of this node, the constant first
        for other in nodes:
            if other != node:
                pairs = zip([0.0, *basis], [*basis, 0.0], strict=True)
                basis = [(up - other * same) / (node - other) for up, same in pairs]
        result.append(math.fsum(c * moment for c, moment in zip(basis, moments, strict=True)))
    return result


def halved(nodes: Sequence[float], z: float) -> list[float]:
    """``weights``, but with two nodes the slope counts phi_1 / 2 and not phi_2: still of second order.

    The midpoint rule: DPM-Solver++(2M)'s, UniPC's with B = e^h - 1, and DPM-Solver-2's with any node within the step.
    """
    return line(nodes, z, phi(1, z) / 2) if len(nodes) == 2 else weights(nodes, z)


def reach(nodes: Sequence[float], z: float, weigh: Weigh = weights, far: float = FAR) -> int:
    """How many of the values at ``nodes``, the newest first, a step may look at: the most that stay steady, at least 1.

    If each of k values is wrong by up to d, the step is wrong by up to d sum |w|, where the newest value alone would
    make it wrong by d |sum w|. Values at even distances extrapolate one step ahead with the binomials, whose sum of
    magnitudes is 2^k - 1; steady is what magnifies at most ``far`` times that. In a step much longer than those before
    it the weights grow with the k-1st power of the ratio, and networks are wrong by more than polynomials gain.
    """
    for count in range(len(nodes), 1, -1):
        factors = weigh(nodes[:count], z)
        if sum(abs(w) for w in factors) <= far * (2**count - 1) * abs(sum(factors)):
            return count
    return 1


def line(nodes: Sequence[float], z: float, slope: float) -> list[float]:
    """Weights of two nodes, the first of them 0, when the line's slope counts ``slope``; ``weights`` gives phi_2."""
    return [phi(1, z) - slope / nodes[1], slope / nodes[1]]


def pick(form: Form, e: Estimate) -> Tensor:
    """The half of an estimate that a form integrates."""
    return e.x0 if form == "x0" else e.eps


def _linear(form: Form, here: NoiseLevel, there: NoiseLevel) -> tuple[float, float, float]:
    """(carry, gain, z) of x' = carry x + gain int_0^1 e^((1 - u) z) half(u) du."""
    alpha, sigma, alpha_next, sigma_next = (float(v) for v in (*here, *there))
    if form == "slope":
        carry = alpha_next / alpha
        return carry, sigma_next - carry * sigma, 0.0
    h = float(there.log_snr) - float(here.log_snr)
    return (sigma_next / sigma, alpha_next * h, -h) if form == "x0" else (alpha_next / alpha, -sigma_next * h, h)


def _places(form: Form, here: NoiseLevel, there: NoiseLevel, values: Sequence[Value]) -> list[float]:
    """Where the values lie, in steps from the start of this one: 0 is ``here``, 1 ``there``."""
    start, end, *places = (
        float(level.sigma_hat if form == "slope" else level.log_snr)
        for level in (here, there, *(level for level, _ in values))
    )
    return [(place - start) / (end - start) for place in places]


def steady_part(
    form: Form, here: NoiseLevel, there: NoiseLevel, values: Sequence[Value], weigh: Weigh = weights
) -> tuple[Value, ...]:
    """The newest of the values: as many as a step from ``here`` to ``there`` may look at; see ``reach``."""
    z = _linear(form, here, there)[2]
    return tuple(values[: reach(_places(form, here, there, values), z, weigh)])


def integral(
    form: Form, here: NoiseLevel, there: NoiseLevel, values: Sequence[Value], weigh: Weigh = weights
) -> tuple[float, Tensor]:
    """(carry, gained): x at ``there`` is ``carry * x + gained`` if the estimate is the polynomial through ``values``.

    Both levels need a finite log-SNR, ``there`` in form "slope" excepted, which reaches sigma = 0.
    """
    carry, gain, z = _linear(form, here, there)
    nodes = _places(form, here, there, values)
    parts = [gain * w * value for w, (_, value) in zip(weigh(nodes, z), values, strict=True)]
    gained = parts[0]
    for part in parts[1:]:
        gained = gained + part
    return carry, gained


def advance(
    form: Form, x: Tensor, here: NoiseLevel, there: NoiseLevel, values: Sequence[Value], weigh: Weigh = weights
) -> Tensor:
    """The state at ``there``, from x at ``here``; see ``integral``."""
    carry, gained = integral(form, here, there, values, weigh)
    return carry * x + gained


# one step with values from within it


def bears(step: Rest, here: NoiseLevel, there: NoiseLevel, calls: int) -> bool:
    """Whether the rest of a step that has its first estimate, of ``calls`` in all, bears the errors of these.

    As in ``reach``, but by trying: the step is taken once with estimates of 0 that are wrong by 1, each in a direction
    of its own. Networks are wrong about pictures; where x0 is wrong by d, eps is by d alpha/sigma, and that is much
    where little noise is left. A step of Heun's magnifies by about e^h, and bears a factor of 5 in sigma/alpha; the
    midpoint's, by 2 e^(h/2), bears one of 7.
    """
    errors = iter(torch.eye(calls, dtype=torch.float64)[:, None])

    def wrong(x: Tensor, level: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
        return Estimate.of(x, next(errors), level)

    x = step(wrong, wrong(torch.zeros(1, calls, dtype=torch.float64), here))
    plain = 1 - float(there.sigma_hat) / float(here.sigma_hat)
    return bool(float(x.abs().sum()) / float(there.alpha) <= FAR * (2**calls - 1) * plain)


def stages(
    denoise: Denoise, e: Estimate, here: NoiseLevel, there: NoiseLevel, form: Form, order: Literal[1, 2, 3]
) -> list[Value]:
    """The values of a single step of this order: at its start, and at 1/2, or at 1/3 and 2/3, of its log-SNR.

    Lu et al. 2022 (arXiv 2206.00927), algorithms 1 and 2. Makes ``order - 1`` calls.
    """
    x, values = here.mix(e.x0, e.eps), [(here, pick(form, e))]
    for i in range(1, order):
        level = here.between(there, i / order)
        values.append((level, pick(form, denoise(advance(form, x, here, level, values), level, there))))
    return values


def single_step(
    denoise: Denoise,
    e: Estimate,
    here: NoiseLevel,
    there: NoiseLevel,
    form: Form,
    order: Literal[1, 2, 3],
    steady: bool = False,
) -> Tensor:
    """The state at ``there`` by one step of this order, which needs no past; e is the estimate at ``here``.

    Order 2 takes the middle's value for the whole step, order 3 the line through the values at 0 and 2/3. ``steady``
    lowers the order of a step that is too long for it; see ``bears``.
    """
    if steady and order > 1:

        def rest(denoise: Denoise, e: Estimate) -> Tensor:
            return single_step(denoise, e, here, there, form, order)

        if not bears(rest, here, there, order):
            return single_step(denoise, e, here, there, form, 2 if order == 3 else 1, steady)
    values = stages(denoise, e, here, there, form, order)
    kept = values if order == 1 else [values[1]] if order == 2 else [values[0], values[2]]
    return advance(form, here.mix(e.x0, e.eps), here, there, kept)


# many steps with values from before


class Past(NamedTuple):
    """What a multistep run remembers.

    Attributes:
        values: what was predicted at the levels passed, the newest first.
        left: steps to clean data, the one to come included; infinite where that is not to be looked at.
    """

    values: tuple[Value, ...] = ()
    left: float = math.inf

    @classmethod
    def before(cls, levels: Sequence[NoiseLevel]) -> Past:
        """At a run's start. Where the run ends in data, its last steps look at no more values than steps are left."""
        return cls((), len(levels) - 1 if float(levels[-1].sigma) == 0 else math.inf)

    def then(self, here: NoiseLevel, value: Tensor, points: int) -> Past:
        """With one value more, of ``points`` in all. Pure noise has no log-SNR to extrapolate from: nothing is kept."""
        return self._replace(values=() if here.alpha == 0 else ((here, value), *self.values)[:points])

    def usable(self) -> tuple[Value, ...]:
        """The values that this step may look at."""
        return self.values[: int(min(self.left, len(self.values)))]

    def after(self) -> Past:
        """The same, one step on."""
        return self._replace(left=self.left - 1)


def multistep(
    denoise: Denoise,
    x: Tensor,
    here: NoiseLevel,
    there: NoiseLevel,
    past: Past | None,
    form: Form,
    points: int,
    weigh: Weigh = weights,
    singlestep_start: bool = False,
    to_data: bool = False,
    steady: bool = False,
) -> Move:
    """One step by the polynomial through the last ``points`` values, fewer at the start; one call.

    A step from pure noise is Euler's, as is the one to clean data unless ``to_data`` (form "slope" alone).

    Args:
        singlestep_start: whether the first steps, while values are too few for the order, are single steps of third
            order, of three calls. Without it the first is Euler's, whose local error h^2 no later step mends.
        steady: look at fewer values in a step much longer than those before it; see ``reach``.
    """
    e = denoise(x, here, there)
    past = (past or Past()).then(here, pick(form, e), points)
    if here.alpha == 0 or (there.sigma == 0 and not to_data):
        return Move(there.mix(e.x0, e.eps), e, past.after())
    if singlestep_start and len(past.values) < points - 1 and there.sigma != 0:
        return Move(single_step(denoise, e, here, there, "x0", 3), e, past.after())
    values = past.usable()
    values = steady_part(form, here, there, values, weigh) if steady else values
    return Move(advance(form, here.mix(e.x0, e.eps), here, there, values, weigh), e, past.after())
