"""Guidance: where it has nothing to say it changes nothing; it composes; and it holds no memory of a run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from itertools import zip_longest

import torch
from torch import Tensor

from laws.world import draw, path
from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Bound, Guidance, Parts, bind
from unnoise.core.level import NoiseLevel
from unnoise.core.mixture import Mixture
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import find, index
from unnoise.core.sample import sample
from unnoise.solvers.euler import Euler

CONDS: Mapping[str, Condition | None] = {
    "cond": Condition(class_id=torch.tensor([1, 1, 1])),
    "uncond": Condition(class_id=torch.tensor([0, 0, 0])),
}
LEVELS = [path("flow").at(1 - i / 6) for i in range(7)]


def world(class_id: int) -> Mixture:
    """Class 0 is all of the data, class 1 one part of it, class 2 the other."""
    weights = torch.tensor([[0.5, 0.5], [0.95, 0.05], [0.05, 0.95]])[class_id]
    means = torch.tensor([[1.0, 0.2, -0.3], [-0.8, 0.1, 0.6]])
    return Mixture(weights, means, 0.1 * torch.eye(3).expand(2, 3, 3))


def evaluate(x: Tensor, here: NoiseLevel, there: NoiseLevel | None, asks: Asks) -> Parts:
    """Exact denoisers of the three classes; an ask's edits and other denoisers make no difference to them."""
    parts = {}
    for name, ask in asks.items():
        class_id = 0 if ask.cond is None or ask.cond.class_id is None else int(ask.cond.class_id[0])
        parts[name] = world(class_id).estimate(x, here)
    return parts


def guide(guidance: Guidance, conds: Mapping[str, Condition | None] = CONDS) -> Bound:
    return bind(guidance, evaluate, conds)


def run(bound: Bound, seed: int = 0) -> list[Tensor]:
    x = draw(3, 3, seed=seed)
    return [step.run.x for step in sample(bound, Euler(), LEVELS, x, NoiseSource([1, 2, 3], (3,)))]


def same(a: Estimate, b: Estimate) -> bool:
    return all(torch.allclose(p, q, rtol=0, atol=1e-12) for p, q in ((a.x0, b.x0), (a.eps, b.eps)))


def equal_conditions_change_nothing(guidance: Guidance) -> None:
    """Where the prompt and the empty prompt agree there is nothing to steer by, whatever the scale."""
    x = draw(3, 3)
    conds = {"cond": CONDS["cond"], "uncond": CONDS["cond"]}
    for here in LEVELS[:-1]:
        assert same(guide(guidance, conds)(x, here), world(1).estimate(x, here))


def scale_one_changes_nothing(guidance: Guidance) -> None:
    """Scale 1 is conditional sampling: neither more nor less of the prompt than the network was trained to give."""
    kind, parameters = type(guidance), inspect.signature(type(guidance)).parameters
    if "scale" in parameters:
        plain = kind(scale=1.0)
    elif "inner" in parameters:
        plain = kind(inner=find("guidances", "cfg")(1.0))
    else:
        plain = guidance
    x = draw(3, 3)
    for here in LEVELS[:-1]:
        assert same(guide(plain)(x, here), world(1).estimate(x, here))


def two_runs_do_not_meet(guidance: Guidance) -> None:
    """Two interleaved runs of one guidance object are each what they are alone."""
    other = {"cond": Condition(class_id=torch.tensor([2, 2, 2])), "uncond": CONDS["uncond"]}
    bounds = [guide(guidance), guide(guidance, other)]
    alone = [run(guide(type(guidance)())), run(guide(type(guidance)(), other), seed=1)]
    runs = [
        sample(bound, Euler(), LEVELS, draw(3, 3, seed=seed), NoiseSource([1, 2, 3], (3,)))
        for seed, bound in enumerate(bounds)
    ]
    for index_, pair in enumerate(zip_longest(*runs)):
        for wanted, step in zip(alone, pair, strict=True):
            assert torch.equal(step.run.x, wanted[index_])
    assert all(torch.equal(a, b) for a, b in zip(run(bounds[0]), alone[0], strict=True)), "and again after them"


def memory_moves_once_a_step(guidance: Guidance) -> None:
    """A solver may call twice in a step: the second call sees the memory that the step began with."""
    x, here = draw(3, 3), LEVELS[2]
    call = guide(guidance).step(None)
    first = call(x, here)
    memory = call.memory
    assert same(call(x, here), first)
    assert call.memory is memory


def composes(guidance: Guidance) -> None:
    """Every guidance that wraps another wraps any other."""
    for name in index("guidances"):
        outer = find("guidances", name)
        if "inner" in inspect.signature(outer).parameters:
            assert torch.isfinite(run(guide(outer(inner=guidance)))[-1]).all()


def interval_saves_calls(guidance: Guidance) -> None:
    """For those with an interval: outside it one call, the conditional one, and inside what the inner guidance asks."""
    if not {"inner", "low", "high"} <= set(inspect.signature(type(guidance)).parameters):
        return
    cfg: Callable[..., Guidance] = find("guidances", "cfg")
    limited = type(guidance)(inner=cfg(4.0), low=0.4, high=3.0)
    x = draw(3, 3)
    for sigma, inside in ((math.inf, False), (3.1, False), (3.0, True), (1.0, True), (0.4, False), (0.1, False)):
        here = path("flow").onto(NoiseLevel(1.0, sigma)) if sigma < math.inf else NoiseLevel(0.0, 1.0)
        here = NoiseLevel(1.0, sigma) if sigma in (3.0, 0.4) else here  # the ends themselves, without rounding
        assert len(limited.asks(CONDS, here)) == (2 if inside else 1), sigma
        wanted = guide(cfg(4.0))(x, here) if inside else world(1).estimate(x, here)
        assert same(guide(limited)(x, here), wanted)


LAWS = [
    equal_conditions_change_nothing,
    scale_one_changes_nothing,
    two_runs_do_not_meet,
    memory_moves_once_a_step,
    composes,
    interval_saves_calls,
]
