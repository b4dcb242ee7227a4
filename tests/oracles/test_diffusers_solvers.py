"""Multistep solvers step by step against diffusers, in named configurations, and where the two differ on purpose."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from laws.solvers import started, strong_errors
from laws.world import Gaussian, draw, mixture, path, slope
from oracles.test_diffusers import CLOSE, LINEAR, ROWS, in_sigma, ours, relative, said, start
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import find
from unnoise.core.solver import Solver
from unnoise.solvers.deis import DEIS
from unnoise.solvers.dpmpp_3m import DPMpp3M
from unnoise.solvers.ipndm import IPNDM
from unnoise.solvers.lms import LMS
from unnoise.solvers.plms import PLMS
from unnoise.solvers.unipc import UniPC
from unnoise.spacings.custom import Custom
from unnoise.spacings.karras import Karras
from unnoise.spacings.leading import Leading
from unnoise.spacings.linspace import Linspace
from unnoise.spacings.shifted import Shifted

pytestmark = [  # of theirs
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


def step_by_step(theirs: Any, solver: Solver, levels: list[NoiseLevel], steps: int | None = None) -> None:
    """States in x after each of the first steps, both told by the perfect denoiser; theirs computes in float32."""
    x = start(levels[0])
    y = x.float()
    for i, state in enumerate(islice(ours(solver, levels, x), steps)):
        y = theirs.step(said(y, levels[i], "noise"), theirs.timesteps[i], y).prev_sample
        assert relative(y, state) < CLOSE, i


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize(
    ("points", "predicts", "spacing"),
    [(1, "x0", "linspace"), (2, "x0", "linspace"), (2, "x0", "karras"), (3, "x0", "karras"), (2, "eps", "linspace")],
)
def test_unipc(points: int, predicts: Any, spacing: str, variant: Any) -> None:
    """With ``lower_order_final``. Their step to data is finite with bh2 of x0 alone: otherwise it is left out."""
    theirs = diffusers.UniPCMultistepScheduler(
        **LINEAR,
        solver_order=points,
        solver_type=variant,
        predict_x0=predicts == "x0",
        use_karras_sigmas=spacing == "karras",
    )
    theirs.set_timesteps(10)
    levels = Custom(sigmas=theirs.sigmas[:-1].tolist()).levels(path("ddpm-linear"), 10)
    steps = 10 if (variant, predicts) == ("bh2", "x0") else 9
    step_by_step(theirs, UniPC(points, variant, predicts), levels, steps)


@pytest.mark.parametrize("num_steps", [10, 20])
@pytest.mark.parametrize("spacing", ["linspace", "karras"])
def test_dpmpp_3m(spacing: str, num_steps: int) -> None:
    """The published form; solver_type heun, for the steps with two values. Theirs lowers the order of the last step but
    one in runs of fewer than 15 steps."""
    theirs = diffusers.DPMSolverMultistepScheduler(
        **LINEAR, solver_order=3, solver_type="heun", use_karras_sigmas=spacing == "karras"
    )
    theirs.set_timesteps(num_steps)
    levels = Custom(sigmas=theirs.sigmas[:-1].tolist()).levels(path("ddpm-linear"), num_steps)
    step_by_step(theirs, DPMpp3M(published=True, lower_order_final=num_steps < 15), levels)


@pytest.mark.parametrize("points", [1, 2, 3])
def test_deis(points: int) -> None:
    """Their levels, which end in noise: at index 0 of the table, four times as far as the step before went."""
    theirs = diffusers.DEISMultistepScheduler(**LINEAR, solver_order=points, lower_order_final=False)
    theirs.set_timesteps(15)
    levels = [path("ddpm-linear").onto(NoiseLevel(1.0, sigma)) for sigma in theirs.sigmas.tolist()]
    step_by_step(theirs, DEIS(points, steady=False), levels)


@pytest.mark.parametrize("spacing", ["linspace", "karras"])
def test_lms(spacing: str) -> None:
    """Of order 4, to clean data at full order."""
    if spacing == "karras":
        in_sigma(diffusers.LMSDiscreteScheduler(**LINEAR, use_karras_sigmas=True), LMS(), Karras(), 12)
    else:
        in_sigma(diffusers.LMSDiscreteScheduler(**LINEAR), LMS(), Linspace(), 10)


def test_pndm() -> None:
    """``skip_prk_steps``, leading, offset 1, ``set_alpha_to_one``: the first step asks twice."""
    theirs = diffusers.PNDMScheduler(**LINEAR, skip_prk_steps=True, set_alpha_to_one=True, steps_offset=1)
    theirs.set_timesteps(10)
    levels = Leading().levels(path("ddpm-linear"), 10)
    x = start(levels[0])
    y, calls = x.float(), 0
    for i, state in enumerate(ours(PLMS(), levels, x)):
        for level in levels[:2] if i == 0 else [levels[i]]:
            y = theirs.step(said(y, level, "noise"), int(theirs.timesteps[calls]), y).prev_sample
            calls += 1
        assert relative(y, state) < CLOSE, i
    assert calls == len(theirs.timesteps)


def test_ipndm() -> None:
    """Their own path, from its second level on; their network predicts v."""
    theirs = diffusers.IPNDMScheduler()
    theirs.set_timesteps(12)
    theirs.set_begin_index(1)
    levels = [NoiseLevel(float(a), float(s)) for a, s in zip(theirs.alphas, theirs.betas, strict=True)]
    levels = [NoiseLevel(math.sqrt(1 - level.sigma**2), level.sigma) for level in levels[1:]]
    x = start(levels[0])
    y = x.float()
    for i, state in enumerate(ours(IPNDM(), levels, x)):
        y = theirs.step(said(y, levels[i], "v"), theirs.timesteps[i + 1], y).prev_sample
        assert relative(y, state) < CLOSE, i


# where we differ on purpose


def test_difference_second_difference_of_3m() -> None:
    """Their 3M weighs h^2 f''/2 as if it were h^2 f'': of second order. Weighed whole it is of third."""
    published, whole = (started(DPMpp3M(published=published)) for published in (True, False))
    published.order = whole.order = 3
    assert abs(slope(strong_errors(published, "flow")) - 2) < 0.1
    assert abs(slope(strong_errors(whole, "flow")) - 3) < 0.1


def test_difference_deis_ends_in_noise() -> None:
    """Their DEIS stops at the noise of index 0, in the picture with sd 0.01; ours goes on to the data."""
    theirs = diffusers.DEISMultistepScheduler(**LINEAR)
    theirs.set_timesteps(10)
    assert math.isclose(float(theirs.sigmas[-1]), 0.01, rel_tol=1e-3)
    levels = Linspace().levels(path("ddpm-linear"), 10)
    assert levels[-1] == (1.0, 0.0)
    *_, before, end = ours(DEIS(), levels, start(levels[0]))
    assert torch.equal(end, mixture().estimate(before, levels[-2]).x0)


def test_difference_ipndm_at_pure_noise() -> None:
    """Their first step takes x for eps, and so the picture for 0, whatever the network says, and keeps that for four
    steps; ours believes the network."""
    theirs = diffusers.IPNDMScheduler()
    theirs.set_timesteps(8)
    x = draw(ROWS, 2)
    there = NoiseLevel(float(theirs.alphas[1]), float(theirs.betas[1]))
    y = theirs.step(torch.full((ROWS, 2), -0.7), theirs.timesteps[0], x.float()).prev_sample  # v = -x0 there
    assert relative(y, there.sigma * x) < CLOSE

    def denoise(x: Tensor, here: NoiseLevel, _: NoiseLevel) -> Any:
        return Gaussian(mean=0.7, variance=1e-12).estimate(x, here)

    move = IPNDM().step(denoise, x, NoiseLevel(0.0, 1.0), there, None, None)  # type: ignore[arg-type]
    assert torch.allclose(move.x, there.alpha * 0.7 + there.sigma * x, rtol=0, atol=1e-9)
    assert move.state.values == (), "pure noise leaves no history"


def test_difference_first_sigma_of_a_flow() -> None:
    """Theirs starts a flow at sigma = 1 - 1e-6, to have a log-SNR, and extrapolates from there; ours starts at 1, with
    an Euler step that leaves no history."""
    theirs = diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    theirs.set_timesteps(8)
    assert 0 < 1 - float(theirs.sigmas[0]) < 2e-6
    levels = Shifted(3.0).levels(path("flow"), 8)
    assert levels[0] == (0.0, 1.0)
    x = draw(ROWS, 2)
    first = next(iter(ours(UniPC(), levels, x)))
    e = mixture().estimate(x, levels[0])
    assert torch.equal(first, levels[1].mix(e.x0, e.eps))
    move = UniPC().step(lambda *_: e, x, levels[0], levels[1], UniPC().start(levels), None)  # type: ignore[arg-type]
    assert move.state.past.values == ()
    assert move.state.promise is None


def test_difference_unipc_bh1_reaches_data() -> None:
    """At sigma = 0 their h is infinite, and B(h) = h times a sum of nothing is no number: with their default end, every
    picture of bh1. Ours takes Euler's step there."""
    theirs = diffusers.UniPCMultistepScheduler(**LINEAR, solver_type="bh1")
    theirs.set_timesteps(5)
    levels = Custom(sigmas=theirs.sigmas[:-1].tolist()).levels(path("ddpm-linear"), 5)
    y = start(levels[0]).float()
    for i, level in enumerate(levels[:-1]):
        assert y.isfinite().all()
        y = theirs.step(said(y, level, "noise"), theirs.timesteps[i], y).prev_sample
    assert y.isnan().all()
    *_, end = ours(UniPC(variant="bh1"), levels, start(levels[0]))
    assert end.isfinite().all()


def test_difference_unipc_keeps_changed_halves() -> None:
    """Their corrector starts again from the state before, and loses a change of eps that guidance made (CFG++); ours
    corrects by the difference. For an estimate whose halves belong together the two are the same."""
    levels = Leading().levels(path("ddpm-linear"), 10)
    x = start(levels[0])
    denoise = mixture().estimate
    one = UniPC().step(denoise, x, levels[0], levels[1], UniPC().start(levels), None)  # type: ignore[arg-type]
    e = denoise(one.x, levels[1])
    plain, moved = (
        UniPC().step(lambda *_, e=each: e, one.x, levels[1], levels[2], one.state, None).x  # type: ignore[arg-type,misc]
        for each in (e, e._replace(eps=e.eps + 0.3))
    )
    assert torch.allclose(moved - plain, torch.full_like(plain, 0.3 * float(levels[2].sigma)), rtol=1e-9)
    assert find("solvers", "uni_pc") is UniPC
