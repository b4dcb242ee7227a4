"""The denoising objective: one line of mathematics, dropped prompts, losses by level."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import tiny
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.objective import Draws, Loss
from unnoise.core.registry import find, index
from unnoise.objectives.denoising import DenoisingObjective, stratified
from unnoise.objectives.weightings import MinSNR
from unnoise.training.report import LEVELS, by_level

BATCH = 6


class Zero(nn.Module):
    """A network that remembers its call and says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.calls: list[tuple[Tensor, Tensor, Condition | None]] = []

    def forward(self, x: Tensor, label: Tensor, cond: Condition | None = None, edits=(), read=()):  # type: ignore[no-untyped-def]
        self.calls.append((x.detach(), label, cond))
        return torch.zeros_like(x) + self.weight, {}


def x0() -> Tensor:
    return torch.randn(BATCH, 2, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("path", index("paths"))
@pytest.mark.parametrize("prediction", index("predictions"))
def test_the_loss_is_the_squared_error_of_the_output(path: str, prediction: str) -> None:
    """Recomputed by hand from what the network was shown: x = alpha x0 + sigma eps, target a x0 + b eps."""
    network = Zero()
    denoiser = Denoiser(network, find("paths", path)(), find("predictions", prediction)())
    objective = DenoisingObjective(denoiser, weighting=MinSNR())
    draws = Draws(3, 5, BATCH, slice(None))
    with torch.no_grad():
        loss = objective.loss({"x0": x0()}, draws)
    ((shown, _, cond),) = network.calls
    assert cond is None
    t = objective.times.times(stratified(draws), denoiser.path)
    level = denoiser.path.at(t)
    eps = draws.normal("eps", 2, 4, 4)
    alpha, sigma = (torch.as_tensor(v).float().reshape(-1, 1, 1, 1) for v in level)
    scale = torch.as_tensor(denoiser.prediction.scale_in(level)).float().reshape(-1, *[1] * 3)
    assert torch.allclose(shown, scale * (alpha * x0() + sigma * eps), rtol=1e-5, atol=1e-5)
    a, b = (torch.as_tensor(v).float().reshape(-1, *[1] * 3) for v in denoiser.prediction.target(level))
    per_sample = ((a * x0() + b * eps) ** 2).mean((1, 2, 3))
    assert loss.per_sample is not None
    assert torch.allclose(loss.per_sample, per_sample, rtol=1e-4)
    weight = objective.weighting.weight(level, denoiser.prediction).float()
    assert float(loss.total) == pytest.approx(float((weight * per_sample).mean()), rel=1e-4)
    assert loss.log_snr is not None
    assert torch.allclose(loss.log_snr, torch.as_tensor(level.log_snr).float())
    assert not loss.per_sample.requires_grad


@torch.no_grad()
def test_a_perfect_network_has_no_loss() -> None:
    class Perfect(Zero):
        def forward(self, x: Tensor, label: Tensor, cond=None, edits=(), read=()):  # type: ignore[no-untyped-def]
            t = (label / 1000).reshape(-1, 1, 1, 1)
            eps = (x - (1 - t) * x0()) / t
            return eps - x0() + self.weight, {}

    denoiser = Denoiser(Perfect(), find("paths", "flow")(), find("predictions", "flow")())
    assert float(DenoisingObjective(denoiser).loss({"x0": x0()}, Draws(0, 0, BATCH, slice(None))).total) < 1e-4


def test_times_cover_all_levels_in_every_batch() -> None:
    for step in range(5):
        draws = Draws(1, step, 64, slice(None))
        u = stratified(draws)
        assert sorted((u * 64).long().tolist()) == list(range(64)), "one in each of as many equal parts"
        parts = [stratified(Draws(1, step, 64, slice(s, s + 16))) for s in range(0, 64, 16)]
        assert torch.equal(torch.cat(parts), u), "however the batch is split"
    first = torch.stack([stratified(Draws(1, step, 4, slice(0, 1))) for step in range(4000)])
    assert abs(float(first.mean()) - 0.5) < 0.02, "and uniform for each sample"


# prompts


def conditioned(text: nn.Module | None, drop: float, text_rate: float = 0.2) -> DenoisingObjective:
    parts = tiny.components()
    denoiser = parts["denoiser"].requires_grad_(True)
    return DenoisingObjective(denoiser, text=text, drop=drop, text_rate=text_rate)  # type: ignore[arg-type]


def prompted(*prompts: str) -> dict[str, Tensor]:
    words = tiny.tokenizer()
    latents = torch.randn(len(prompts), 4, 16, 16, generator=torch.Generator().manual_seed(1))
    return {"x0": latents, "token_ids": words(prompts), "empty_ids": words([""])[0]}


PROMPTS = ("red apple", "blue heart", "two red hearts", "a dog and a cat")


def test_a_dropped_prompt_is_the_empty_one() -> None:
    """Bit for bit the loss of a batch in which the empty prompt was written; token ids and cached conditions alike."""
    text = tiny.components()["text"]
    batch, empty = prompted(*PROMPTS), prompted("", "", "", "")
    draws = Draws(0, 0, 4, slice(None))
    with torch.no_grad():
        dropped = conditioned(text, drop=1.0).loss(batch, draws).total
        assert torch.equal(dropped, conditioned(text, drop=0.0).loss(empty, draws).total)
        assert not torch.equal(dropped, conditioned(text, drop=0.0).loss(batch, draws).total)
        cached = {"x0": batch["x0"], "condition": text(batch["token_ids"]), "empty": text(batch["empty_ids"][None])}
        for drop, wanted in ((1.0, dropped), (0.0, conditioned(text, drop=0.0).loss(batch, draws).total)):
            assert torch.allclose(conditioned(None, drop).loss(cached, draws).total, wanted, rtol=1e-5)


def test_some_are_dropped_and_the_others_are_not() -> None:
    text = tiny.components()["text"]
    objective, batch = conditioned(text, drop=0.5), prompted(*PROMPTS)
    mask = torch.tensor([True, False, True, False])
    found = objective.condition(batch, mask)
    assert found is not None
    with torch.no_grad():
        given, empty = text(batch["token_ids"]), text(batch["empty_ids"][None])
    for name in ("tokens", "token_mask", "pooled"):
        rows = getattr(found, name)
        assert torch.allclose(rows[1].float(), getattr(given, name)[1].float(), atol=1e-5)
        assert torch.allclose(rows[0].float(), getattr(empty, name)[0].float(), atol=1e-5)


def test_the_share_that_is_dropped() -> None:
    dropped = torch.cat([Draws(0, step, 64, slice(None)).uniform("drop") < 0.1 for step in range(400)])
    assert abs(float(dropped.float().mean()) - 0.1) < 0.006


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_the_text_tower_learns_only_if_asked(rate: float) -> None:
    text = tiny.components()["text"].requires_grad_(True)
    objective = conditioned(text, drop=0.1, text_rate=rate)
    roles = objective.roles()
    assert roles["text"].trained == (rate > 0)
    assert roles["text"].rate == rate
    assert objective.phases()[0].trains == (("denoiser", "text") if rate else ("denoiser",))
    objective.loss(prompted(*PROMPTS), Draws(0, 0, 4, slice(None))).total.backward()
    assert any(p.grad is not None for p in text.parameters()) == (rate > 0)


def test_no_prompt_at_all() -> None:
    assert conditioned(None, 0.1).condition({"x0": x0()}, torch.ones(BATCH, dtype=torch.bool)) is None


# losses by level


def test_losses_by_level() -> None:
    log_snr = torch.tensor([-5.0, -2.0, -1.0, 0.0, 0.5, 3.0])
    per_sample = torch.tensor([1.0, 2.0, 4.0, 10.0, 20.0, 7.0])
    found = by_level(Loss(torch.zeros(()), per_sample, log_snr))
    assert found == {"-inf..-2": 1.0, "-2..-0.7": 3.0, "-0.7..0.7": 15.0, "2..inf": 7.0}, "empty bins are left out"
    assert by_level(Loss(torch.zeros(()))) == {}
    assert math.isinf(LEVELS[0])
    assert math.isinf(LEVELS[-1])
