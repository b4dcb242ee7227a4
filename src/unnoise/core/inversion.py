"""The way back: from data to the noise from which the sampling equation leads to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from unnoise.core import checks
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.sample import all_finite, check_levels
from unnoise.core.solver import Denoise
from unnoise.errors import UnnoiseError


def invert(denoise: Denoise, levels: Sequence[NoiseLevel], x: Tensor, rounds: int = 0) -> Iterator[Tensor]:
    """Follows the levels of a run from the last to the first, yielding the state at each level that is reached.

    The plain form (Song et al. 2020, arXiv 2010.02502, section 4.3; Dhariwal and Nichol 2021, arXiv 2105.05233) is
    Euler's step taken backwards: it asks the network at the state it leaves for the halves that belong to the state it
    wants, so that a run from its result misses the data by an error of first order. With ``rounds`` above 0 each step
    is solved as the equation that it is, "Euler's step from there leads here", by iterating (Pan et al. 2023, arXiv
    2309.04907; Garibi et al. 2024, arXiv 2403.14602): a run of Euler over the same levels then gives the data back.

    Args:
        denoise: ``(x, here, there) -> Estimate``; without guidance, or at scale 1, since the iteration must contract.
        levels: those of the run, from the noisiest to the last.
        x: (B, C, ...) state at the last of them, such as clean data.
        rounds: of the iteration; 5 to 10 are enough where steps are many.

    Raises:
        UnnoiseError: at once, levels that do not fall, or more than 1000 rounds; later, numbers that are not finite:
            too few steps for so many rounds.
    """
    levels, rounds = check_levels(levels), checks.whole("rounds", rounds, 0, 1000)
    checks.instance("x", x, Tensor, "give the state at the last level")
    return _climb(denoise, levels, x, rounds)


def _climb(denoise: Denoise, levels: list[NoiseLevel], x: Tensor, rounds: int) -> Iterator[Tensor]:
    for here, there in pairwise(reversed(levels)):  # there is the noisier
        e = denoise(x, here, there)
        if here.sigma == 0:  # clean data holds nothing of its noise: ask a little above it
            e = Estimate(x / float(here.alpha), denoise(float(there.alpha) * x, there, there).eps)
        guess = there.mix(e.x0, e.eps)
        for _ in range(rounds):
            guess = _again(denoise(guess, there, here), x, here, there)
        if not all_finite(guess):
            raise UnnoiseError("the inversion ran away", "use more steps, or fewer rounds")
        x = guess
        yield x


def _again(e: Estimate, x: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
    """A better guess of the state at ``there``: with the estimate there, Euler's step to ``here`` would end in x.

    Written with eps, in x/alpha, the iteration contracts by (1 - here/there in sigma/alpha) (1 - alpha dx0/dx), below 1
    wherever x0 follows x less than one to one; pure noise has no x/alpha, but holds so little of x0 that x0 will do.
    """
    if there.alpha == 0:
        return there.mix(e.x0, (x - float(here.alpha) * e.x0) / float(here.sigma))
    apart = float(there.sigma_hat) - float(here.sigma_hat)
    return float(there.alpha) * (x / float(here.alpha) + apart * e.eps)
