"""Step by step against diffusers, the perfect denoiser as network and the same noise, in named configurations.

Where the two differ on purpose, ``test_differences.py`` says which is right; docs/parity.md names all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from laws.world import draw, mixture, path
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import find
from unnoise.core.sample import sample
from unnoise.core.solver import Solver
from unnoise.core.spacing import Spacing
from unnoise.solvers.ddim import DDIM
from unnoise.solvers.ddpm import DDPM
from unnoise.solvers.dpmpp_2m import DPMpp2M
from unnoise.solvers.euler import Euler
from unnoise.solvers.heun import Heun
from unnoise.spacings.custom import Custom
from unnoise.spacings.karras import Karras
from unnoise.spacings.leading import Leading
from unnoise.spacings.linspace import Linspace
from unnoise.spacings.shifted import Shifted
from unnoise.spacings.trailing import Trailing

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of theirs
# float32 there, float64 here. A step of theirs rounds about 10 numbers, each by at most 2^-24 of itself, and these are
# up to 3 times the state's size, as a step may lead from a level to one of a third. That is 2e-6 a step, and 2e-5 in 10
# steps even if all of them point one way; in runs of 50 steps levels are near one another and the 3 is a 1. A wrong
# formula is off by 1e-3 or more.
CLOSE = 5e-5
# Their sigma is the root of 1 - alpha^2: where alpha^2 = 0.9999 is rounded by 3e-8, sigma is so by 1.5e-4 of itself.
SIGMA = 2e-4
LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SCHEDULES: dict[str, dict[str, Any]] = {
    "ddpm-linear": LINEAR,
    "scaled-linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
ROWS = 16


def relative(theirs: Tensor, ours: Tensor, alpha: float = 1.0) -> float:
    """The largest difference, of 1 + the state's size. States that are in x/alpha come with their alpha: in x a number
    that happens to be small does not show the rounding of large ones as its own."""
    return float((alpha * (theirs.double() - ours).abs() / (1 + alpha * ours.abs())).max())


def start(level: NoiseLevel) -> Tensor:
    """States at a level, of float32 numbers, so that both begin with the same."""
    return level.mix(mixture().sample(ROWS), draw(ROWS, 2)).float().double()


def source() -> NoiseSource:
    return NoiseSource(range(ROWS), (2,), torch.float64)


def ours(solver: Solver, levels: list[NoiseLevel], x: Tensor) -> Iterator[Tensor]:
    for step in sample(mixture().estimate, solver, levels, x, source()):
        yield step.run.x


def said(x: Tensor, level: NoiseLevel, told: str) -> Tensor:
    """What a perfect network of that prediction answers, in float32."""
    e = mixture().estimate(x.double(), level)
    return find("predictions", told)().encode(e.x0, e.eps, level).float()


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name: str) -> None:
    """alphas_cumprod, and the level of every index at t = (i + 1)/1000, at the last one too, where it is small.

    Theirs is a float32 product of 1000 factors, each rounded once and multiplied once: 2000 roundings of 2^-24.
    """
    theirs = diffusers.DDPMScheduler(**SCHEDULES[name]).alphas_cumprod.double()
    level = path(name).at(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    assert ((level.alpha**2 - theirs).abs() / theirs).max() < 2000 * 2**-24
    if name != "cosine":  # the product again, with no digits lost; their cosine is rounded before it is multiplied
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        if name == "scaled-linear":
            betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        assert (level.alpha**2 - torch.cumprod(1 - betas, 0)).abs().max() < 1e-12


@pytest.mark.parametrize("name", SCHEDULES)
def test_noising_and_velocity(name: str) -> None:
    """add_noise and get_velocity: our ``mix`` and the training target of v prediction."""
    theirs, on = diffusers.DDPMScheduler(**SCHEDULES[name]), path(name)
    x0, eps, index = draw(8, 3, 4, seed=1).float(), draw(8, 3, 4, seed=2).float(), torch.linspace(0, 999, 8).long()
    level = on.at((index + 1).double() / 1000)
    mixed, v = level.mix(x0, eps), find("predictions", "v")().encode(x0, eps, level)
    assert relative(theirs.add_noise(x0, eps, index), mixed.double()) < CLOSE
    assert relative(theirs.get_velocity(x0, eps, index), v.double()) < CLOSE


@pytest.mark.parametrize("num_steps", [5, 10, 13, 28, 50, 77, 999, 1000])
def test_spacings_are_the_same_indices(num_steps: int) -> None:
    """leading, trailing and linspace, which is fractional here and rounded to whole indices there."""
    on = path("ddpm-linear")
    for name, spacing in (("leading", Leading()), ("trailing", Trailing()), ("linspace", Linspace())):
        theirs = diffusers.DDIMScheduler(**LINEAR, timestep_spacing=name, steps_offset=1)
        theirs.set_timesteps(num_steps)
        found = np.array([on.time_of(level) * 1000 - 1 for level in spacing.levels(on, num_steps)[:-1]])
        if name == "leading" and num_steps == 1000:
            assert int(theirs.timesteps[0]) == 1000, "an index past the end of their table; ours lowers the offset"
            assert list(np.round(found)) == list(range(999, -1, -1))
        else:
            slack = 0.5 if name == "linspace" else 0.0
            assert np.abs(found - theirs.timesteps.numpy()).max() < slack + 1e-6, name


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("told", ["noise", "v", "data"])
@pytest.mark.parametrize("num_steps", [10, 50])
def test_ddim(num_steps: int, told: str, eta: float) -> None:
    """Leading, offset 1, n a divisor of 1000, no clipping."""
    names = {"noise": "epsilon", "v": "v_prediction", "data": "sample"}
    theirs = diffusers.DDIMScheduler(**LINEAR, clip_sample=False, steps_offset=1, prediction_type=names[told])
    theirs.set_timesteps(num_steps)
    levels = Leading().levels(path("ddpm-linear"), num_steps)
    x = start(levels[0])
    y = x.float()
    for i, state in enumerate(ours(DDIM(eta), levels, x)):
        z = source().at(i).between(levels[i], levels[i + 1]).float() if eta else None
        output = said(y, levels[i], told)
        y = theirs.step(output, int(theirs.timesteps[i]), y, eta=eta, variance_noise=z).prev_sample
        assert relative(y, state) < CLOSE, i


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddpm(spacing: str, variance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both variances. Leading with offset 0 ends at index 0, where neither draws noise; the step from any other last
    index is noised there with fixed_large, and not here: the last step is left out."""
    theirs = diffusers.DDPMScheduler(
        **LINEAR, clip_sample=False, variance_type=f"fixed_{variance}", timestep_spacing=spacing
    )
    theirs.set_timesteps(50)
    chosen = Leading(offset=0) if spacing == "leading" else Trailing()
    levels = chosen.levels(path("ddpm-linear"), 50)
    x = start(levels[0])
    y = x.float()
    for i, state in enumerate(ours(DDPM(variance), levels, x)):
        z = source().at(i).between(levels[i], levels[i + 1]).float()
        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, z=z, **k: z)
        y = theirs.step(said(y, levels[i], "noise"), int(theirs.timesteps[i]), y).prev_sample
        if i < 49 or spacing == "leading" or variance == "small":
            assert relative(y, state) < CLOSE, i


def in_sigma(theirs: Any, solver: Solver, spacing: Spacing, num_steps: int, each: int = 1) -> None:
    """Schedulers that work in x/alpha: their states are ours divided by alpha. ``each``: their calls a step of ours.

    Both take the levels of theirs, whose alphas have lost digits in float32; that they are ours too is checked first.
    """
    theirs.set_timesteps(num_steps)
    sigmas = list(dict.fromkeys(theirs.sigmas.tolist()))[:-1]
    levels = Custom(sigmas=sigmas).levels(path("ddpm-linear"), num_steps)
    for own, level in zip(spacing.levels(path("ddpm-linear"), num_steps), levels, strict=True):
        assert math.isclose(float(own.sigma_hat), float(level.sigma_hat), rel_tol=SIGMA)
    x = start(levels[0])
    y = (x / levels[0].alpha).float()
    calls = 0
    for i, state in enumerate(ours(solver, levels, x)):
        for _ in range(each if i < num_steps - 1 else 1):
            sigma = float(theirs.sigmas[calls])
            theirs.scale_model_input(y, theirs.timesteps[calls])
            y = theirs.step(said(y, NoiseLevel(1.0, sigma), "noise"), theirs.timesteps[calls], y).prev_sample
            calls += 1
        assert relative(y, state / levels[i + 1].alpha, float(levels[i + 1].alpha)) < CLOSE, i
    assert calls == len(theirs.timesteps)


SIGMA_SPACED = pytest.mark.parametrize("spacing", ["linspace", "karras"])
CHOICE = {"linspace": (Linspace(), 10, {}), "karras": (Karras(), 12, {"use_karras_sigmas": True})}


@SIGMA_SPACED
def test_euler(spacing: str) -> None:
    """No churn; linspace where its indices are whole (n - 1 a divisor of 999)."""
    chosen, num_steps, options = CHOICE[spacing]
    scheduler = diffusers.EulerDiscreteScheduler(**LINEAR, **options)
    in_sigma(scheduler, Euler(), chosen, num_steps)


@SIGMA_SPACED
def test_heun(spacing: str) -> None:
    """Two of their steps are one of ours; the last is Euler's, and with ``steady`` the one before it, to index 0."""
    chosen, num_steps, options = CHOICE[spacing]
    scheduler = diffusers.HeunDiscreteScheduler(**LINEAR, **options)
    in_sigma(scheduler, Heun(steady=False), chosen, num_steps, each=2)


@pytest.mark.parametrize("num_steps", [9, 20])
@SIGMA_SPACED
def test_dpmpp_2m(spacing: str, num_steps: int) -> None:
    """dpmsolver++, order 2, midpoint, final sigma zero. Their levels are taken as they are; states are in x here."""
    options = CHOICE[spacing][2]
    theirs = diffusers.DPMSolverMultistepScheduler(**LINEAR, algorithm_type="dpmsolver++", solver_order=2, **options)
    theirs.set_timesteps(num_steps)
    on = path("ddpm-linear")
    levels = Custom(sigmas=theirs.sigmas[:-1].tolist()).levels(on, num_steps)
    if spacing == "karras":
        for own, level in zip(Karras().levels(on, num_steps), levels, strict=True):
            assert math.isclose(own.sigma, level.sigma, rel_tol=SIGMA)
    x = start(levels[0])
    y = x.float()
    for i, state in enumerate(ours(DPMpp2M(), levels, x)):
        y = theirs.step(said(y, levels[i], "noise"), theirs.timesteps[i], y).prev_sample
        assert relative(y, state) < CLOSE, i


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_euler(shift: float) -> None:
    """Explicit sigmas, 1 - i/n, from pure noise; the shift is applied once by each."""
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=[1 - i / 10 for i in range(10)])
    levels = Shifted(shift).levels(path("flow"), 10)
    assert np.abs(np.array([level.sigma for level in levels]) - theirs.sigmas.numpy()).max() < 1e-6
    x = draw(ROWS, 2).float().double()
    y = x.float()
    for i, state in enumerate(ours(Euler(), levels, x)):
        y = theirs.step(said(y, levels[i], "flow"), theirs.timesteps[i], y).prev_sample
        assert relative(y, state) < CLOSE, i
