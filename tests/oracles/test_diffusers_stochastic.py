"""Step by step against diffusers' stochastic schedulers, with their noise injected; and where they are wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from laws.world import mixture, path
from oracles.test_diffusers import CLOSE, LINEAR, ROWS, SCHEDULES, SIGMA, relative, said, start
from oracles.test_k_diffusion_stochastic import Recorded, together
from unnoise.core.level import NoiseLevel, Scalar
from unnoise.core.mixture import Deltas
from unnoise.core.path import Path
from unnoise.core.registry import find
from unnoise.core.sample import sample
from unnoise.core.solver import Solver

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of theirs
Theirs = Callable[[int, Tensor, list[Tensor]], Tensor]  # (step, their state, noise) -> their next state


def both(solver: Solver, levels: list[NoiseLevel], theirs: Theirs, in_sigma: bool = False, last: bool = True) -> float:
    """The largest difference at any step; in_sigma: their states are ours over alpha. last: the last step counts."""
    x, source, worst = start(levels[0]), Recorded(), 0.0
    y = (x / levels[0].alpha if in_sigma else x).float()
    for step in sample(mixture().estimate, solver, levels, x, source):
        kept, source.kept = source.kept, []
        draws = [z for _, _, z in kept]
        if len(kept) == 2:
            draws[1] = together(kept[0], kept[1])
        y = theirs(step.index, y, [z.float() for z in draws])
        if last or step.there != levels[-1]:
            alpha = float(step.there.alpha) if in_sigma else 1.0
            worst = max(worst, relative(y, step.run.x / alpha, alpha))
    return worst


def inject(monkeypatch: pytest.MonkeyPatch, module: str, draws: list[Tensor]) -> None:
    """Their next random numbers are these; zeros where we draw none."""
    queue = [*draws]
    zeros = torch.zeros(ROWS, 2)
    monkeypatch.setattr(
        f"diffusers.schedulers.scheduling_{module}.randn_tensor", lambda *a, **k: queue.pop(0) if queue else zeros
    )


def by_sigmas(sigmas: list[float]) -> list[NoiseLevel]:
    levels = [path("ddpm-linear").onto(NoiseLevel(1.0, sigma)) for sigma in sigmas if sigma]
    return [*levels, path("ddpm-linear").at(0.0)] if not sigmas[-1] else levels


@pytest.mark.parametrize("spacing", ["linspace", "leading"])
def test_euler_a(spacing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = diffusers.EulerAncestralDiscreteScheduler(**LINEAR, timestep_spacing=spacing)
    theirs.set_timesteps(10)

    def step(i: int, y: Tensor, draws: list[Tensor]) -> Tensor:
        inject(monkeypatch, "euler_ancestral_discrete", draws)
        theirs.scale_model_input(y, theirs.timesteps[i])
        told = said(y, NoiseLevel(1.0, float(theirs.sigmas[i])), "noise")
        return theirs.step(told, theirs.timesteps[i], y).prev_sample

    assert both(find("solvers", "euler-a")(), by_sigmas(theirs.sigmas.tolist()), step, in_sigma=True) < CLOSE


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_rectified_euler_a(eta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their rule for flow models is our "rectified"; the default is the posterior, and draws another amount."""
    theirs = diffusers.LTXEulerAncestralRFScheduler(eta=eta)
    sigmas = [1 - i / 10 for i in range(10)] + [0.0]
    theirs.set_timesteps(sigmas=sigmas)
    levels = [NoiseLevel(1 - float(s), float(s)) for s in theirs.sigmas]

    def step(i: int, y: Tensor, draws: list[Tensor]) -> Tensor:
        inject(monkeypatch, "ltx_euler_ancestral_rf", draws)
        return theirs.step(said(y, levels[i], "flow"), theirs.timesteps[i], y).prev_sample

    assert both(find("solvers", "euler-a")(eta=eta, rule="rectified"), levels, step) < CLOSE
    theirs._step_index = None
    assert both(find("solvers", "euler-a")(eta=eta), levels, step) > 0.01


@pytest.mark.parametrize("karras", [False, True])
def test_dpm_2_a(karras: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = diffusers.KDPM2AncestralDiscreteScheduler(**LINEAR, use_karras_sigmas=karras)
    theirs.set_timesteps(10)
    levels = by_sigmas(list(dict.fromkeys(theirs.sigmas.tolist())))
    calls = iter(range(100))

    def step(i: int, y: Tensor, draws: list[Tensor]) -> Tensor:
        inject(monkeypatch, "k_dpm_2_ancestral_discrete", draws)
        for half in range(2 if i < 9 else 1):
            call = next(calls)
            sigma = theirs.sigmas_interpol[call - 1] if half else theirs.sigmas[call]
            theirs.scale_model_input(y, theirs.timesteps[call])
            y = theirs.step(said(y, NoiseLevel(1.0, float(sigma)), "noise"), theirs.timesteps[call], y).prev_sample
        return y

    assert both(find("solvers", "dpm-2-a")(steady=False), levels, step, in_sigma=True) < CLOSE


@pytest.mark.parametrize("karras", [False, True])
def test_dpmpp_sde(karras: bool) -> None:
    theirs = diffusers.DPMSolverSDEScheduler(**LINEAR, use_karras_sigmas=karras)
    theirs.set_timesteps(10)
    sigmas = list(dict.fromkeys(theirs.sigmas.tolist()))
    levels = by_sigmas(sigmas)
    calls = iter(range(100))

    def step(i: int, y: Tensor, draws: list[Tensor]) -> Tensor:
        theirs.noise_sampler = lambda *_: draws.pop(0)
        for half in range(2 if i < 9 else 1):
            sigma = math.sqrt(sigmas[i] * sigmas[i + 1]) if half else sigmas[i]
            call = next(calls)
            theirs.scale_model_input(y, theirs.timesteps[call])
            y = theirs.step(said(y, NoiseLevel(1.0, sigma), "noise"), theirs.timesteps[call], y).prev_sample
        return y

    assert both(find("solvers", "dpmpp-sde")(), levels, step, in_sigma=True) < CLOSE


def multistep(solver: Solver, num_steps: int, flow: bool = False, **options: Any) -> float:
    """sde-dpmsolver++ against ours, on their levels."""
    told = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"} if flow else {}
    theirs = diffusers.DPMSolverMultistepScheduler(**LINEAR, algorithm_type="sde-dpmsolver++", **options, **told)
    theirs.set_timesteps(num_steps)
    sigmas = theirs.sigmas.double().tolist()
    levels = [NoiseLevel(1 - s, s) for s in sigmas] if flow else by_sigmas(sigmas)

    def step(i: int, y: Tensor, draws: list[Tensor]) -> Tensor:
        z = draws[0] if draws else torch.zeros_like(y)
        output = said(y, levels[i], "flow" if flow else "noise")
        return theirs.step(output, theirs.timesteps[i], y, variance_noise=z).prev_sample

    return both(solver, levels, step)


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("form", ["midpoint", "heun"])
@pytest.mark.parametrize("num_steps", [9, 20])
def test_dpmpp_2m_sde(num_steps: int, form: Any, flow: bool) -> None:
    """sde-dpmsolver++, order 2, both types, final sigma zero, on the variance-preserving and the flow path."""
    solver = find("solvers", "dpmpp-2m-sde")(form=form, steady=False)
    assert multistep(solver, num_steps, flow, solver_order=2, solver_type=form) < CLOSE


def test_difference_sign_of_the_third_order() -> None:
    """With the same noise, methods of one equation come together as steps are added; their order 3 does not."""
    solvers = [find("solvers", "dpmpp-3m-sde")(form="published"), find("solvers", "dpmpp-2m-sde")(form="heun")]
    found = {
        n: [multistep(solver, n, solver_order=3) for solver in solvers]
        + [multistep(solvers[0], n, solver_order=2, solver_type="heun")]
        for n in (50, 100)
    }
    for theirs_ours, theirs_2m, ours_2m in found.values():
        assert min(theirs_ours, theirs_2m) > 0.4
        assert ours_2m < 0.3
    assert found[100][2] < 0.7 * found[50][2], found
    assert found[100][0] > found[50][0], found


def sa(predictor: int, corrector: int, tau: float, simple: bool, monkeypatch: pytest.MonkeyPatch) -> float:
    theirs = diffusers.SASolverScheduler(
        **LINEAR,
        predictor_order=predictor,
        corrector_order=corrector,
        tau_func=lambda t: tau,
        lower_order_final=False,
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(10)
    theirs.sigmas = theirs.sigmas.double()  # their polynomials in log-SNR lose too many digits in float32
    levels = by_sigmas(theirs.sigmas.tolist())

    def step(i: int, y: Tensor, draws: list[Tensor]) -> Tensor:
        inject(monkeypatch, "sasolver", draws)
        return theirs.step(said(y, levels[i], "noise"), theirs.timesteps[i], y).prev_sample

    assert float(theirs.sigmas[-1]) > 0.009
    ours = find("solvers", "sa-solver")(predictor=predictor, corrector=corrector, tau=tau, simple=simple, steady=False)
    return both(ours, levels, step)


@pytest.mark.parametrize("orders", [(1, 2), (2, 2), (3, 3), (3, 4)])
@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
def test_sa_solver(orders: tuple[int, int], tau: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data prediction, constant tau, the order not lowered at the end; where theirs uses two pictures, "simple"."""
    # their last step, to index 0, is five times as long as the one before it
    assert sa(*orders, tau, True, monkeypatch) < CLOSE


def test_difference_sa_solver_ends_short_of_data() -> None:
    """Their levels end at index 0 of the table, whatever the spacing, and its noise stays in the picture."""
    theirs = diffusers.SASolverScheduler(**LINEAR, timestep_spacing="trailing")
    theirs.set_timesteps(10)
    assert math.isclose(float(theirs.sigmas[-1]), float(path("ddpm-linear").at(1e-3).sigma_hat), rel_tol=SIGMA)
    assert find("spacings", "trailing")().levels(path("ddpm-linear"), 10)[-1].sigma == 0


def test_lcm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps of the usual schedule. Their boundary factors are 1 and 0 to six digits there."""
    theirs = diffusers.LCMScheduler(**SCHEDULES["scaled-linear"], clip_sample=False)
    theirs.set_timesteps(4)
    on = path("scaled-linear")
    levels = [*[on.at((int(t) + 1) / 1000) for t in theirs.timesteps], on.at(0.0)]

    def step(i: int, y: Tensor, draws: list[Tensor]) -> Tensor:
        inject(monkeypatch, "lcm", draws)
        return theirs.step(said(y, levels[i], "noise"), theirs.timesteps[i], y).prev_sample

    assert both(find("solvers", "lcm")(), levels, step) < CLOSE


@pytest.mark.parametrize("kind", ["flow_match_lcm", "flow_match_euler_discrete"])
def test_flow_lcm(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FlowMatchLCM, and FlowMatchEuler with stochastic_sampling: both are consistency sampling."""
    if kind == "flow_match_lcm":
        theirs: Any = diffusers.FlowMatchLCMScheduler()
    else:
        theirs = diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    theirs.set_timesteps(sigmas=[1 - i / 8 for i in range(8)])
    levels = [NoiseLevel(1 - float(s), float(s)) for s in theirs.sigmas]

    def step(i: int, y: Tensor, draws: list[Tensor]) -> Tensor:
        inject(monkeypatch, kind, draws)
        return theirs.step(said(y, levels[i], "flow"), theirs.timesteps[i], y).prev_sample

    assert both(find("solvers", "lcm")(), levels, step) < CLOSE


class ByIndex(Path):
    """A table's path with time counted as diffusers counts it: index / 1000."""

    def __init__(self, inner: Path) -> None:
        self.inner = inner

    def at(self, t: Scalar) -> NoiseLevel:
        return self.inner.at(t + 1e-3)

    def time_of(self, level: NoiseLevel) -> Scalar:
        return self.inner.time_of(level) - 1e-3


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_tcd(eta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timesteps of which (1 - eta) is whole; all but the last step, and time counted as theirs."""
    theirs = diffusers.TCDScheduler(**SCHEDULES["scaled-linear"])
    theirs.set_timesteps(timesteps=[998, 748, 500, 250])
    on = path("scaled-linear")
    levels = [*[on.at((int(t) + 1) / 1000) for t in theirs.timesteps], on.at(0.0)]

    def step(i: int, y: Tensor, draws: list[Tensor]) -> Tensor:
        inject(monkeypatch, "tcd", draws)
        return theirs.step(said(y, levels[i], "noise"), theirs.timesteps[i], y, eta=eta).prev_sample

    assert both(find("solvers", "tcd")(eta, ByIndex(on)), levels, step, last=False) < CLOSE


def test_difference_tcd_ends_short_of_data() -> None:
    """Around one point, their last state has the noise of index 0; ours is the point."""
    theirs = diffusers.TCDScheduler(**SCHEDULES["scaled-linear"])
    theirs.set_timesteps(4)
    last, on = int(theirs.timesteps[-1]), path("scaled-linear")
    level, point, eps = on.at((last + 1) / 1000), torch.full((1, 2), 0.5), torch.ones(1, 2)
    theirs._step_index = 3
    done = theirs.step(eps, last, level.mix(point, eps), eta=0.3).prev_sample
    left = on.at(1e-3)
    assert torch.allclose(done, left.mix(point, eps), rtol=0, atol=1e-6)
    assert left.sigma > 0.025


@pytest.mark.parametrize("kind", [diffusers.EulerDiscreteScheduler, diffusers.EDMEulerScheduler])
def test_difference_churn_after_the_network(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They add the noise after the network was asked, and take its answer for the noisier state.

    Around the point 0 a state at a level has the variance sigma^2: x and z are kept apart here, in two places.
    """
    theirs = kind()
    theirs.set_timesteps(10)
    sigma, low = float(theirs.sigmas[6]), float(theirs.sigmas[7])
    x, z = torch.tensor([[sigma, 0.0]]), torch.tensor([[0.0, 1.0]])
    module = kind.__module__
    monkeypatch.setattr(f"{module}.randn_tensor", lambda *a, **k: z)
    theirs.scale_model_input(x, theirs.timesteps[6])
    if kind is diffusers.EulerDiscreteScheduler:
        told = x / sigma
    else:  # its network's output F: c_skip x + c_out F is the picture, here 0
        told = -x * theirs.config.sigma_data / (sigma * math.sqrt(sigma**2 + theirs.config.sigma_data**2))
    done = theirs.step(told, theirs.timesteps[6], x, s_churn=4.0).prev_sample
    assert abs(float((done**2).sum()) / low**2 - 1) > 0.02, (sigma, low)

    class Told(Recorded):
        def between(self, here: NoiseLevel, there: NoiseLevel) -> Tensor:
            return z.double()

    solver, levels = find("solvers", "edm")(churn=4.0, form="euler"), [NoiseLevel(1.0, sigma), NoiseLevel(1.0, low)]
    gamma = solver.start([levels[0]] * 11)
    move = solver.step(Deltas(torch.zeros(1, 2)).estimate, x.double(), levels[0], levels[1], gamma, Told())
    assert math.isclose(float((move.x**2).sum()), low**2, rel_tol=1e-12)
