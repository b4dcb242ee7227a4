"""Where diffusers and we differ on purpose: what each does, and which is right. docs/parity.md names each."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch

from laws.world import draw, mixture, path
from oracles.test_diffusers import LINEAR, ROWS, SIGMA, ours, source, start
from unnoise.core.mixture import Deltas
from unnoise.core.sample import sample
from unnoise.solvers.ddim import DDIM
from unnoise.solvers.ddpm import DDPM
from unnoise.spacings.karras import Karras
from unnoise.spacings.leading import Leading
from unnoise.spacings.linspace import Linspace
from unnoise.spacings.shifted import Shifted
from unnoise.spacings.trailing import Trailing

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of theirs


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_difference_previous_timestep(spacing: str) -> None:
    """Their DDIM steps to t - floor(1000/13), not to the next of its list: the state is then not at its level.

    Seen where the data is one point c, and a state at a level must be alpha c + sigma eps.
    """
    theirs = diffusers.DDIMScheduler(**LINEAR, clip_sample=False, timestep_spacing=spacing)
    theirs.set_timesteps(13)
    on, point, eps = path("ddpm-linear"), torch.full((ROWS, 2), 0.5, dtype=torch.float64), draw(ROWS, 2)
    levels = [*[on.at((int(t) + 1) / 1000) for t in theirs.timesteps], on.at(0.0)]
    y = levels[0].mix(point, eps)
    off = []
    for step in sample(Deltas(point[:1]).estimate, DDIM(), levels, y, source()):
        wanted = step.there.mix(point, eps)
        assert torch.allclose(step.run.x, wanted, rtol=0, atol=1e-12)
        told = (y - step.here.alpha * point) / step.here.sigma
        y = theirs.step(told, int(theirs.timesteps[step.index]), y).prev_sample
        off.append(float((y - wanted).abs().max()))
    assert max(off[:-1]) > 1e-3


def test_difference_noise_in_the_last_step() -> None:
    """Their fixed_large adds sqrt(beta) of noise to the finished picture; 10 trailing steps: sd 0.32. Ours none."""
    theirs = diffusers.DDPMScheduler(
        **LINEAR, clip_sample=False, variance_type="fixed_large", timestep_spacing="trailing"
    )
    theirs.set_timesteps(10)
    last = int(theirs.timesteps[-1])
    x = torch.zeros(20000, 1)
    done = theirs.step(torch.zeros_like(x), last, x, generator=torch.Generator().manual_seed(0)).prev_sample
    assert abs(float(done.std()) - math.sqrt(1 - float(theirs.alphas_cumprod[last]))) < 0.01
    assert float(done.std()) > 0.3
    levels = Trailing().levels(path("ddpm-linear"), 10)[-2:]
    (end,) = ours(DDPM("large"), levels, start(levels[0]))
    x0 = mixture().estimate(start(levels[0]), levels[0]).x0
    assert torch.allclose(end, x0, rtol=0, atol=1e-12)


def test_difference_double_shift() -> None:
    """Their own sigmas are shifted when made and again when set: shift 3 ends at 0.0089, where 0.0030 is meant."""
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(10)
    meant = 3e-3 / (1 + 2e-3)
    assert float(theirs.sigmas[-2]) > 2.5 * meant
    flow = path("flow")
    levels = Shifted(3.0, Linspace()).levels(flow, 10)
    assert math.isclose(levels[-2].sigma, meant, rel_tol=1e-9)


def test_difference_fractional_timesteps() -> None:
    """Between two levels of a table sigma/alpha is interpolated evenly in its logarithm here, in itself there."""
    theirs = diffusers.EulerDiscreteScheduler(**LINEAR)
    theirs.set_timesteps(800)
    found = [float(level.sigma_hat) for level in Linspace().levels(path("ddpm-linear"), 800)[:-1]]
    gap = max(abs(a - b) / b for a, b in zip(found, theirs.sigmas[:-1].tolist(), strict=True))
    assert 1e-3 < gap < 1e-2, "near the data, where the table is coarse"
    whole = diffusers.EulerDiscreteScheduler(**LINEAR)
    whole.set_timesteps(10)
    found = [float(level.sigma_hat) for level in Linspace().levels(path("ddpm-linear"), 10)[:-1]]
    assert max(abs(a - b) / b for a, b in zip(found, whole.sigmas[:-1].tolist(), strict=True)) < SIGMA


def test_difference_told_levels() -> None:
    """A Karras run of their 2M tells the network the nearest whole timestep; ours the level that the state is at."""
    theirs = diffusers.DPMSolverMultistepScheduler(**LINEAR, use_karras_sigmas=True)
    theirs.set_timesteps(9)
    on = path("ddpm-linear")
    told = [on.time_of(level) * 1000 - 1 for level in Karras().levels(on, 9)[:-1]]
    gaps = [abs(a - float(b)) for a, b in zip(told, theirs.timesteps, strict=True)]
    assert 0.1 < max(gaps) < 0.6


def test_difference_leading_with_every_level() -> None:
    """1000 leading steps with offset 1 ask their table for index 1000; ours lowers the offset and keeps 1000 steps."""
    theirs = diffusers.DDIMScheduler(**LINEAR, steps_offset=1)
    theirs.set_timesteps(1000)
    with pytest.raises(IndexError):
        theirs.step(torch.zeros(1, 1), int(theirs.timesteps[0]), torch.zeros(1, 1))
    assert len(Leading().levels(path("ddpm-linear"), 1000)) == 1001


def test_difference_nothing_is_clipped() -> None:
    """Their default clips x0 to [-1, 1]; data need not lie there, so ours never does."""
    theirs = diffusers.DDIMScheduler(**LINEAR)
    theirs.set_timesteps(10)
    on = path("ddpm-linear")
    index = int(theirs.timesteps[-1])
    level = on.at((index + 1) / 1000)
    x0 = torch.full((1, 2), 2.5)
    x = level.mix(x0, torch.ones(1, 2))
    assert float(theirs.step(torch.ones(1, 2), index, x).prev_sample.max()) < 1.01
    move = DDIM().step(lambda *_: mixture().estimate(x, level)._replace(x0=x0), x, level, on.at(0.0), None, source())
    assert torch.allclose(move.x, x0)


def test_difference_start() -> None:
    """Their leading runs start at sqrt(s^2 + 1) z in x/alpha, their linspace runs at s z; ours always at s z.

    The rule here is ``levels[0].sigma * z``: pure noise of the level's own size.
    """
    linspace, leading = (
        diffusers.EulerDiscreteScheduler(**LINEAR, timestep_spacing=s) for s in ("linspace", "leading")
    )
    for theirs in (linspace, leading):
        theirs.set_timesteps(10)
    top = Linspace().levels(path("ddpm-linear"), 10)[0]
    assert math.isclose(float(linspace.init_noise_sigma), float(top.sigma_hat), rel_tol=1e-4)
    first = float(leading.sigmas[0])
    assert math.isclose(float(leading.init_noise_sigma), math.sqrt(first**2 + 1), rel_tol=1e-6)
