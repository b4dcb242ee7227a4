"""EDM2's uncertainty: on the mixture it learns the logarithm of each level's own loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from laws.denoisers import Perfect, Watched
from laws.world import mixture, path, red
from unnoise.core.denoiser import Denoiser
from unnoise.core.level import NoiseLevel
from unnoise.core.objective import Draws
from unnoise.core.path import Path
from unnoise.errors import UnnoiseError
from unnoise.objectives.denoising import DenoisingObjective
from unnoise.objectives.times import LogNormalSigma
from unnoise.objectives.uncertainty import Uncertainty
from unnoise.objectives.weightings import EDMWeight, Uniform
from unnoise.predictions.data import Data
from unnoise.training.optimiser import wants_muon

BATCH, STEPS = 512, 400


class Told(Watched):
    """A path whose networks know the level of each row that training asks for."""

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return self.inner.t_min


def trained(kind: type[Uncertainty], weighting: Any) -> Uncertainty:
    """After training on the mixture beside the perfect network, which nothing is left to teach."""
    watched: Path = Told(path("ve"))
    denoiser = Denoiser(Perfect(watched, Data()), watched, Data(), "log-sigma")  # type: ignore[arg-type]
    uncertainty = kind(64)
    objective = DenoisingObjective(denoiser, LogNormalSigma(-0.5, 1.2), weighting, uncertainty=uncertainty)
    optimiser = torch.optim.Adam(uncertainty.parameters(), lr=0.1)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for step in range(STEPS):
        optimiser.zero_grad()
        objective.loss({"x0": mixture().sample(BATCH, step)}, Draws(0, step, BATCH, slice(None))).total.backward()
        optimiser.step()
        rate.step()
    return uncertainty


def learns_each_level_s_loss(kind: type[Uncertainty], weighting: Any) -> None:
    """u = ln E[weight |x0_hat - x0|^2] at levels within two standard deviations of those that are trained."""
    uncertainty = trained(kind, weighting)
    for sigma in (0.1, 0.3, 0.6, 1.5, 4.0):
        level = NoiseLevel(torch.ones(4096).double(), torch.full((4096,), sigma).double())
        g = torch.Generator().manual_seed(7)
        x = level.mix(mixture().sample(4096, 9), torch.randn(4096, 2, generator=g, dtype=torch.float64))
        floor = mixture().loss_floor(x, level).mean()
        wanted = math.log(float(weighting.weight(level, Data())[0] * floor))
        found = float(uncertainty(torch.as_tensor(level.log_snr)[:1]).detach())
        assert abs(found - wanted) < 0.12, (sigma, found, wanted)


class Deaf(Uncertainty):
    """One number for all levels."""

    def forward(self, log_snr: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(log_snr))


@pytest.mark.parametrize("weighting", [Uniform(), EDMWeight(0.5)])
def test_it_is_the_logarithm_of_the_loss(weighting: Any) -> None:
    learns_each_level_s_loss(Uncertainty, weighting)


@pytest.mark.slow
def test_one_that_does_not_hear_the_level_is_noticed() -> None:
    red(learns_each_level_s_loss, Deaf, Uniform())


class Constant(nn.Module):
    """A network whose error is the data itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, label: Tensor, cond: Any = None, edits: Any = (), read: Any = ()) -> Any:
        return self.weight * x, {}


def test_the_loss_is_as_published() -> None:
    """weight |error|^2 e^-u + u, a mean over rows; u = 0 at the start, so that a training begins as without it."""
    denoiser, draws = Denoiser(Constant(), path("ve"), Data(), "log-sigma"), Draws(0, 0, 16, slice(None))
    batch = {"x0": torch.randn(16, 2, 3, generator=torch.Generator().manual_seed(0))}
    plain, weighed = DenoisingObjective(denoiser), DenoisingObjective(denoiser, uncertainty=Uncertainty(8))
    assert torch.equal(plain.loss(batch, draws).total, weighed.loss(batch, draws).total)
    with torch.no_grad():
        assert weighed.uncertainty is not None
        weighed.uncertainty.weight.copy_(torch.linspace(-2, 2, 8))
        loss, error = weighed.loss(batch, draws), plain.loss(batch, draws).per_sample
        assert error is not None
        assert loss.log_snr is not None
        u = weighed.uncertainty(loss.log_snr)
        assert torch.allclose(loss.total, (error * torch.exp(-u) + u).mean(), rtol=1e-6)
        assert not torch.allclose(loss.total, (error * torch.exp(-u)).mean(), rtol=1e-3)
        assert torch.equal(loss.per_sample, error), "what is charted is the plain error"  # type: ignore[arg-type]


def test_its_part_in_a_training() -> None:
    """A role of its own, trained, saved whole and not averaged; finite at pure noise; no hidden matrix."""
    uncertainty = Uncertainty(8)
    objective = DenoisingObjective(Denoiser(Constant(), path("flow"), Data()), uncertainty=uncertainty)
    role = objective.roles()["uncertainty"]
    assert (role.trained, role.averaged) == (True, False)
    assert "uncertainty" in objective.phases()[0].trains
    assert set(uncertainty.state_dict()) == {"rates", "phases", "weight", "bias"}
    assert not any(wants_muon(n, p, uncertainty) for n, p in uncertainty.named_parameters())
    with torch.no_grad():
        uncertainty.weight.fill_(1.0)
        ends = uncertainty(torch.tensor([-math.inf, -20.0, 20.0, math.inf]))
    assert torch.isfinite(ends).all()
    assert ends[0] == ends[1]
    with pytest.raises(UnnoiseError, match="uncertainty features"):
        Uncertainty(-1)


def test_levels_that_differ_a_little_differ_a_little() -> None:
    """It is smooth in the level, and tells levels apart that a training visits."""
    uncertainty = Uncertainty(128)
    with torch.no_grad():
        uncertainty.weight.copy_(torch.randn(128, generator=torch.Generator().manual_seed(0)))
        u = uncertainty(torch.linspace(-8, 8, 2001))
    assert u.diff().abs().max() < 0.1
    assert u.std() > 0.5
