"""The levels that published schedulers visit by default, family by family, against ours.

Compared are alpha and sigma of each level on the variance-preserving circle, at 1e-6: diffusers holds its table in
float32, as a product of a thousand factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch

from unnoise.core.level import NoiseLevel
from unnoise.core.notation import make
from unnoise.errors import UnnoiseError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of theirs
NEAR = 1e-6
STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SD1 = {**STABLE, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "clip_sample": False}
SD2 = {**SD1, "prediction_type": "v_prediction"}  # its folder names DDIM, that of 1.5 PNDM
SDXL = {**SD1, "timestep_spacing": "leading", "use_karras_sigmas": False, "interpolation_type": "linear"}
ZSNR = {**STABLE, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
FIRST = "leading(end=first)"


def ours(path: str, spacing: str, steps: int) -> list[NoiseLevel]:
    levels: list[NoiseLevel] = make("spacings", spacing).levels(make("paths", path), steps)
    return levels


def theirs(name: str, config: dict[str, Any], steps: int, exact: bool = False) -> Any:
    """A scheduler of diffusers; ``exact`` gives it a table in float64."""
    scheduler = getattr(diffusers, name).from_config(config)
    if exact:
        scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), 0)
    scheduler.set_timesteps(steps)
    return scheduler


def of_table(scheduler: Any) -> list[NoiseLevel]:
    """The levels of a scheduler that reads its table at each timestep, and at the end one of its own."""
    times = [t for t, again in pairwise([*scheduler.timesteps.tolist(), None]) if t != again]  # PNDM repeats one
    skip = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    assert [t - skip for t in times[:-1]] == times[1:], "each step goes where the next begins"
    assert times[-1] - skip < 0, "and the last one beyond the table"
    squares = [*(float(scheduler.alphas_cumprod[t]) for t in times), float(scheduler.final_alpha_cumprod)]
    return [NoiseLevel(math.sqrt(square), math.sqrt(1 - square)) for square in squares]


def of_sigmas(scheduler: Any) -> list[NoiseLevel]:
    """The levels of a scheduler that lists sigma/alpha."""
    return [NoiseLevel(1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)) for sigma in scheduler.sigmas.tolist()]


def far(found: Sequence[NoiseLevel], wanted: Sequence[NoiseLevel]) -> float:
    assert len(found) == len(wanted)
    pairs = zip(found, wanted, strict=True)
    return max(abs(float(a) - float(b)) for one, other in pairs for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("steps", [50, 25, 20, 7, 2])
@pytest.mark.parametrize(("scheduler", "config"), [("PNDMScheduler", SD1), ("DDIMScheduler", SD2)])
def test_stable_diffusion_1_and_2_stop_at_the_first_level(scheduler: str, config: dict[str, Any], steps: int) -> None:
    wanted = of_table(theirs(scheduler, config, steps))
    found = ours("scaled-linear", FIRST, steps)
    assert far(found, wanted) < NEAR
    assert found[-1].sigma > 0.029
    assert far(ours("scaled-linear", "leading", steps), wanted) > 0.02, "the control: data is another end"
    data = of_table(theirs(scheduler, {**config, "set_alpha_to_one": True}, steps)) if "DDIM" in scheduler else None
    if data is not None:
        assert far(ours("scaled-linear", "leading", steps), data) < NEAR


@pytest.mark.parametrize("steps", [4, 10, 28, 38])
def test_stable_diffusion_1_with_euler(steps: int) -> None:
    """Where the times are whole. Between two levels of the table theirs is linear in sigma, ours in its logarithm."""
    wanted = of_sigmas(theirs("EulerDiscreteScheduler", SD1, steps))
    assert far(ours("scaled-linear", "linspace", steps), wanted) < NEAR
    assert far(ours("scaled-linear", "trailing", steps), wanted) > 1e-3, "the control"
    between = of_sigmas(theirs("EulerDiscreteScheduler", SD1, 20))
    assert NEAR < far(ours("scaled-linear", "linspace", 20), between) < 1e-5


@pytest.mark.parametrize("steps", [5, 20, 25, 33])
@pytest.mark.parametrize("scheduler", ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler"])
def test_karras_levels_are_those_of_dpmpp_2m_karras(scheduler: str, steps: int) -> None:
    """The ends of the ramp are the table's, and its seventh powers enlarge what float32 loses there."""
    config, found = {**SD1, "use_karras_sigmas": True}, ours("scaled-linear", "karras", steps)
    assert far(found, of_sigmas(theirs(scheduler, config, steps, exact=True))) < NEAR
    assert far(found, of_sigmas(theirs(scheduler, config, steps))) < 5e-6
    assert far(found, ours("scaled-linear", "karras(rho=6.9)", steps)) > 1e-3, "the control"


@pytest.mark.parametrize("steps", [50, 30, 25, 9])
def test_stable_diffusion_xl_with_euler(steps: int) -> None:
    wanted = of_sigmas(theirs("EulerDiscreteScheduler", SDXL, steps))
    assert far(ours("scaled-linear", "leading", steps), wanted) < NEAR
    assert far(ours("scaled-linear", FIRST, steps), wanted) > 0.02, "the control: it goes to data"


@pytest.mark.parametrize("steps", [50, 25, 10])
def test_zero_terminal_snr(steps: int) -> None:
    """With DDIM, whose end is pure noise. Theirs of Euler starts at an alpha of 2^-12, of which ours has none."""
    found = ours("zero-snr", "trailing", steps)
    assert far(found, of_table(theirs("DDIMScheduler", ZSNR, steps))) < NEAR
    assert far(ours("scaled-linear", "trailing", steps), found) > 1e-3, "the control"
    euler = of_sigmas(theirs("EulerDiscreteScheduler", ZSNR, steps))
    assert far(found[1:], euler[1:]) < NEAR
    assert euler[0].alpha == pytest.approx(2**-12, rel=1e-3)


@pytest.mark.parametrize("original", [50, 20, 33])
@pytest.mark.parametrize("steps", [1, 2, 4, 6, 8, 13, 20])
def test_latent_consistency_models(original: int, steps: int) -> None:
    scheduler = diffusers.LCMScheduler.from_config({**SD1, "original_inference_steps": original})
    scheduler.set_timesteps(steps)
    squares = [*(float(scheduler.alphas_cumprod[t]) for t in scheduler.timesteps.tolist()), 1.0]
    wanted = [NoiseLevel(math.sqrt(square), math.sqrt(1 - square)) for square in squares]
    found = ours("scaled-linear", f"lcm({original})", steps)
    assert far(found, wanted) < NEAR
    if steps > 1:
        assert far(ours("scaled-linear", "leading", steps), wanted) > 1e-3, "the control"


@pytest.mark.parametrize(("setting", "spacing"), [("exponential", "log-snr"), ("beta", "beta-sigma")])
def test_ramps_of_sigma(setting: str, spacing: str) -> None:
    wanted = of_sigmas(theirs("EulerDiscreteScheduler", {**STABLE, f"use_{setting}_sigmas": True}, 25, exact=True))
    assert far(ours("scaled-linear", spacing, 25), wanted) < 5e-6
    assert far(ours("scaled-linear", "karras", 25), wanted) > 1e-3, "the control"


def test_playground_s_levels() -> None:
    config = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "rho": 7.0}
    wanted = theirs("EDMDPMSolverMultistepScheduler", config, 50).sigmas.tolist()
    found = ours("ve", "karras(sigma_min=0.002, sigma_max=80)", 50)
    assert [level.sigma_hat for level in found] == pytest.approx(wanted, rel=3e-6)  # seventh powers in float32
    assert found[-1].sigma == wanted[-1] == 0


def test_what_these_spacings_cannot_do_is_refused() -> None:
    with pytest.raises(UnnoiseError, match="lcm spacing knows 50 levels, not 51"):
        ours("scaled-linear", "lcm", 51)
    with pytest.raises(UnnoiseError, match="1000 levels, not 1001"):
        ours("scaled-linear", "lcm(1001)", 2)
    with pytest.raises(UnnoiseError, match="without an offset"):
        make("spacings", "leading(offset=0, end=first)")
    with pytest.raises(UnnoiseError, match="999 levels, not 1000"):
        ours("scaled-linear", FIRST, 1000)
    with pytest.raises(UnnoiseError, match="end is called 'second'"):
        make("spacings", "leading(end=second)")


@pytest.mark.parametrize("steps", [2, 3, 4, 7, 10, 20, 25, 50])
@pytest.mark.parametrize("spacing", ["linspace", "leading"])
@pytest.mark.parametrize("scheduler", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_multistep_schedulers_count_one_level_more(scheduler: str, spacing: str, steps: int) -> None:
    wanted = of_sigmas(theirs(scheduler, {**SD1, "timestep_spacing": spacing}, steps))
    found = ours("scaled-linear", f"{spacing}(cleanest=false)", steps)
    assert far(found, wanted) < NEAR
    assert far(ours("scaled-linear", spacing, steps), wanted) > 1e-3, "the control"


@pytest.mark.parametrize("steps", [50, 20, 10, 4])
def test_trailing_times_may_stop_at_the_first_level_too(steps: int) -> None:
    config = {**ZSNR, "set_alpha_to_one": False}
    found = ours("zero-snr", "trailing(end=first)", steps)
    assert far(found, of_table(theirs("DDIMScheduler", config, steps))) < NEAR
    assert far(ours("zero-snr", "trailing", steps), found) > 0.02, "the control"
