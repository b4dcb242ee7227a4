"""Guidance: where it has nothing to say it changes nothing; it composes, row by row, and holds no memory of a run."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from laws.world import draw, only, path
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.estimate import Estimate
from unnoise.core.evaluate import batched
from unnoise.core.guidance import OWN, Asks, Bound, Evaluate, Guidance, Parts, bind
from unnoise.core.level import NoiseLevel
from unnoise.core.mixture import Mixture
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import find, index
from unnoise.core.sample import sample
from unnoise.predictions.flow import FlowVelocity
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


class Knowing(nn.Module):
    """The network of flow prediction that knows the three classes; blurred data makes it a weaker one."""

    def __init__(self, blur: float = 0.0) -> None:
        super().__init__()
        self.blur = blur

    def forward(
        self, x: Tensor, label: Tensor, cond: Condition, edits: Sequence[Any] = (), read: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        t = float(label[0]) / 1000
        assert cond.class_id is not None
        e = blurred(int(cond.class_id[0]), self.blur).estimate(x, NoiseLevel(1 - t, t))
        return e.eps - e.x0, {}


def blurred(class_id: int, blur: float) -> Mixture:
    known = world(class_id)
    return Mixture(known.weights, known.means, known.covariances + blur * torch.eye(3))


def weak(blur: float = 0.3) -> Denoiser:
    return Denoiser(Knowing(blur), path("flow"), FlowVelocity(), "time")


NETWORKS = {"weak": weak()}


def evaluate(x: Tensor, here: NoiseLevel, there: NoiseLevel | None, asks: Asks) -> Parts:
    """Exact denoisers of the three classes, and networks by name; edits make no difference to them."""
    parts = {}
    for name, ask in asks.items():
        class_id = 0 if ask.cond is None or ask.cond.class_id is None else int(ask.cond.class_id[0])
        if ask.network == OWN:
            parts[name] = world(class_id).estimate(x, here)
        else:
            parts |= batched(NETWORKS)(x, here, there, {name: ask})
    return parts


def agree(x: Tensor, here: NoiseLevel, there: NoiseLevel | None, asks: Asks) -> Parts:
    """All calls answer alike: strong and weak, with and without prompt, edited or not."""
    return {name: world(1).estimate(x, here) for name in asks}


def guide(guidance: Guidance, conds: Mapping[str, Condition | None] = CONDS, evaluate: Evaluate = evaluate) -> Bound:
    return bind(guidance, evaluate, conds)


SETTINGS: dict[str, list[dict[str, Any]]] = {  # for those that have no defaults, or more than one face
    "apg": [{}, {"eta": 1.0, "momentum": 0.0}, {"cap": 0.3, "momentum": 0.5}],
    "cfg-zero": [{}, {"zero_steps": 0}],
    "mimic": [{}, {"quantile": 0.9}],
    "ramp": [{}, {"shape": "cosine"}, {"shape": "inverse-linear", "floor": 0.5}],
    "seg": [{}, {"blur": 1.0}],
    "threshold": [{"bound": 5.0}],  # what lies within the bound is left alone; what does not, in test_guidance_truth
}
NEUTRAL: dict[str, dict[str, Any] | None] = {  # settings that change nothing, where they are not scale 1
    "cfg++": None,  # has none: eps is the unconditional one at every strength
    "freeu": {"backbone": 1.0, "skip": 1.0, "inner": find("guidances", "cfg")(1.0)},
    "mimic": {"scale": 1.0, "mimic": 1.0},
    "nag": {"strength": 0.0, "inner": find("guidances", "cfg")(1.0)},
    "pag": {"strength": 0.0, "inner": find("guidances", "cfg")(1.0)},
    "seg": {"strength": 0.0, "inner": find("guidances", "cfg")(1.0)},
    "threshold": {"bound": 5.0, "inner": find("guidances", "cfg")(1.0)},
}


def guidances(name: str) -> list[Guidance]:
    return [find("guidances", name)(**settings) for settings in SETTINGS.get(name, [{}])]


def neutral(guidance: Guidance) -> Guidance | None:
    """The guidance of that kind that changes nothing; None where there is none."""
    kind, parameters = type(guidance), inspect.signature(type(guidance)).parameters
    name = getattr(kind, "name", "")
    if name in NEUTRAL:
        settings = NEUTRAL[name]
        return None if settings is None else kind(**settings)
    if "scale" in parameters:
        return kind(scale=1.0)  # type: ignore[call-arg]
    return kind(inner=find("guidances", "cfg")(1.0)) if "inner" in parameters else guidance  # type: ignore[call-arg]


def run(bound: Bound, seed: int = 0) -> list[Tensor]:
    x = draw(3, 3, seed=seed)
    return [step.run.x for step in sample(bound, Euler(), LEVELS, x, NoiseSource([1, 2, 3], (3,)))]


def same(a: Estimate, b: Estimate) -> bool:
    return all(torch.allclose(p, q, rtol=0, atol=1e-12) for p, q in ((a.x0, b.x0), (a.eps, b.eps)))


def says_what_class_one_says(bound: Bound) -> None:
    """At every level of a run, the memory handed on; methods that begin by standing still are let off while they do."""
    x, memory = draw(3, 3), None
    for number, here in enumerate(LEVELS[:-1]):
        call = bound.step(memory)
        found, memory = call(x, here), call.memory
        if number >= getattr(bound.guidance, "zero_steps", 0):
            assert same(found, world(1).estimate(x, here))


def equal_conditions_change_nothing(guidance: Guidance) -> None:
    """Where the prompt and the empty prompt, or the strong and the weak, agree there is nothing to steer by."""
    says_what_class_one_says(guide(guidance, evaluate=agree))
    if getattr(guidance, "name", "") != "autoguidance":
        says_what_class_one_says(guide(guidance, {"cond": CONDS["cond"], "uncond": CONDS["cond"]}))


@only(lambda guidance: neutral(guidance) is not None)
def scale_one_changes_nothing(guidance: Guidance) -> None:
    """Scale 1 is conditional sampling: neither more nor less of the prompt than the network was trained to give."""
    plain = neutral(guidance)
    assert plain is not None
    says_what_class_one_says(guide(plain))


def two_runs_do_not_meet(guidance: Guidance) -> None:
    """Two interleaved runs of one guidance object are each what they are alone."""
    other = {"cond": Condition(class_id=torch.tensor([2, 2, 2])), "uncond": CONDS["uncond"]}
    bounds = [guide(guidance), guide(guidance, other)]
    alone = [run(guide(copy.deepcopy(guidance))), run(guide(copy.deepcopy(guidance), other), seed=1)]
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
    """Every guidance that wraps another wraps any other, and wraps what is wrapped."""
    interval, rescale = (find("guidances", name) for name in ("interval", "rescale"))
    assert torch.isfinite(run(guide(interval(rescale(guidance, 0.7), 0.3, 4.0)))[-1]).all()
    for name in index("guidances"):
        outer = find("guidances", name)
        if "inner" in inspect.signature(outer).parameters:
            assert torch.isfinite(run(guide(outer(inner=guidance)))[-1]).all(), name


def keeps_to_its_rows(guidance: Guidance) -> None:
    """What a picture is guided to does not depend on what else is in the batch."""
    x = torch.stack([draw(2, 4, 4, seed=i) * (i + 1) for i in range(3)])

    def answer(rows: slice, here: NoiseLevel) -> Estimate:
        bound = guide(guidance, evaluate=lambda x, here, there, asks: {n: shift(n, x) for n in asks})
        call = bound.step(None)
        first = call(x[rows], here)
        again = bound.step(call.memory)(0.5 * x[rows], here)
        return Estimate(torch.cat([first.x0, again.x0]), torch.cat([first.eps, again.eps]))

    def shift(name: str, x: Tensor) -> Estimate:  # two answers of unlike size and direction, row by row
        x0 = 0.7 * x if name == "cond" else (0.3 * x).roll(1, -1)
        return Estimate(x0, 2 * x - x0)

    here = NoiseLevel(0.5, 0.5)
    whole = answer(slice(None), here)
    for row in range(3):
        alone = answer(slice(row, row + 1), here)
        assert torch.allclose(alone.x0, whole.x0[row::3], rtol=1e-12, atol=1e-12)
        assert torch.allclose(alone.eps, whole.eps[row::3], rtol=1e-12, atol=1e-12)


def has_an_interval(guidance: Guidance) -> bool:
    return {"inner", "low", "high"} <= set(inspect.signature(type(guidance)).parameters)


@only(has_an_interval)
def interval_saves_calls(guidance: Guidance) -> None:
    """Outside the interval one call, the conditional one, and inside what the inner guidance asks."""
    cfg: Callable[..., Guidance] = find("guidances", "cfg")
    limited = type(guidance)(inner=cfg(4.0), low=0.4, high=3.0)
    x = draw(3, 3)
    for sigma, inside in ((math.inf, False), (3.1, False), (3.0, True), (1.0, True), (0.4, False), (0.1, False)):
        here = path("flow").onto(NoiseLevel(1.0, sigma)) if sigma < math.inf else NoiseLevel(0.0, 1.0)
        here = NoiseLevel(1.0, sigma) if sigma in (3.0, 0.4) else here  # the ends themselves, without rounding
        assert len(limited.asks(CONDS, here)) == (2 if inside else 1), sigma
        wanted = guide(cfg(4.0))(x, here) if inside else world(1).estimate(x, here)
        assert same(guide(limited)(x, here), wanted)


def edits_inside(guidance: Guidance) -> bool:
    return any(ask.edits for here in LEVELS for ask in guidance.asks(CONDS, here).values())


@only(edits_inside)
def edits_of_two_runs_are_equal(guidance: Guidance) -> None:
    """By value, so that their calls can be made as one: rows belong to conditions, and edits hold settings alone."""
    conds = {name: Condition(class_id=torch.tensor([2])) for name in CONDS}
    for here in LEVELS:
        one, two = guidance.asks(CONDS, here), copy.deepcopy(guidance).asks(conds, here)
        assert {name: ask.edits for name, ask in one.items()} == {name: ask.edits for name, ask in two.items()}
        for name, ask in one.items():
            assert hash(ask.edits) == hash(two[name].edits)
    for edit in {edit for here in LEVELS for ask in guidance.asks(CONDS, here).values() for edit in ask.edits}:
        for field in fields(edit):
            if isinstance(getattr(edit, field.name), float):
                assert replace(edit, **{field.name: 0.123}) != edit, f"{field.name} is a setting"


LAWS = [
    equal_conditions_change_nothing,
    scale_one_changes_nothing,
    two_runs_do_not_meet,
    memory_moves_once_a_step,
    composes,
    keeps_to_its_rows,
    interval_saves_calls,
    edits_of_two_runs_are_equal,
]
