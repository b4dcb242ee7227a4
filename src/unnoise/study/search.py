"""Finds the few levels that a run should visit, on a network's own trajectories, by dynamic programming.

After GITS (Chen et al. 2024, arXiv 2405.11326): sampling trajectories of one network are similar, whatever their ends,
so a small batch, followed over a fine grid, shows the cost of each long step. The cost of a step from grid
level i to j is the distance between the result of Euler's step from the trajectory's state at i and its state at j. The
cheapest path of n steps from the top to the data is then found exactly, over all subsets of the grid.

Two things differ from the paper. The paper adds distances in x/alpha and weights later steps by powers of a
coefficient, which must account for the flow's effect on errors. Here each distance is multiplied by the fraction that
is left of it at the end: the flow of Gaussian data of deviation s multiplies an error at sigma_hat by
s/sqrt(s^2 + sigma_hat^2), with s that of the batch. The coefficient is then 1. And a grid may start at pure noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.core.guidance import Bound
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.sample import sample
from unnoise.core.solver import Denoise, Solver
from unnoise.errors import UnnoiseError
from unnoise.solvers.heun import Heun


class Costs(NamedTuple):
    """The costs of all steps between the levels of a grid.

    Attributes:
        levels: N + 1 levels of the grid, from the noisiest to data.
        step: (N, N + 1) float64; ``step[i, j]`` of the step from level i to j > i, elsewhere infinite. In units of the
            data: a root mean square over the batch and the state.
        end: (B, ...) the ends of the trajectories.
    """

    levels: Sequence[NoiseLevel]
    step: Tensor
    end: Tensor


def costs(denoise: Bound | Denoise, levels: Sequence[NoiseLevel], x: Tensor, solver: Solver | None = None) -> Costs:
    """Follows a batch over a fine grid and computes the costs of all steps between its levels.

    The network is called only for the trajectories: N times, or as often as the solver does.

    Args:
        denoise: as for ``sample``.
        levels: the grid, from the noisiest to data.
        x: (B, ...) states at ``levels[0]``; 16 rows are enough.
        solver: the solver that follows the grid, by default Heun's method; it must be deterministic.

    Raises:
        UnnoiseError: the solver draws noise, or the grid does not fall to data.
    """
    solver = solver or Heun()
    if solver.stochastic:
        raise UnnoiseError("levels cannot be searched for with a solver that draws noise", "choose heun or euler")
    if levels[-1].sigma != 0:
        raise UnnoiseError("the grid of a search must end at data", "append a level with sigma = 0")
    silent = NoiseSource([0] * len(x), x.shape[1:], x.dtype, x.device)
    steps = list(sample(denoise, solver, levels, x, silent))
    states = [step.x for step in steps] + [steps[-1].run.x]
    spread = float(states[-1].double().var(unbiased=False).clamp_min(1e-12))  # s^2
    prices = torch.full((len(steps), len(levels)), math.inf, dtype=torch.float64)
    for i, step in enumerate(steps):
        for j in range(i + 1, len(levels)):
            there = levels[j]
            off = (there.mix(step.estimate.x0, step.estimate.eps) - states[j]).double() / float(there.alpha)
            remaining = math.sqrt(spread / (spread + float(there.sigma_hat) ** 2))
            prices[i, j] = remaining * off.pow(2).mean().sqrt()
    return Costs(levels, prices, states[-1])


def cheapest(step: Tensor, num_steps: int, coefficient: float = 1.0) -> list[int]:
    """The grid indices, from 0 to N, of the path in exactly ``num_steps`` steps with the smallest sum of costs.

    ``best[i]`` with k steps to go is min over j of ``step[i, j] + coefficient best[j]`` with k - 1: arXiv 2405.11326,
    section 5. O(num_steps N^2).

    Args:
        step: (N, N + 1), see ``Costs``.
        num_steps: 1 to N.
        coefficient: above 1 later steps have more weight, as in the paper.

    Raises:
        UnnoiseError: more steps than the grid has, or none.
    """
    n = len(step)
    if not 1 <= num_steps <= n:
        raise UnnoiseError(
            f"{num_steps} steps cannot be chosen from a grid of {n}", f"ask for 1 to {n}, or a finer grid"
        )
    if not coefficient > 0:
        raise UnnoiseError(f"a coefficient of {coefficient:g}", "choose it above 0; 1 counts all steps alike")
    best = torch.full((n + 1,), math.inf, dtype=torch.float64)
    best[n] = 0.0
    choices: list[Tensor] = []
    for _ in range(num_steps):
        value, choice = (step + coefficient * best).min(1)
        best = torch.cat([value, best.new_full((1,), math.inf)])  # no step starts at data
        choices.append(choice)
    way = [0]
    for choice in reversed(choices):
        way.append(int(choice[way[-1]]))
    return way


def best_levels(prices: Costs, num_steps: int, coefficient: float = 1.0) -> list[NoiseLevel]:
    """``num_steps + 1`` levels of the grid, from its first to data; see ``cheapest``."""
    return [prices.levels[i] for i in cheapest(prices.step, num_steps, coefficient)]
