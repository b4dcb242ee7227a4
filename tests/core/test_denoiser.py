"""Denoiser and guidance's ``batched``: labels, ends, and how calls are joined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from laws.denoisers import perfect
from laws.world import draw, mixture, path
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.edit import Edit, apply_edits
from unnoise.core.evaluate import Question, answer, batched
from unnoise.core.guidance import OWN, Ask
from unnoise.core.level import NoiseLevel
from unnoise.errors import UnnoiseError
from unnoise.predictions.data import Data
from unnoise.predictions.edm import EDM
from unnoise.predictions.flow import FlowVelocity
from unnoise.predictions.noise import Noise


class Recorder(nn.Module):
    """A network that writes down how it was called, and answers its input times its class."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []

    def forward(
        self,
        x: Tensor,
        label: Tensor,
        cond: Condition | None,
        edits: Sequence[Edit] = (),
        read: Sequence[str] = (),
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls.append({"x": x, "label": label, "cond": cond, "edits": edits})
        scale = torch.ones(len(x)) if cond is None or cond.class_id is None else cond.class_id.float()
        value = apply_edits(edits, "out", x * scale.reshape(-1, *[1] * (x.ndim - 1)).to(x))
        return value, dict.fromkeys(read, x)


@dataclass(frozen=True)
class Add(Edit):
    amount: float = 1.0

    def __call__(self, site: str, value: Tensor) -> Tensor:
        return value + self.amount


def label_of(kind: str, on: str, t: float) -> float:
    network = Recorder()
    Denoiser(network, path(on), FlowVelocity(), kind)(draw(2, 3), path(on).at(t))
    label: Tensor = network.calls[0]["label"]
    assert label.shape == (2,)
    assert label.dtype == torch.float32
    return float(label[0])


def test_networks_are_told_what_they_were_trained_with() -> None:
    assert math.isclose(label_of("index", "ddpm-linear", 1.0), 999, abs_tol=1e-3)
    assert math.isclose(label_of("index", "ddpm-linear", 1e-3), 0, abs_tol=1e-3)
    assert math.isclose(label_of("time", "flow", 0.25), 250, rel_tol=1e-6)
    assert math.isclose(label_of("log-sigma", "ve", 0.5), math.log(40) / 4, rel_tol=1e-6)


def test_input_is_scaled_as_the_prediction_says() -> None:
    network = Recorder()
    level = NoiseLevel(1.0, 2.0)
    x = draw(4, 3)
    Denoiser(network, path("ve"), EDM(0.5), "log-sigma")(x, level)
    assert torch.allclose(network.calls[0]["x"], x / math.sqrt(4.25), rtol=1e-12)


def test_edm_s_input_and_target_have_unit_variance() -> None:
    """Table 1's aim, on data of standard deviation 0.7, at any level of any path."""
    x0, eps, edm = 0.7 * draw(100000, 1, seed=1), draw(100000, 1, seed=2), EDM(0.7)
    for level in (NoiseLevel(1.0, 0.02), NoiseLevel(1.0, 30.0), NoiseLevel(0.4, 0.6), NoiseLevel(0.0, 1.0)):
        target, x = edm.encode(x0, eps, level), level.mix(x0, eps) * edm.scale_in(level)
        assert abs(float(target.std()) - 1) < 0.01
        assert abs(float(x.std()) - 1) < 0.01


def test_edm_is_its_skip_and_output_scales() -> None:
    """D = c_skip x + c_out F with Karras et al.'s c_skip = sd^2/(s^2 + sd^2) and c_out = s sd/sqrt(s^2 + sd^2)."""
    x, output, sd = draw(4, 3, seed=1), draw(4, 3, seed=2), 0.5
    for s in (0.02, 0.5, 10.0):
        x0, _ = EDM(sd).decode(output, x, NoiseLevel(1.0, s))
        wanted = sd**2 / (s**2 + sd**2) * x + s * sd / math.sqrt(s**2 + sd**2) * output
        assert torch.allclose(x0, wanted, rtol=0, atol=1e-12)


def test_at_clean_data_no_network_is_asked() -> None:
    network = Recorder()
    e = Denoiser(network, path("flow"), Data())(2 * torch.ones(1, 3), NoiseLevel(2.0, 0.0))
    assert not network.calls
    assert torch.equal(e.x0, torch.ones(1, 3))
    assert not e.eps.any()


def test_noise_prediction_at_pure_noise_is_refused() -> None:
    with pytest.raises(UnnoiseError, match="cannot be inverted at alpha = 0"):
        Denoiser(Recorder(), path("flow"), Noise())(draw(1, 3), NoiseLevel(0.0, 1.0))


def test_a_level_beyond_the_path_is_answered_at_its_end() -> None:
    """Pure noise, for a network whose path ends at sigma 80: what it would say of 80 times the state there."""
    x = draw(4, 2)
    found = perfect(path("ve"), EDM())(x, NoiseLevel(0.0, 1.0))
    assert torch.allclose(found.x0, mixture().estimate(80 * x, NoiseLevel(1.0, 80.0)).x0, rtol=0, atol=1e-10)


def test_features_come_back() -> None:
    e = Denoiser(Recorder(), path("flow"), FlowVelocity())(draw(1, 3), NoiseLevel(0.5, 0.5), read=("mid",))
    assert e.parts is not None
    assert "mid" in e.parts


def test_batched_is_the_same_as_one_by_one() -> None:
    """Asks that share a network and edits are one call; others are their own; rows come back where they belong."""
    network, weak = Recorder(), Recorder()
    denoiser = Denoiser(network, path("flow"), FlowVelocity())
    weaker = Denoiser(weak, path("flow"), FlowVelocity())
    x, here = draw(2, 3), NoiseLevel(0.5, 0.5)
    conds = {n: Condition(class_id=torch.tensor([n, n])) for n in (1, 2, 3)}
    edit = (Add(("out",)),)
    asks = {
        "cond": Ask(conds[1]),
        "uncond": Ask(conds[2]),
        "edited": Ask(conds[3], edit),
        "weak": Ask(conds[1], (), "weaker"),
        "bare": Ask(None),
    }
    networks = {OWN: denoiser, "weaker": weaker}
    parts = batched(networks)(x, here, None, asks)
    assert [len(call["x"]) for call in network.calls] == [4, 2, 2]
    assert len(weak.calls) == 1
    for name, ask in asks.items():
        alone = networks[ask.network](x, here, cond=ask.cond, edits=ask.edits)
        assert torch.equal(parts[name].x0, alone.x0), name
        assert torch.equal(parts[name].eps, alone.eps), name


def test_runs_at_levels_of_their_own_share_a_call() -> None:
    """In one call a network: the first asks of all runs, then the second; rows of another shape are a call apart."""
    network = Recorder()
    denoiser = Denoiser(network, path("flow"), FlowVelocity())
    conds = {n: Condition(class_id=torch.tensor([n])) for n in (1, 2)}
    asks = {"cond": Ask(conds[1]), "uncond": Ask(conds[2])}
    one = Question(draw(1, 3), NoiseLevel(0.5, 0.5), None, asks)
    two = Question(draw(1, 3, seed=1), NoiseLevel(0.2, 0.8), None, {"uncond": asks["uncond"]})
    other = Question(draw(1, 5), NoiseLevel(0.5, 0.5), None, asks)
    clean = Question(draw(1, 3), NoiseLevel(1.0, 0.0), None, asks)
    found = answer({OWN: denoiser}, [one, two, other, clean])
    assert [tuple(call["x"].shape) for call in network.calls] == [(3, 3), (2, 5)]
    assert [call["cond"].class_id.tolist() for call in network.calls] == [[1, 2, 2], [1, 2]]
    for question, parts in zip((one, two, other, clean), found, strict=True):
        assert list(parts) == list(question.asks)
        for name, ask in question.asks.items():
            alone = denoiser(question.x, question.here, cond=ask.cond)
            assert torch.equal(parts[name].x0, alone.x0)
            assert torch.equal(parts[name].eps, alone.eps)


def test_an_ask_without_a_condition_does_not_hide_another_s() -> None:
    network = Recorder()
    denoiser = Denoiser(network, path("flow"), FlowVelocity())
    asks = {"uncond": Ask(None), "cond": Ask(Condition(class_id=torch.tensor([5, 5])))}
    parts = batched(denoiser)(draw(2, 3), NoiseLevel(0.5, 0.5), None, asks)
    assert not torch.equal(parts["uncond"].x0, parts["cond"].x0)
