"""The bench of time to quality: both notations say the same noise, both sides learn and resume, goals are found."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn

from tiny import UNET
from training import small
from unnoise.core.autoencoder import Posterior
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.level import NoiseLevel
from unnoise.core.mixture import Mixture
from unnoise.core.noise import normal
from unnoise.core.objective import Batch, Draws
from unnoise.core.path import Path as NoisePath
from unnoise.data.store import open_set
from unnoise.engine.engine import Engine
from unnoise.engine.model import Model
from unnoise.errors import UnnoiseError
from unnoise.networks.unet import UNet
from unnoise.paths.ddpm_linear import DDPMLinear
from unnoise.paths.flow import Flow
from unnoise.paths.scaled_linear import ScaledLinear
from unnoise.predictions.flow import FlowVelocity
from unnoise.study.measure import noise_error
from unnoise.training.settings import TrainSettings
from unnoise.weights.model import load_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "bench"))

import time_to_quality
from published import PATH, Published, PublishedTraining, as_denoiser, drawn
from reached import Line, final_table, pictures, reached, verdicts
from sides import Ours, Theirs, planned
from time_to_quality import LOG_SNRS, Told, agreed, our_training

# both notations


def world() -> Mixture:
    """Three lumps in four dimensions."""
    g = torch.Generator().manual_seed(1)
    axes = torch.randn(3, 4, 4, generator=g, dtype=torch.float64)
    return Mixture(torch.tensor([1.0, 2.0, 1.0]), torch.randn(3, 4, generator=g).double(), 0.1 * axes @ axes.mT)


class Exact(nn.Module):
    """What a perfect network of a notation says of x and the noise label, as such a network is told them."""

    def __init__(self, level: Callable[[float], NoiseLevel], a: float, b: float) -> None:
        super().__init__()
        self.level, self.a, self.b = level, a, b
        self.nothing = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor, noise_label: Tensor, cond: Any, edits: Any = (), read: Any = ()) -> Any:
        estimate = world().estimate(x, self.level(float(noise_label[0])))
        return self.a * estimate.x0 + self.b * estimate.eps, {}


def ours() -> Denoiser:
    return Denoiser(Exact(lambda label: Flow().at(label / 1000), -1, 1), Flow(), FlowVelocity(), "time")


def theirs(path: NoisePath | None = None) -> Denoiser:
    told = path or ScaledLinear()
    return as_denoiser(Exact(lambda label: told.at((label + 1) / 1000), 0, 1))


class Numbers:
    """Pictures that are numbers, encoded as so many draws from the world: all that ``noise_error`` asks for."""

    captions = [["a"]] * 200

    def __init__(self) -> None:
        self.nothing, self.latents = nn.Parameter(torch.zeros(())), world().sample(200, 3)

    def pictures(self, items: Sequence[int]) -> Tensor:
        return torch.tensor(items, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 1, 1)

    def encode(self, x: Tensor) -> Posterior:
        places = ((x[:, 0, 0, 0] + 1) * 127.5).round().long()
        mean = self.latents[places].reshape(len(x), 4, 1, 1)
        return Posterior(mean, torch.zeros_like(mean))


def errors(denoiser: Denoiser) -> list[float]:
    numbers: Any = Numbers()
    say_nothing: Any = lambda ids: Condition(tokens=torch.zeros(len(ids), 1, 1))  # noqa: E731
    tokenizer = MagicMock(side_effect=lambda captions: torch.zeros(len(captions), 1), cut=str)
    found = noise_error(denoiser, say_nothing, numbers, tokenizer, numbers, range(200), LOG_SNRS)
    return [found[level] for level in LOG_SNRS]


def test_both_notations_say_the_noise_of_the_exact_mixture() -> None:
    """At equal log-SNR a velocity and a noise prediction are one estimate; a path that is told wrongly shows."""
    x0, truth = world().sample(200, 3), []
    for number, log_snr in enumerate(LOG_SNRS):
        sigma = 1 / math.sqrt(1 + math.exp(2 * log_snr))
        level = NoiseLevel(math.sqrt(1 - sigma**2), sigma)
        eps = normal((200, 4, 1, 1), "measure", 0, number).reshape(200, 4)
        truth.append(float((world().estimate(level.mix(x0, eps), level).eps - eps).square().mean()))
    assert len(LOG_SNRS) == 10
    assert errors(ours()) == pytest.approx(truth, rel=1e-4), "labels are float32"
    assert errors(theirs()) == pytest.approx(truth, rel=1e-4)
    assert errors(theirs(DDPMLinear())) != pytest.approx(truth, rel=1e-2), "the control"


def test_labels_are_the_timesteps_that_diffusers_trains() -> None:
    """The level at which ``Denoiser`` says label k is the one that add_noise makes of timestep k; all are inside."""
    from diffusers import DDPMScheduler

    scheduler: Any = DDPMScheduler(**PATH)  # type: ignore[no-untyped-call]
    x0, eps = torch.randn(2, 1, 4, 1, 1, dtype=torch.float64)
    for k in (0, 1, 500, 999):
        level = ScaledLinear().at((k + 1) / 1000)
        assert torch.allclose(scheduler.add_noise(x0, eps, torch.tensor([k])), level.mix(x0, eps), atol=1e-6)
        assert float(ScaledLinear().time_of(level)) * 1000 - 1 == pytest.approx(k, abs=1e-6)
    low, high = (float(ScaledLinear().at(t).log_snr) for t in (1.0, 1 / 1000))
    assert low < min(LOG_SNRS) < max(LOG_SNRS) < high, "theirs is asked for nothing that it was not trained on"


def test_theirs_draws_what_a_perfect_network_knows() -> None:
    """From one point of data every run ends in it; a network that is told a later timestep misses it."""
    point = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64).reshape(1, 4, 1, 1)

    def miss(late: int) -> float:
        def says(x: Tensor, t: Tensor) -> Tensor:
            level = ScaledLinear().at((float(t) + 1 + late) / 1000)
            return (x - level.alpha * point) / level.sigma

        return float((drawn(says, normal((3, 4, 1, 1), "start").float(), 10) - point).abs().max())

    assert miss(0) < 1e-3
    assert miss(50) > 1e-2, "the control"


# theirs


class Few:
    """Eight latents, each with a prompt of its own."""

    identity, weights = "few", torch.ones(8)

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(2)
        self.latents, self.tokens = torch.randn(8, 4, 16, 16, generator=g), torch.randn(9, 4, 32, generator=g)
        self.seen: list[int] = []

    def batch(self, items: Tensor, draws: Draws) -> Batch:
        self.seen += items.tolist()
        whole = Condition(self.tokens, torch.ones(9, 4, dtype=torch.bool), self.tokens.mean(1))
        return {"x0": self.latents[items], "condition": whole.rows(items), "empty": whole.rows(slice(8, 9))}


def peer(rate: float = 1e-3, data: Few | None = None, **changes: Any) -> PublishedTraining:
    torch.manual_seed(0)
    chosen = Published(rate, train_batch_size=8, **changes)
    return PublishedTraining(UNet(replace(UNET, channels=8)), data or Few(), chosen)


@pytest.mark.slow
def test_theirs_learns_by_its_rate() -> None:
    """The loss of a zero network is 1; sixty steps take off more than a tenth, and without a rate nothing."""
    for rate, sinks in ((3e-3, True), (0.0, False)):
        training = peer(rate)
        losses = [training.step() for _ in range(60)]
        assert losses[0] == pytest.approx(1.0, abs=0.05)
        assert (sum(losses[-10:]) / 10 < 0.9) == sinks


def test_every_latent_is_seen_once_an_epoch() -> None:
    data = Few()
    training = peer(data=data)
    training.step(), training.step()
    assert sorted(data.seen[:8]) == sorted(data.seen[8:]) == list(range(8))
    assert data.seen[:8] != data.seen[8:]


def test_the_published_settings_reach_the_optimiser() -> None:
    training = peer(1e-4)
    group = training.optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"], group["eps"]) == (1e-4, (0.9, 0.999), 1e-2, 1e-8)
    training.step()
    assert training.lr_scheduler.get_last_lr() == [1e-4], "diffusers' constant schedule knows no warm-up"
    norm = torch.stack([p.grad.norm() for p in training.unet.parameters() if p.grad is not None] or [torch.zeros(())])
    assert float(norm.norm()) == 0, "gradients are cleared"


def test_theirs_averages_and_resumes(tmp_path: Path) -> None:
    """A run that is loaded goes on to the same bits; its averaged weights are neither the last nor the first."""
    whole, torn = peer(), peer()
    for _ in range(4):
        whole.step()
    torn.step(), torn.step()
    names = [torn.save(tmp_path)]
    again = peer()
    again.load(tmp_path, names[0])
    again.step(), again.step()
    for one, other in ((whole.unet, again.unet), (whole.averaged(), again.averaged())):
        mine, theirs_ = one.state_dict(), other.state_dict()
        assert all(torch.equal(mine[name], theirs_[name]) for name in mine)
    averages, last = whole.averaged().network.unet.state_dict(), whole.unet.state_dict()  # type: ignore[union-attr]
    assert not torch.equal(averages["enter.weight"], last["enter.weight"])
    assert not torch.equal(averages["enter.weight"], peer().unet.state_dict()["enter.weight"])
    for _ in range(3):
        again.step()
        names.append(again.save(tmp_path))
    assert [path.name for path in sorted(tmp_path.iterdir())] == names[-2:], "the last, and one before it"


# both


def test_both_sides_begin_alike_and_draw(tmp_path: Path) -> None:
    """The same first weights; models that can be measured and that draw latents; ours resumes with its own length."""
    small.picture_set(tmp_path / "pictures"), small.encoders(tmp_path / "encoders")
    training = small.build("emoji-flow", tmp_path)
    mine = Ours(training, 100.0, tmp_path / "ours", "float32")
    parts: dict[str, Any] = load_model(tmp_path / "encoders", ["autoencoder", "text"])[0]
    pictures, denoiser = open_set(tmp_path / "pictures"), training.objective.denoiser
    given = Engine(Model({**parts, "denoiser": denoiser}, {"text": small.words()}))  # type: ignore[dict-item]
    first = denoiser.network.enter.weight.clone()  # type: ignore[union-attr,operator]
    other = Theirs(training, pictures, given, 1e-3, "float32, channels first")
    assert torch.equal(other.training.unet.enter.weight, first)
    assert math.isfinite(other.step(0.0))
    assert other.steps == 1
    spent = 0.0
    for _ in range(3):
        assert math.isfinite(mine.step(spent))
        spent += 5.0
    assert mine.trainer.settings.samples == round(mine.trainer.samples / 3 * 2 * 100 / 10), "at the pace of two steps"
    mine.save(tmp_path / "ours")
    mine.trainer.settings = replace(mine.trainer.settings, samples=777)
    name = mine.save(tmp_path / "ours")  # the same step, planned otherwise
    again = Ours(small.build("emoji-flow", tmp_path), 100.0, tmp_path / "ours", "float32")
    again.load(tmp_path / "ours", name)
    assert (again.steps, again.trainer.settings.samples) == (3, 777)
    for side in (mine, other):
        latents = side.model().draw(["red square", "a bar"], [1, 2])
        assert latents.shape == (2, 4, 16, 16)
        assert latents.isfinite().all()


def test_a_length_follows_the_pace_until_the_cool_down() -> None:
    settings = TrainSettings(samples=480_000, batch=64, cooldown=0.4)
    assert planned(settings, 0, 0.0, 100.0) is settings
    assert planned(settings, 640, 10.0, 100.0).samples == 6400
    assert planned(settings, 3200, 59.0, 100.0).samples == round(3200 / 0.59)
    assert planned(settings, 3200, 60.0, 100.0) is settings, "from here on it is kept"


# what came out


def test_a_goal_is_reached_between_measurements() -> None:
    seconds, values = [10.0, 20.0, 40.0], [0.9, 0.5, 0.3]
    assert reached(seconds, values, 0.7) == pytest.approx(15.0)
    assert reached(seconds, values, 0.3) == 40.0
    assert reached(seconds, values, 0.95) == 10.0
    assert reached(seconds, values, 0.2) == math.inf
    assert reached(seconds, [0.5, 0.9, 0.1], 0.5) == 10.0, "the first time, whatever comes after"


def test_each_figure_is_held_against_the_best_of_theirs() -> None:
    def line(name: str, seconds: list[float], errors: list[list[float]]) -> Line:
        return Line(name, "float32", 1, seconds, errors, {}, None)

    lines = [
        line("diffusers 1", [50.0, 100.0], [[0.9, 0.9], [0.4, 0.8]]),
        line("diffusers 2", [50.0, 100.0], [[0.9, 0.9], [0.8, 0.5]]),
    ]
    half, whole = line("half", [50.0], [[0.2, 0.6]]), line("unnoise", [50.0, 100.0], [[0.6, 0.7], [0.2, 0.6]])
    first, second, mean = found = verdicts(lines, half, whole, (0.0, 1.0))
    assert (first.best, first.after, first.half) == (0.4, pytest.approx(0.75), pytest.approx(0.5))
    assert (second.best, second.after, second.half) == (0.5, math.inf, pytest.approx(1.2))
    assert (mean.figure, mean.best, mean.values) == ("mean", pytest.approx(0.6), pytest.approx([0.6, 0.65, 0.4, 0.4]))
    table = final_table([*lines, half, whole], found)
    assert "| log-SNR 0 | 0.4000 | 0.8000 | 0.2000 | 0.2000 | 0.75 | 0.500 |" in table
    assert table.endswith("worst row: log-SNR 1, not reached, half / best 1.200")


def test_a_sheet_has_a_row_for_each_run() -> None:
    """What was asked for, then what each run drew; of few pictures all, of many ten that are spread over them."""
    for count, columns in ((4, [0, 1, 2, 3]), (20, [*range(0, 20, 2)])):
        real = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
        run = Line("a", "float32", 1, [1.0], [[1.0]], {}, real + 100)
        assert pictures([run], real)[:, 0, 0, 0].tolist() == columns + [100 + each for each in columns]


def test_ours_takes_the_recipes_options_and_refuses_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small.picture_set(tmp_path / "pictures")
    small.encoders(tmp_path / "encoders")
    typed = " ".join(small.options("emoji-flow", tmp_path, warmup=7))
    told = Told(data, None, 1.0, (1e-3,), 2, 1, 2, tmp_path / "kept", None, typed)
    assert our_training(told).settings.warmup == 7
    assert our_training(replace(told, ours=typed.replace("warmup 7", "warmup 8"))).settings.warmup == 8
    with pytest.raises(UnnoiseError, match="--ours changes the network, which both sides share"):
        agreed(told)  # a tiny one, where theirs would have the default
    plain = our_training(told)
    monkeypatch.setattr(time_to_quality, "shipped", lambda told: plain)
    agreed(told)
    agreed(told)
    with pytest.raises(UnnoiseError, match="--ours changes the batch"):
        agreed(replace(told, ours=f"{typed} --train.batch 6"))
    with pytest.raises(UnnoiseError, match="--ours changes the drop"):
        agreed(replace(told, ours=f"{typed} --drop 0.5"))
    with pytest.raises(UnnoiseError, match=r"a bench with another ours; name another --keep"):
        agreed(replace(told, ours=f"{typed} --text-rate 0"))
    with pytest.raises(UnnoiseError, match="--nonsense"):
        agreed(replace(told, ours="--nonsense 1", keep=tmp_path / "other"))
    assert not (tmp_path / "other").exists()
