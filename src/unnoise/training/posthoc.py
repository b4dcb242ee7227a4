"""Averages of any width once a training is over, from the averages in all the checkpoints that were kept.

Karras et al. 2023 (arXiv 2312.02696), section 3.2 and appendix C. An average weighs the weights' past by a profile,

    p(t) = (gamma + 1) t^gamma / T^(gamma + 1)    for 0 <= t <= T, and 0 after T,

and it is linear in the weights. So what approximates a profile approximates its average, with the same coefficients.
This holds for the averages as they are kept and not only in the limit of many steps: what ``PowerAverage`` gives step t
is (t/T)^(gamma + 1) - ((t - 1)/T)^(gamma + 1), the integral of p from t - 1 to t. Steps that were skipped have no
share; a run with many of them has other profiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.errors import UnnoiseError
from unnoise.training import checkpoint
from unnoise.training.averages import PowerAverage, gamma_of
from unnoise.training.settings import WIDEST
from unnoise.training.trainer import Trainer


class Profile(NamedTuple):
    """How an average weighs the past.

    Attributes:
        steps: T, the optimiser step after which it was taken, 1 or more.
        gamma: the exponent, 0 or more; ``gamma_of`` has it for a relative width.
    """

    steps: int
    gamma: float


class Fit(NamedTuple):
    """A profile as a sum of others.

    Attributes:
        coefficients: one for each profile that was kept; they sum to 1.
        error: |sum - target| / |target|, in the norm of the inner product.
    """

    coefficients: tuple[float, ...]
    error: float


def inner(a: Profile, b: Profile) -> float:
    """The integral of the product of two profiles, exactly: arXiv 2312.02696, equation 151.

    The product ends with the shorter of the two, over which the other has its power alone:
    (a + 1)(b + 1)/(a + b + 1) (T_a/T_b)^b / T_b where T_a <= T_b.
    """
    if a.steps > b.steps:
        a, b = b, a
    shape = (a.gamma + 1) * (b.gamma + 1) / (a.gamma + b.gamma + 1)
    return shape * math.pow(a.steps / b.steps, b.gamma) / b.steps


def fit(profiles: Sequence[Profile], target: Profile) -> Fit:
    """The sum of profiles that comes nearest to the target: arXiv 2312.02696, algorithm 3.

    Least squares among the sums whose coefficients sum to 1, since each profile integrates to 1 and so must the result.
    (The authors' code solves without this and divides by the sum.) Profiles are scaled to norm 1 first, which keeps the
    system well-conditioned whatever their lengths.

    Raises:
        UnnoiseError: there is no profile to fit with.
    """
    if not profiles:
        raise UnnoiseError(
            "there are no averages to make another from", "keep checkpoints that were saved after a step"
        )
    sizes = [math.sqrt(inner(p, p)) for p in (*profiles, target)]
    n = len(profiles)
    system = torch.zeros(n + 1, n + 1, dtype=torch.float64)  # the last row and column are the constraint's multiplier
    right = torch.zeros(n + 1, 1, dtype=torch.float64)
    for i, p in enumerate(profiles):
        for j, q in enumerate(profiles):
            system[i, j] = inner(p, q) / (sizes[i] * sizes[j])
        right[i, 0] = inner(p, target) / (sizes[i] * sizes[n])
        system[i, n] = system[n, i] = sizes[n] / sizes[i]
    right[n, 0] = 1.0
    y = torch.linalg.lstsq(system, right, driver="gelsd").solution[:n]  # of least norm, where two profiles are one
    residual = 1 - 2 * float(right[:n].mT @ y) + float(y.mT @ system[:n, :n] @ y)
    scaled = [float(v) * sizes[n] / size for v, size in zip(y[:, 0], sizes, strict=False)]
    return Fit(tuple(scaled), math.sqrt(max(0.0, residual)))


def restore(trainer: Trainer, paths: Sequence[Path], width: float) -> Fit:
    """Adds to ``trainer.averages`` those of a relative width, as they would stand now had they been kept.

    Args:
        trainer: at the step of the new averages, usually loaded from the last checkpoint.
        paths: checkpoints of the same training; those before the first step or after the trainer's are not used.
        width: between 0 and 0.28.

    Raises:
        UnnoiseError: the width is out of range, the training keeps no averages, or no checkpoint can be used.
    """
    width = checks.number("width", width, above=0, below=WIDEST)
    widths = trainer.settings.averages
    steps = {path: int(checkpoint.verify(path)["step"]) for path in paths}
    used = [path for path in paths if 0 < steps[path] <= trainer.step] if widths else []
    profiles = [Profile(steps[path], gamma_of(each)) for path in used for each in widths]
    nearest = fit(profiles, Profile(trainer.step, gamma_of(width)))
    names = [name for name, role in trainer.roles.items() if role.averaged]
    sums: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    shares = iter(nearest.coefficients)
    for path in used:  # one checkpoint in memory at a time
        _, files = checkpoint.read(path)
        for each in widths:
            share = next(shares)
            for name in names:
                for key, tensor in files[f"{name}.average-{each:g}"].items():
                    part = share * tensor.double()
                    sums[name][key] = sums[name][key] + part if key in sums[name] else part
    for name in names:
        average = PowerAverage(trainer.roles[name].module, width)
        average.load(sums[name])
        trainer.averages[f"{name}.average-{width:g}"] = average
    return nearest
