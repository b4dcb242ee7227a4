"""Guidance against its formulas, and against closed forms where the data is Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from laws.guidances import CONDS, LEVELS, blurred, evaluate, guide, weak, world
from laws.world import FAMILIES, Gaussian, draw, finish, ladder, path
from unnoise.core.estimate import Estimate
from unnoise.core.evaluate import batched
from unnoise.core.guidance import Asks, Guidance, Parts, bind
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import find
from unnoise.errors import UnnoiseError
from unnoise.guidances.apg import APG
from unnoise.guidances.autoguidance import AutoGuidance
from unnoise.guidances.cfg import CFG
from unnoise.guidances.cfg_plus_plus import CFGPlusPlus
from unnoise.guidances.cfg_zero import CFGZero
from unnoise.guidances.mimic import Mimic
from unnoise.guidances.pag import PAG
from unnoise.guidances.plain import Plain
from unnoise.guidances.ramp import SHAPES, Ramp
from unnoise.guidances.rescale import Rescale
from unnoise.guidances.seg import SEG
from unnoise.guidances.threshold import Threshold
from unnoise.solvers.ddim import DDIM
from unnoise.solvers.euler import Euler
from unnoise.solvers.heun import Heun

HERE = NoiseLevel(0.5, 0.5)


def parts(seed: int = 0, scale: float = 1.0) -> tuple[Tensor, dict[str, Estimate]]:
    """A state of (3, 2, 4, 4) and two estimates of it that have little to do with one another."""
    x = draw(3, 2, 4, 4, seed=seed)
    pictures = {"cond": scale * draw(3, 2, 4, 4, seed=seed + 100), "uncond": scale * draw(3, 2, 4, 4, seed=seed + 200)}
    return x, {name: Estimate.of(x, x0, HERE) for name, x0 in pictures.items()}


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1).reshape(-1, 1, 1, 1)


def makes(e: Estimate, x: Tensor, here: NoiseLevel = HERE) -> bool:
    return torch.allclose(here.mix(e.x0, e.eps), x, rtol=0, atol=1e-12)


# adaptive projected guidance


def test_apg_without_its_three_parts_is_cfg() -> None:
    x, estimates = parts()
    found, _ = APG(4.0, eta=1.0, momentum=0.0).combine(estimates, x, HERE, None)
    wanted, _ = CFG(4.0).combine(estimates, x, HERE, None)
    assert torch.allclose(found.x0, wanted.x0, rtol=0, atol=1e-12)
    assert torch.allclose(found.eps, wanted.eps, rtol=0, atol=1e-12)


def apg_pushes_across_the_conditional_picture(kind: Callable[..., Guidance]) -> None:
    """At eta 0 the update is orthogonal to D_c, no longer than (w - 1) cap, and the halves still make the state."""
    for cap in (math.inf, 0.5):
        memory = None
        for step in range(3):
            x, estimates = parts(step)
            found, memory = kind(5.0, eta=0.0, momentum=-0.5, cap=cap).combine(estimates, x, HERE, memory)
            push = found.x0 - estimates["cond"].x0
            assert dot(push, estimates["cond"].x0).abs().max() < 1e-10
            assert (dot(push, push).sqrt() <= 4.0 * cap * (1 + 1e-12)).all()
            assert makes(found, x)


def test_apg_pushes_across() -> None:
    apg_pushes_across_the_conditional_picture(APG)


# CFG-Zero*


def test_cfg_zero_takes_the_nearest_multiple() -> None:
    """v = s v_u + w (v_c - s v_u), with v_c - s v_u orthogonal to v_u: no other s leaves less."""
    x, estimates = parts()
    found, _ = CFGZero(3.0, zero_steps=0).combine(estimates, x, HERE, None)
    v, v_c, v_u = (e.eps - e.x0 for e in (found, estimates["cond"], estimates["uncond"]))
    rest = (v - v_c) / 2  # (w - 1) (v_c - s v_u)
    assert dot(rest, v_u).abs().max() < 1e-10
    s = dot(v_c - rest, v_u) / dot(v_u, v_u)
    assert torch.allclose(v, s * v_u + 3 * (v_c - s * v_u), rtol=0, atol=1e-12)
    assert makes(found, x)


@pytest.mark.parametrize("solver", [Euler(), Heun()], ids=["euler", "heun"])
def test_cfg_zero_stands_still_for_so_many_steps(solver: Any) -> None:
    """Steps, not calls: Heun's second call stands still with the first."""
    x, levels = draw(3, 3), LEVELS[:5]
    for steps in (1, 2):
        bound, memory, y = guide(CFGZero(2.0, zero_steps=steps)), None, x
        for number, (here, there) in enumerate(zip(levels, levels[1:], strict=False)):
            call = bound.step(memory)
            y = solver.step(call, y, here, there, None, NoiseSource([1, 2, 3], (3,))).x
            memory = call.memory
            assert torch.allclose(y, x, rtol=0, atol=1e-12) == (number < steps)


# CFG++


def cfg_plus_plus_is_cfg_at_another_scale(kind: Callable[..., Guidance]) -> None:
    """A DDIM step of CFG++ is one of CFG at lambda s/(s - s'), s = sigma/alpha: on every path, and from pure noise."""
    for family in FAMILIES:
        levels = ladder(path(family), 6)
        if family == "flow":
            levels = [path("flow").at(1.0), *levels]
        for here, there in zip(levels, [*levels[1:], path(family).at(0.0)], strict=True):
            s, end = float(here.sigma_hat), float(there.sigma_hat)
            scale = 0.6 * (s / (s - end) if s < math.inf else 1.0)
            x = here.mix(world(0).sample(3), draw(3, 3))
            a, b = (
                solver.step(guide(guidance), x, here, there, None, NoiseSource([1, 2, 3], (3,))).x
                for solver, guidance in ((DDIM(), kind(0.6)), (Euler(), CFG(scale)))
            )
            assert torch.allclose(a, b, rtol=1e-12, atol=1e-12), (family, s)


def test_cfg_plus_plus() -> None:
    cfg_plus_plus_is_cfg_at_another_scale(CFGPlusPlus)


def test_wrappers_keep_the_state_that_guidance_left() -> None:
    """A picture that is changed after CFG++ is changed in CFG++'s state, not in the one before it."""
    x, estimates = parts(scale=3.0)
    left, _ = CFGPlusPlus(0.6).combine(estimates, x, HERE, None)
    state = HERE.mix(left.x0, left.eps)
    assert not makes(left, x)
    for outer in (Rescale(CFGPlusPlus(0.6)), Threshold(CFGPlusPlus(0.6))):
        e, _ = outer.combine(estimates, x, HERE, None)
        assert not torch.allclose(e.x0, left.x0, rtol=0, atol=1e-3)
        assert makes(e, state)


# thresholding


def test_threshold_is_imagen_s() -> None:
    """Also as diffusers has it where its own cap on s is out of the way."""
    x, estimates = parts(scale=2.0)
    estimates = {
        name: e._replace(x0=e.x0 * torch.tensor([0.1, 1.0, 4.0]).reshape(3, 1, 1, 1)) for name, e in estimates.items()
    }
    guided, _ = CFG(3.0).combine(estimates, x, HERE, None)
    found, _ = Threshold(CFG(3.0), 0.9).combine(estimates, x, HERE, None)
    theirs = diffusers.DDIMScheduler(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1e6)
    assert torch.allclose(found.x0, theirs._threshold_sample(guided.x0), rtol=0, atol=1e-12)
    for row in range(3):
        s = max(1.0, float(guided.x0[row].abs().flatten().quantile(0.9)))
        assert torch.allclose(found.x0[row], guided.x0[row].clamp(-s, s) / s, rtol=0, atol=1e-12)
    assert (found.x0.abs() <= 1).all()
    assert makes(found, HERE.mix(guided.x0, guided.eps))
    within, _ = Threshold(CFG(3.0), 0.9, bound=100.0).combine(estimates, x, HERE, None)
    assert torch.equal(within.x0, guided.x0), "what lies in its range is left alone"
    for bad in ({"quantile": 0.0}, {"quantile": 1.5}, {"bound": 0.0}):
        with pytest.raises(UnnoiseError):
            Threshold(CFG(3.0), **bad)


def test_mimic_takes_the_extent_of_the_lower_scale() -> None:
    x, estimates = parts()
    low, high = (CFG(scale).combine(estimates, x, HERE, None)[0].x0.flatten(2) for scale in (4.0, 12.0))
    found = Mimic(12.0, 4.0).combine(estimates, x, HERE, None)[0]
    flat = found.x0.flatten(2)
    off, off_low, off_high = (part - part.mean(2, keepdim=True) for part in (flat, low, high))
    assert torch.allclose(off.abs().amax(2), off_low.abs().amax(2), rtol=1e-12)
    assert torch.allclose(flat.mean(2), high.mean(2), rtol=1e-9)
    assert torch.allclose(off / off.abs().amax(2, keepdim=True), off_high / off_high.abs().amax(2, keepdim=True))
    assert makes(found, x)
    clipped = Mimic(12.0, 4.0, quantile=0.8).combine(estimates, x, HERE, None)[0].x0.flatten(2)
    at_the_edge = (clipped - high.mean(2, keepdim=True)).abs() >= off_low.abs().amax(2, keepdim=True) * (1 - 1e-9)
    assert (at_the_edge.sum(2) >= 3).all(), "a fifth of the cells is clipped"


# guided runs have closed forms where the data is Gaussian


def of_gaussians(strong: float, weak_: float) -> Callable[..., Parts]:
    """Parts of N(0, strong) for "cond" and of N(0, weak) for any other ask."""

    def answer(x: Tensor, here: NoiseLevel, there: NoiseLevel | None, asks: Asks) -> Parts:
        return {name: Gaussian(0.0, strong if name == "cond" else weak_).estimate(x, here) for name in asks}

    return answer


@pytest.mark.parametrize("name", ["cfg", "autoguidance"])
def test_guided_gaussians_end_where_the_closed_form_says(name: str) -> None:
    """Between N(0, a) and N(0, b), d ln x/d ln s = w s^2/(a + s^2) + (1 - w) s^2/(b + s^2), in s = sigma/alpha.

    So x grows by (a + s^2)^(w/2) (b + s^2)^((1 - w)/2), and ends with the variance a^w b^(1 - w): not that of the law
    p_a^w p_b^(1 - w), whose precision is w/a + (1 - w)/b. Guided runs do not draw from it.
    """
    a, b, w = 0.3, 1.0, 2.5
    guidance: Guidance = CFG(w) if name == "cfg" else AutoGuidance(w)
    levels = [NoiseLevel(1.0, 200.0 * (5e-5) ** (i / 160)) for i in range(161)]
    x = draw(5, 1) * 200.0
    end = finish(bind(guidance, of_gaussians(a, b), CONDS), Heun(), levels, x)

    def growth(s: float) -> float:
        return float((a + s * s) ** (w / 2) * (b + s * s) ** ((1 - w) / 2))

    wanted = x * growth(0.01) / growth(200.0)
    assert torch.allclose(end, wanted, rtol=2e-3)
    deviation = float((end / (x / 200.0)).mean())
    assert abs(deviation - math.sqrt(a**w * b ** (1 - w))) < 2e-3
    assert abs(deviation - 1 / math.sqrt(w / a + (1 - w) / b)) > 0.1


def test_autoguidance_asks_the_weak_network_the_same() -> None:
    x, guidance = draw(3, 3), AutoGuidance(2.5)
    strong, poor = world(1).estimate(x, HERE), blurred(1, 0.3).estimate(x, HERE)
    found = guide(guidance)(x, HERE)
    assert torch.allclose(found.x0, poor.x0 + 2.5 * (strong.x0 - poor.x0), rtol=0, atol=1e-6)  # labels are float32
    assert set(guidance.asks(CONDS, HERE)) == {"cond", "weak"}
    assert set(AutoGuidance(1.0).asks(CONDS, HERE)) == {"cond"}
    with pytest.raises(UnnoiseError, match="asks a network called 'weaker', and there is only denoiser, weak"):
        guide(AutoGuidance(2.5, "weaker"), evaluate=batched({"denoiser": weak(0.0), "weak": weak()}))(x, HERE)


# ramps


def test_ramp_is_a_scale_that_moves() -> None:
    x, estimates = parts()
    for shape, rule in SHAPES.items():
        assert abs(sum(rule((i + 0.5) / 1000) for i in range(1000)) / 1000 - 1) < 1e-6, "the mean strength stays"
        for t in (0.0, 0.2, 0.5, 0.9):
            here = path("flow").at(t)
            r = rule(t)
            if t == 0:
                assert Ramp(CFG(4.0), shape).strength(here) == r
                continue
            estimates = {name: Estimate.of(x, e.x0, here) for name, e in estimates.items()}
            found, _ = Ramp(CFG(4.0), shape).combine(estimates, x, here, None)
            wanted, _ = CFG(1 + 3 * r).combine(estimates, x, here, None)
            assert torch.allclose(found.x0, wanted.x0, rtol=0, atol=1e-12)
    rising, table = Ramp(CFG(4.0)), path("ddpm-linear")
    assert rising.asks(CONDS, NoiseLevel(0.0, 1.0)).keys() == {"cond"}, "no strength, no second call"
    assert Ramp(CFG(4.0), floor=0.5).strength(NoiseLevel(0.0, 1.0)) == 0.5
    assert math.isclose(Ramp(CFG(4.0), path=table).strength(table.at(0.3)), 1.4, rel_tol=1e-9)
    with pytest.raises(UnnoiseError, match="no shape"):
        Ramp(CFG(4.0), "lineal")


# the rest


def test_pag_and_seg_compose() -> None:
    asks = PAG(SEG(CFG(3.0), blur=1.0), sites=("mid.0",)).asks(CONDS, HERE)
    assert len(asks) == 4
    assert sum(bool(ask.edits) for ask in asks.values()) == 2
    assert len(PAG(Plain(), 0.0).asks(CONDS, HERE)) == 1
    assert len(evaluate(draw(3, 3), HERE, None, asks)) == 4


def test_bad_settings_are_named() -> None:
    wrong: dict[str, dict[str, Any]] = {"apg": {"cap": 0.0}, "cfg++": {"strength": 1.5}, "cfg-zero": {"zero_steps": -1}}
    wrong |= {"mimic": {"quantile": 0.0}, "seg": {"blur": -1.0}, "adaptive-projected": {"momentum": 1.0}}
    for name, bad in wrong.items():
        with pytest.raises(UnnoiseError):
            find("guidances", name)(**bad)
