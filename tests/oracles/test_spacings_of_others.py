"""Spacings and paths against k-diffusion, diffusers, ComfyUI's rules written anew, and what is best."""

from __future__ import annotations

import ast
import math
from itertools import pairwise
from pathlib import Path as FilePath
from typing import Any

import diffusers
import numpy as np
import pytest
import scipy.stats
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from diffusers.schedulers.scheduling_utils import AysSchedules

from laws.world import path
from oracles.k_diffusion import sampling
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import find
from unnoise.core.spacing import Spacing
from unnoise.errors import UnnoiseError
from unnoise.spacings.align_your_steps import KNOTS
from unnoise.spacings.quantiles import beta_cdf, beta_quantile

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of theirs
LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def make(name: str, **settings: Any) -> Spacing:
    made: Spacing = find("spacings", name)(**settings)
    return made


def sigmas(levels: list[NoiseLevel]) -> list[float]:
    """sigma/alpha of all levels but the data."""
    assert levels[-1].sigma == 0
    return [float(level.sigma_hat) for level in levels[:-1]]


def places(on: Path, levels: list[NoiseLevel]) -> list[float]:
    """Where a run stands in the table, index 0 the cleanest level."""
    return [float(on.time_of(level)) * 1000 - 1 for level in levels[:-1]]


def lifted(module: str, name: str) -> Any:
    """One function out of diffusers' source, without importing its module and all the networks that it wants."""
    text = (FilePath(diffusers.__file__).parent / module).read_text(encoding="utf-8")
    (node,) = (n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == name)
    space: dict[str, Any] = {}
    exec(compile(ast.Module([node], []), module, "exec"), space)
    return space[name]


@pytest.mark.parametrize("n", [2, 9, 25])
def test_ramps_are_k_diffusion_s(n: int) -> None:
    on = path("ddpm-linear")
    low, top = (float(on.at(t).sigma_hat) for t in (1e-3, 1.0))
    for ours, theirs in (
        (make("exponential"), sampling.get_sigmas_exponential(n, low, top)),
        (make("poly-exponential"), sampling.get_sigmas_polyexponential(n, low, top)),
        (make("poly-exponential", rho=2.5), sampling.get_sigmas_polyexponential(n, low, top, 2.5)),
        (make("karras"), sampling.get_sigmas_karras(n, low, top)),
    ):
        assert np.allclose(sigmas(ours.levels(on, n)), theirs[:-1].tolist(), rtol=2e-5)


def test_vp_is_k_diffusion_s() -> None:
    theirs = sampling.get_sigmas_vp(20)
    on = path("vp")
    ours = [float(on.at(1 + i / 19 * (1e-3 - 1)).sigma_hat) for i in range(20)]
    assert np.allclose(ours, theirs[:-1].tolist(), rtol=1e-3)  # float32, and exp(B) - 1 cancels near the data


def test_beta_quantiles_are_scipy_s() -> None:
    for a, b in ((0.6, 0.6), (0.5, 0.7), (1.0, 1.0), (3.0, 2.0), (40.0, 3.0)):
        for u in (1e-4, 0.02, 0.3, 0.5, 0.77, 0.999):
            x = beta_quantile(u, a, b)
            assert math.isclose(x, scipy.stats.beta.ppf(u, a, b), rel_tol=1e-9)
            assert math.isclose(beta_cdf(x, a, b), u, rel_tol=1e-12)


def test_beta_sigma_is_diffusers() -> None:
    theirs = diffusers.EulerDiscreteScheduler(**SCALED, use_beta_sigmas=True)
    theirs.set_timesteps(12)
    ours = sigmas(make("beta-sigma").levels(path("scaled-linear"), 12))
    assert np.allclose(ours, theirs.sigmas[:-1].tolist(), rtol=1e-4)


def test_difference_beta() -> None:
    """Their "beta" has quantiles of sigma, not of the timestep as in the paper that they name: most steps are noisy."""
    theirs = diffusers.EulerDiscreteScheduler(**SCALED, use_beta_sigmas=True)
    theirs.set_timesteps(20)
    ours = sigmas(make("beta").levels(path("scaled-linear"), 20))
    assert sum(sigma > 5 for sigma in theirs.sigmas.tolist()) >= 11
    assert sum(sigma > 5 for sigma in ours) <= 7
    on = path("scaled-linear")
    u = [(place / 999) for place in places(on, make("beta").levels(on, 20))]
    assert np.allclose([scipy.stats.beta.cdf(x, 0.6, 0.6) for x in u], [1 - i / 20 for i in range(20)], atol=1e-9)


@pytest.mark.parametrize("n", [4, 11, 30])
def test_spacings_are_comfyui_s(n: int) -> None:
    """normal, sgm_uniform, simple, beta and kl_optimal by their rules on a table of 1000."""
    on = path("scaled-linear")
    whole = np.linspace(999, 0, n + 1)[:-1]
    assert np.allclose(places(on, make("sgm-uniform").levels(on, n)), whole, atol=1e-8)
    assert np.allclose(places(on, make("normal").levels(on, n)), np.linspace(999, 0, n), atol=1e-8)
    simple = [999 - int(i * (1000 / n)) for i in range(n)]
    assert np.allclose(places(on, make("simple").levels(on, n)), simple, atol=1e-8)
    beta = np.rint(scipy.stats.beta.ppf(1 - np.linspace(0, 1, n, endpoint=False), 0.6, 0.6) * 999)
    assert np.abs(np.array(places(on, make("beta").levels(on, n))) - beta).max() <= 0.5 + 1e-9
    low, top = (float(on.at(t).sigma_hat) for t in (1e-3, 1.0))
    kl = np.tan(np.linspace(math.atan(top), math.atan(low), n))
    assert np.allclose(sigmas(make("kl-optimal").levels(on, n)), kl, rtol=1e-9)


def test_comfyui_s_beta_loses_levels() -> None:
    """Rounded, its quantiles meet: 500 steps become 475. Ours are as many as were asked for."""
    beta = np.rint(scipy.stats.beta.ppf(1 - np.linspace(0, 1, 500, endpoint=False), 0.6, 0.6) * 999)
    assert len(np.unique(beta)) == 475
    assert len(make("beta").levels(path("scaled-linear"), 500)) == 501


@pytest.mark.parametrize("n", [2, 3, 30, 64])
def test_linear_quadratic_is_mochi_s(n: int) -> None:
    theirs = lifted("pipelines/mochi/pipeline_mochi.py", "linear_quadratic_schedule")
    for threshold in (0.025, 0.1):
        ours = make("linear-quadratic", threshold=threshold).levels(path("flow"), n)
        assert np.allclose([level.sigma for level in ours[:-1]], theirs(n, threshold), atol=1e-12)
    with pytest.raises(UnnoiseError):
        make("linear-quadratic", threshold=0.5)


def test_align_your_steps_is_as_published() -> None:
    """Ten steps visit diffusers' constants; others are read off the line through the knots' logarithms."""
    for knots, constants, name in (("sd", "Sigmas", ""), ("sdxl", "Sigmas", "XL"), ("svd", "Sigmas", "Video")):
        theirs = AysSchedules[f"StableDiffusion{name}{constants}"]
        assert list(KNOTS[knots][:-1]) == theirs[:-1]
        on = find("paths", "ve")(sigma_max=1000.0)
        assert np.allclose(sigmas(make("ays", knots=knots).levels(on, 10))[1:], theirs[1:-1], rtol=1e-9)
        for n in (4, 25):
            x = np.linspace(0, 1, n + 1)
            curve = np.exp(np.interp(x, np.linspace(0, 1, 11), np.log(KNOTS[knots])))
            assert np.allclose(sigmas(make("ays", knots=knots).levels(on, n))[1:], curve[1:-1], rtol=1e-9)
    told = places(path("scaled-linear"), make("ays").levels(path("scaled-linear"), 10))
    assert np.abs(np.array(told) - AysSchedules["StableDiffusionTimesteps"]).max() < 1.5
    with pytest.raises(UnnoiseError, match="above the path's noisiest"):
        make("ays", knots="svd").levels(path("scaled-linear"), 10)


@pytest.mark.parametrize(("side", "tokens"), [(32, 256), (64, 1024), (128, 4096)])
def test_resolution_shift_is_flux_s(side: int, tokens: int) -> None:
    mu = lifted("pipelines/flux/pipeline_flux.py", "calculate_shift")(tokens)
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    theirs.set_timesteps(sigmas=np.linspace(1.0, 1 / 10, 10), mu=mu)
    ours = make("resolution-shifted").levels(path("flow"), 10, (16, side, side))
    assert np.allclose([level.sigma for level in ours], theirs.sigmas.tolist(), atol=1e-6)


def test_resolution_shift_of_sd3() -> None:
    """Equation 23: four times the side is four times the shift, and 256 tokens are where it is 1."""
    flow = path("flow")
    plain = make("trailing").levels(flow, 8)
    for side, shift in ((32, 1.0), (64, 2.0), (128, 4.0)):
        ours = make("resolution-shifted", rule="sd3").levels(flow, 8, (16, side, side))
        wanted = [shift * level.sigma / (1 + (shift - 1) * level.sigma) for level in plain]
        assert np.allclose([level.sigma for level in ours], wanted, atol=1e-12)
    with pytest.raises(UnnoiseError, match="shape"):
        make("resolution-shifted").levels(flow, 8)


@pytest.mark.parametrize(("name", "schedule"), [("ddpm-linear", LINEAR), ("scaled-linear", SCALED)])
def test_zero_snr_is_diffusers(name: str, schedule: dict[str, Any]) -> None:
    """At every level of the table; theirs through single-step variances in float64."""
    roots = {"linear": 1.0, "scaled_linear": 0.5}[schedule["beta_schedule"]]
    betas = torch.linspace(schedule["beta_start"] ** roots, schedule["beta_end"] ** roots, 1000, dtype=torch.float64)
    theirs = torch.cumprod(1 - rescale_zero_terminal_snr(betas ** (1 / roots)), 0).sqrt()
    level = find("paths", "zero-snr")(path(name)).at(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    assert (level.alpha - theirs).abs().max() < 1e-10


def test_difference_zero_snr_end() -> None:
    """Their Euler ends such a path at alpha^2 = 2^-24 so that it can divide by alpha; ours at 0, and starts there."""
    theirs = diffusers.EulerDiscreteScheduler(**SCALED, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    assert float(theirs.alphas_cumprod[-1]) == 2**-24
    levels = make("trailing").levels(path("zero-snr"), 10)
    assert tuple(levels[0]) == (0.0, 1.0)
    theirs.set_timesteps(10)
    assert np.allclose(sigmas(levels)[1:], theirs.sigmas[1:-1].tolist(), rtol=1e-3)


def kept(levels: list[NoiseLevel]) -> float:
    """What is left of the deviation of unit-variance Gaussian data after Euler's steps; 1 would be all of it."""
    angles = [math.atan2(float(level.sigma), float(level.alpha)) for level in levels]
    return math.prod(math.cos(a - b) for a, b in pairwise(angles))


@pytest.mark.parametrize("n", [4, 10])
def test_kl_optimal_is_best_for_gaussian_data(n: int) -> None:
    """No other spacing, and no small change of its own levels, keeps more of the data's deviation."""
    flow = path("flow")
    best = make("kl-optimal", sigma_min=math.tan(math.pi / 2 / n)).levels(flow, n)  # all n + 1 angles even
    assert math.isclose(kept(best), math.cos(math.pi / 2 / n) ** n, rel_tol=1e-12)
    for name in ("trailing", "karras", "log-snr", "beta", "linear-quadratic"):
        assert kept(make(name).levels(flow, n)) < kept(best), name
    for number in range(1, n):
        for factor in (0.97, 1.03):
            moved = list(best)
            moved[number] = flow.onto(NoiseLevel(1.0, float(best[number].sigma_hat) * factor))
            assert kept(moved) < kept(best)
