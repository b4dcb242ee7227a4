"""Learned variance: the bound is the divergence that it says, its best fraction the true variance; solvers use it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

import tiny
from laws.world import Gaussian, draw, finish, path, red, variances
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.estimate import Estimate
from unnoise.core.evaluate import batched
from unnoise.core.guidance import bind
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.objective import Draws
from unnoise.core.path import Path
from unnoise.core.registry import find
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG
from unnoise.networks.unet import UNet, UNetConfig
from unnoise.objectives.denoising import DenoisingObjective
from unnoise.objectives.times import LogitNormal
from unnoise.objectives.variational_bound import VariationalBound
from unnoise.paths.table import Table
from unnoise.predictions.noise import Noise
from unnoise.solvers.ddpm import DDPM

LINEAR = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}


class Few(Path):
    """A table of eight levels, as DDPM's with steps that are 125 times as long."""

    num_levels = 8

    def __init__(self) -> None:
        self.betas = torch.linspace(0.0125, 0.4, 8, dtype=torch.float64)
        self.table = Table(self.betas)
        self.t_min = 1 / 8

    def at(self, t: Any) -> NoiseLevel:
        return self.table.at(t)

    def time_of(self, level: NoiseLevel) -> Any:
        return self.table.time_of(level)


# the bound


def test_each_term_is_a_divergence_of_two_gaussians() -> None:
    """Recomputed from betas as Ho et al. write them, by torch's own divergence; the last step by its density."""
    few, shape = Few(), (8, 3, 4)
    beta, abar = few.betas, torch.cumprod(1 - few.betas, 0)
    before = torch.cat([torch.ones(1).double(), abar[:-1]])
    small = beta * (1 - before) / (1 - abar)
    x, x0, x0_hat, f = (draw(*shape, seed=seed) for seed in range(4))

    def column(v: Tensor) -> Tensor:
        return v[:, None, None]

    def mean(picture: Tensor) -> Tensor:  # equation 7 of Ho et al.
        scales = beta * before.sqrt() / (1 - abar), (1 - before) * (1 - beta).sqrt() / (1 - abar)
        return column(scales[0]) * picture + column(scales[1]) * x

    floor = torch.cat([small[1:2], small[1:]])  # as the authors' clipped logarithm
    std = torch.exp(0.5 * (f * column(beta.log()) + (1 - f) * column(floor.log())))
    told, true = Normal(mean(x0_hat), std), Normal(mean(x0), column(floor.sqrt()))
    wanted = kl_divergence(true, told)
    wanted[0] = -told.log_prob(x0)[0]
    t = torch.arange(1, 9, dtype=torch.float64) / 8
    found = VariationalBound()(few, t, x0, x0_hat, f)
    assert torch.allclose(found, 8 * wanted.mean((1, 2)) / math.log(2), rtol=1e-10)


class Knows(nn.Module):
    """The best network for channels that are N(0, variance) on the table of eight, with a free v for each level."""

    def __init__(self, channel_variances: Tensor) -> None:
        super().__init__()
        self.config = UNetConfig(learned_variance=True)
        self.register_buffer("variance", channel_variances)
        self.v = nn.Parameter(torch.zeros(8, len(channel_variances), dtype=torch.float64))
        self.gain = nn.Parameter(torch.ones(8, len(channel_variances), dtype=torch.float64))
        self.path = Few()

    def forward(self, x: Tensor, label: Tensor, cond: Any = None, edits: Any = (), read: Any = ()) -> Any:
        at = ((label.double() + 1) / 1000 * 8).round().long() - 1
        level = self.path.at((at + 1).double() / 8)
        alpha, sigma = (torch.as_tensor(v)[:, None] for v in level)
        eps = self.gain[at] * sigma / (alpha**2 * self.variance + sigma**2)  # (B, C)
        shape = (*x.shape[:2], *[1] * (x.ndim - 2))
        return torch.cat([eps.reshape(shape) * x, self.v[at].reshape(shape).expand_as(x)], 1), {}


CHANNELS = torch.tensor([0.05, 0.4, 1.0, 3.0], dtype=torch.float64)
BATCH, CELLS = 1024, 64


def best_fraction(variance: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
    """Where the variance of x' given x, which for Gaussian data is that of any Gaussian pair, lies between the two."""
    a, s, b, r = (torch.as_tensor(v, dtype=torch.float64) for v in (*here, *there))
    step = a / b  # x = step x' + noise
    noise, prior = s**2 - (step * r) ** 2, b**2 * variance + r**2
    true = 1 / (1 / prior + step**2 / noise)
    small, large = r**2 * noise / s**2, noise
    return (true / small).log() / (large / small).log()


def converged(bound: VariationalBound) -> tuple[Tensor, Tensor, Tensor]:
    """After training on Gaussian channels: (7, C) fractions, what is best, and ln beta/beta~; of steps with noise."""
    network = Knows(CHANNELS)
    denoiser = Denoiser(network, network.path, Noise(), "index")
    objective = DenoisingObjective(denoiser, bound=bound)
    g = torch.Generator().manual_seed(1)
    x0 = CHANNELS.sqrt()[:, None] * torch.randn(BATCH, 4, CELLS, generator=g, dtype=torch.float64)
    optimiser = torch.optim.LBFGS([network.v], max_iter=40, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        total = objective.loss({"x0": x0}, Draws(0, 0, BATCH, slice(None))).total
        total.backward()
        return total

    optimiser.step(closure)  # type: ignore[arg-type]
    levels = [network.path.at(i / 8) for i in range(1, 9)]
    steps = list(zip(levels[1:], levels, strict=False))
    wanted = torch.stack([best_fraction(CHANNELS, here, there) for here, there in steps])
    room = torch.tensor([2 * math.log(here.sigma / there.sigma) for here, there in steps])[:, None]
    return (network.v.detach()[1:] + 1) / 2, wanted, room


def fraction_converges_to_the_truth(bound: VariationalBound) -> None:
    """Its variance is the true one to 6 %, four times what so many samples leave open."""
    found, wanted, room = converged(bound)
    assert ((found - wanted) * room).abs().max() < 0.06
    assert ((wanted[:, :2] > 0.02) & (wanted[:, :2] < 0.98)).all(), "narrow data lie between beta~ and beta"
    assert torch.allclose(wanted[:, 2], torch.ones(7).double()), "data of variance 1 have the forward step's, beta"
    assert (wanted[:, 3] > 1).all(), "wider data more than that, which is not cut off"


class Swapped(VariationalBound):
    """beta where beta~ belongs and the other way round."""

    def __call__(self, path: Path, t: Tensor, x0: Tensor, x0_hat: Tensor, fraction: Tensor) -> Tensor:
        return super().__call__(path, t, x0, x0_hat, 1 - fraction)


class WithoutTheMean(VariationalBound):
    """The divergence of the variances alone, as if the predicted picture were the true one."""

    def __call__(self, path: Path, t: Tensor, x0: Tensor, x0_hat: Tensor, fraction: Tensor) -> Tensor:
        return super().__call__(path, t, x0, x0, fraction)


def test_fraction_converges_to_the_optimal_covariance() -> None:
    fraction_converges_to_the_truth(VariationalBound())


@pytest.mark.parametrize("kind", [Swapped, WithoutTheMean])
@pytest.mark.slow
def test_a_wrong_bound_is_noticed(kind: Callable[[], VariationalBound]) -> None:
    red(fraction_converges_to_the_truth, kind())


def test_the_bound_leaves_the_mean_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of the mean have the same gradient whatever the bound's weight; unless somebody forgets to detach it."""

    def gradient(weight: float) -> Tensor:
        network = Knows(CHANNELS)
        denoiser = Denoiser(network, network.path, Noise(), "index")
        objective = DenoisingObjective(denoiser, bound=VariationalBound(weight))
        objective.loss({"x0": draw(8, 4, 3)}, Draws(0, 0, 8, slice(None))).total.backward()
        assert network.gain.grad is not None
        assert network.v.grad is not None
        assert network.v.grad.any()
        return network.gain.grad

    assert torch.equal(gradient(0.001), gradient(1.0))
    monkeypatch.setattr(Tensor, "detach", lambda x: x)
    assert not torch.allclose(gradient(0.001), gradient(1.0))


# sampling


class Best(Gaussian):
    """The exact denoiser of Gaussian data, with the exact fraction for each step."""

    def estimate(self, x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
        assert there is not None
        f = best_fraction(torch.tensor(self.variance, dtype=torch.float64), here, there)
        return super().estimate(x, here, there)._replace(fraction=f.expand_as(x))


class Straight(DDPM):
    """Between the variances themselves, not their logarithms."""

    def _fraction(self, e: Estimate) -> Any:
        f = e.fraction
        assert f is not None
        return torch.log1p(f * (self.apart - 1)) / math.log(self.apart)

    def step(self, denoise: Any, x: Tensor, here: Any, there: Any, state: Any, noise: Any) -> Any:
        self.apart = (here.sigma / there.sigma) ** 2
        return super().step(denoise, x, here, there, state, noise)


def variance_is_exact(solver: DDPM) -> None:
    """Of Gaussian data after every step, however few there are: where the small variance is off by a third."""
    on = path("ddpm-linear")
    for times in ((1.0, 0.3), (1.0, 0.6, 0.3), [1 - 0.07 * i for i in range(11)]):
        levels = [on.at(t) for t in times]
        first, *wanted = (0.4 * float(v.alpha) ** 2 + float(v.sigma) ** 2 for v in levels)
        for found, true in zip(variances(Best().estimate, solver, levels, first), wanted, strict=True):
            assert math.isclose(found, true, rel_tol=1e-12)


def test_the_optimal_covariance_makes_any_number_of_steps_exact() -> None:
    variance_is_exact(DDPM("learned"))
    variance_is_exact(DDPM())
    for wrong in (DDPM("small"), DDPM("large"), Straight("learned")):
        red(variance_is_exact, wrong)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_learned_range_of_diffusers(spacing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network with twice the channels, its noise injected into both. The last step draws none."""
    theirs = diffusers.DDPMScheduler(
        **LINEAR, clip_sample=False, variance_type="learned_range", timestep_spacing=spacing
    )
    theirs.set_timesteps(20)
    times = [(int(i) + 1) / 1000 for i in theirs.timesteps] + [0.0]
    levels = [path("ddpm-linear").at(t) for t in times]
    x = draw(2, 3, 4, 4)
    y = x.float()
    source, solver = NoiseSource([1, 2], (3, 4, 4), torch.float64), DDPM("learned")
    for i, (here, there) in enumerate(zip(levels, levels[1:], strict=False)):
        v = torch.tanh(draw(2, 3, 4, 4, seed=i))

        def denoise(x: Tensor, here: NoiseLevel, there: NoiseLevel, v: Tensor = v) -> Estimate:
            return Gaussian().estimate(x, here, there)._replace(fraction=(v + 1) / 2)

        said = Gaussian().estimate(y.double(), here).eps
        z = source.at(i).between(here, there).float()
        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, z=z, **k: z)
        y = theirs.step(torch.cat([said, v], 1).float(), int(theirs.timesteps[i]), y).prev_sample
        x = solver.step(denoise, x, here, there, None, source.at(i)).x
        if there.sigma > 0:
            assert (y - x).abs().max() < 1e-5 * (1 + x.abs().max()), i


def test_guidance_keeps_the_conditional_fraction() -> None:
    """As in DiT: guidance is of the mean, and the variance that of the prompt's own call, whatever the scale."""
    denoiser = unet(learned_variance=True)
    conds: dict[str, Condition | None] = {
        name: Condition(draw(2, 5, 32, seed=seed).float(), None, draw(2, 32, seed=seed).float())
        for seed, name in enumerate(("cond", "uncond"), 1)
    }
    x, here = draw(2, 4, 16, 16).float(), path("ddpm-linear").at(0.5)
    with torch.no_grad():
        own = {name: denoiser(x, here, cond=cond).fraction for name, cond in conds.items()}
        for scale, name in ((3.0, "cond"), (1.0, "cond"), (0.0, "uncond")):
            found = bind(CFG(scale), batched(denoiser), conds)(x, here).fraction
            assert found is not None
            assert found.shape == x.shape
            assert torch.allclose(found, own[name], atol=1e-5)
        assert not torch.allclose(own["cond"], own["uncond"], atol=1e-5)


def unet(**switches: bool) -> Denoiser:
    config = {**vars(tiny.UNET), **switches}
    torch.manual_seed(0)
    return tiny.lively(Denoiser(UNet(UNetConfig(**config)), find("paths", "ddpm-linear")(), Noise(), "index"))


def test_auto_is_what_the_network_has() -> None:
    """Small where nothing was learnt, to the last bit; "learned" is then refused."""
    levels = [path("ddpm-linear").at(t) for t in (0.9, 0.5, 0.1)]
    source = NoiseSource([0, 1], (3,), torch.float64)
    ends = [finish(Gaussian().estimate, DDPM(v), levels, draw(2, 3), source) for v in ("auto", "small")]
    assert torch.equal(*ends)
    with pytest.raises(UnnoiseError, match="has not learnt a variance"):
        finish(Gaussian().estimate, DDPM("learned"), levels, draw(2, 3), source)
    with pytest.raises(UnnoiseError, match="no variance is called 'wide'"):
        DDPM("wide")  # type: ignore[arg-type]


# what makes no sense


def test_what_makes_no_sense_is_refused() -> None:
    bound, plain, doubled = VariationalBound(), unet(), unet(learned_variance=True)
    with pytest.raises(UnnoiseError, match="this network says none"):
        DenoisingObjective(plain, bound=bound)
    with pytest.raises(UnnoiseError, match="times are not even"):
        DenoisingObjective(doubled, LogitNormal(), bound=bound)
    on_flow = Denoiser(doubled.network, find("paths", "flow")(), find("predictions", "flow")())
    with pytest.raises(UnnoiseError, match="the path flow is none"):
        DenoisingObjective(on_flow)
    for weight in (0.0, -1.0, math.nan):
        with pytest.raises(UnnoiseError, match="above 0"):
            VariationalBound(weight)
