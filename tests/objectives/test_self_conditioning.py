"""Self-conditioning: nothing shown is the plain network, training shows its own answer, a run what it said before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from laws.world import draw, path, red
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.evaluate import batched
from unnoise.core.guidance import Ask, Bound, bind
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.objective import Draws
from unnoise.core.registry import find
from unnoise.core.sample import sample
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG
from unnoise.guidances.interval import Interval
from unnoise.networks.unet import UNet, UNetConfig
from unnoise.objectives.denoising import DenoisingObjective, stratified
from unnoise.objectives.self_conditioning import SelfConditioning
from unnoise.predictions.flow import FlowVelocity
from unnoise.predictions.noise import Noise
from unnoise.solvers.euler import Euler
from unnoise.solvers.heun import Heun

LEVELS = [path("flow").at(t) for t in (0.9, 0.7, 0.5, 0.3, 0.1)]


def made(on: str = "flow", told: str = "flow", **switches: bool) -> Denoiser:
    torch.manual_seed(0)
    network = UNet(UNetConfig(**{**vars(tiny.UNET), **switches}))
    return Denoiser(network, find("paths", on)(), find("predictions", told)())


def lively(**switches: bool) -> Denoiser:
    return tiny.lively(made(**switches))  # type: ignore[arg-type]


def conditions(rows: int = 2) -> dict[str, Condition | None]:
    return {
        name: Condition(draw(rows, 5, 32, seed=seed).float(), None, draw(rows, 32, seed=seed).float())
        for seed, name in enumerate(("cond", "uncond"), 1)
    }


def state(rows: int = 2, seed: int = 0) -> Tensor:
    return draw(rows, 4, 16, 16, seed=seed).float()


# the network


@torch.no_grad()
def test_nothing_shown_is_the_plain_network() -> None:
    """It begins with the same weights and one layer more; shown nothing it gives the same bits, and shown zeros."""
    plain, reads = made(), made(self_conditioning=True)
    assert set(reads.state_dict()) - set(plain.state_dict()) == {"network.previous.weight"}
    noise = torch.Generator().manual_seed(3)
    for (name, p), q in zip(plain.named_parameters(), reads.parameters(), strict=False):
        assert torch.equal(p, q), name
        p.add_(0.1 * torch.randn(p.shape, generator=noise))
        q.copy_(p)
    x, t, level, cond = state(), 0.5, NoiseLevel(0.5, 0.5), conditions()["cond"]
    wanted = plain.output(x, t, level, cond)[0]
    assert torch.equal(reads.output(x, t, level, cond)[0], wanted)
    shown_zeros = reads.output(x, t, level, cond, previous=torch.zeros_like(x))[0]
    assert torch.allclose(shown_zeros, wanted, rtol=0, atol=1e-6 * float(wanted.abs().max()))
    shown = reads.output(x, t, level, cond, previous=state(seed=1))[0]
    assert (shown - wanted).abs().max() > 1e-3 * wanted.abs().max(), "the control: what is shown is seen"


@torch.no_grad()
def test_a_plain_network_is_shown_nothing() -> None:
    denoiser, x = lively(), state()
    said = denoiser(x, LEVELS[0], cond=conditions()["cond"])
    again = denoiser(x, LEVELS[0], cond=conditions()["cond"], previous=said)
    assert torch.equal(said.x0, again.x0)


# training


class Echo(nn.Module):
    """Says ``gain`` times the state, and half of what it is shown on top; remembers what that was."""

    def __init__(self) -> None:
        super().__init__()
        self.config = UNetConfig(self_conditioning=True)
        self.gain = nn.Parameter(torch.tensor(0.3))
        self.shown: list[Tensor | None] = []

    def forward(self, x: Tensor, label: Tensor, cond: Any = None, edits: Any = (), read: Any = ()) -> Any:
        x, previous = x[:, :2], x[:, 2:]
        self.shown.append(previous if previous.shape[1] else None)
        return self.gain * x + (0.5 * previous if previous.shape[1] else 0), {}


def shown_in_training(feedback: SelfConditioning, told: Any, steps: int = 1) -> tuple[Echo, list[Any]]:
    network = Echo()
    objective = DenoisingObjective(Denoiser(network, path("cosine"), told), feedback=feedback)
    losses = [
        objective.loss({"x0": draw(4, 2, 3).float()}, Draws(0, step, 4, slice(None))).total for step in range(steps)
    ]
    return network, losses


def gradient_is_of_the_second_call_alone(feedback: SelfConditioning) -> None:
    """d loss / d gain as if what is shown were a constant."""
    network, (loss,) = shown_in_training(feedback, Noise())
    loss.backward()
    first, second = network.shown
    assert first is None
    assert second is not None
    x = second / 0.3  # the first call said 0.3 x, and noise is fed back as it is
    eps = Draws(0, 0, 4, slice(None)).normal("eps", 2, 3)
    wanted = (2 * (0.3 * x + 0.5 * second - eps) * x).mean()
    assert network.gain.grad is not None
    assert torch.allclose(network.gain.grad, wanted, rtol=1e-4)


class Attached(SelfConditioning):
    """The gradient runs through both calls."""

    def previous(self, *args: Any) -> Tensor | None:
        no_grad, torch.no_grad = torch.no_grad, torch.enable_grad  # type: ignore[misc,assignment]
        try:
            return super().previous(*args)
        finally:
            torch.no_grad = no_grad  # type: ignore[misc]


def test_the_first_call_is_detached() -> None:
    gradient_is_of_the_second_call_alone(SelfConditioning(1.0))
    red(gradient_is_of_the_second_call_alone, Attached(1.0))


def test_the_picture_is_fed_back_and_of_noise_the_noise() -> None:
    """Of a velocity the picture that it means; noise as it is, since its picture has no bounds near pure noise."""
    for told in ("v", "data", "flow"):
        prediction = find("predictions", told)()
        network, _ = shown_in_training(SelfConditioning(1.0), prediction)
        objective = DenoisingObjective(Denoiser(Echo(), path("cosine"), prediction))
        draws = Draws(0, 0, 4, slice(None))
        level = path("cosine").at(objective.times.times(stratified(draws), path("cosine")))
        x = level.mix(draw(4, 2, 3).float(), draws.normal("eps", 2, 3))
        picture, _ = prediction.decode(0.3 * x, x, level)
        shown = network.shown[1]
        assert shown is not None
        assert torch.allclose(shown, picture, rtol=1e-4, atol=1e-5), told
    network, _ = shown_in_training(SelfConditioning(1.0), Noise())
    assert network.shown[1] is not None
    assert network.shown[1].abs().max() < 3, "at the cosine path's end alpha is 5e-5"


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_share_of_steps(share: float) -> None:
    """One coin a step: two calls in that share of the steps, one in the others; the same for each part of a batch."""
    network, _ = shown_in_training(SelfConditioning(share), Noise(), steps=600)
    twice = sum(shown is not None for shown in network.shown)
    assert len(network.shown) == 600 + twice
    assert abs(twice / 600 - share) < 0.07
    feedback, denoiser = SelfConditioning(share), Denoiser(Echo(), path("cosine"), Noise())
    x, level = draw(2, 2, 3).float(), path("cosine").at(torch.tensor([0.5, 0.5]))
    for step in range(20):
        halves = [
            feedback.previous(denoiser, x, torch.tensor([0.5, 0.5]), level, None, Draws(0, step, 4, slice(s, s + 2)))
            for s in (0, 2)
        ]
        assert (halves[0] is None) == (halves[1] is None)


# sampling


def remembered(bound: Bound, solver: Any = None, levels: Any = None) -> list[Any]:
    levels = levels or LEVELS
    noise = NoiseSource([1, 2], (4, 16, 16), torch.float32)
    with torch.no_grad():
        return list(sample(bound, solver or Euler(), levels, state(), noise))


@pytest.mark.parametrize("solver", [Euler(), Heun()], ids=["euler", "heun"])
def test_a_step_is_shown_what_was_said_in_the_one_before(solver: Any) -> None:
    """Each call its own: with the prompt and without. All calls of a step see the same; the first step sees nothing."""
    denoiser = lively(self_conditioning=True)
    seen: list[dict[str, Any]] = []

    def evaluate(x: Tensor, here: NoiseLevel, there: NoiseLevel | None, asks: dict[str, Ask]) -> Any:
        seen.append({name: ask.previous for name, ask in asks.items()})
        return batched(denoiser)(x, here, there, asks)

    steps = remembered(bind(CFG(2.0), evaluate, conditions()), solver)
    calls = len(seen) // len(steps)
    assert calls == solver.evaluations
    for number, step in enumerate(steps):
        for call in seen[number * calls : (number + 1) * calls]:
            for name in ("cond", "uncond"):
                wanted = steps[number - 1].estimate.parts[name] if number else None
                assert call[name] is wanted
        own = denoiser(step.x, step.here, cond=conditions()["cond"], previous=seen[number * calls]["cond"])
        assert torch.allclose(step.estimate.parts["cond"].x0, own.x0, atol=1e-5)


def test_what_is_shown_matters_to_the_run() -> None:
    """The control: without its memory the same network draws something else."""
    denoiser = lively(self_conditioning=True)
    bound = bind(CFG(2.0), batched(denoiser), conditions())
    forgetful = lambda x, here, there=None: bound(x, here, there)  # noqa: E731 (a run whose steps know of no other)
    ends = [remembered(each)[-1].run.x for each in (bound, forgetful)]  # type: ignore[arg-type]
    assert (ends[0] - ends[1]).abs().max() > 1e-3


def restarts_anywhere(forget: Callable[[Any], Any] = lambda run: run) -> None:
    bound = bind(CFG(2.0), batched(lively(self_conditioning=True)), conditions())
    steps = remembered(bound)
    for step in steps[:-1]:
        with torch.no_grad():
            noise = NoiseSource([1, 2], (4, 16, 16), torch.float32)
            again = list(sample(bound, Euler(), LEVELS, state(), noise, forget(step.run)))
        assert torch.equal(again[-1].run.x, steps[-1].run.x)


def test_a_run_can_be_restarted_from_every_step() -> None:
    restarts_anywhere()
    red(restarts_anywhere, lambda run: run._replace(memory=None))


def test_a_call_that_was_not_made_before_is_shown_nothing() -> None:
    """Guidance that begins later has no empty prompt's picture yet: zeros, beside the other call's picture."""
    denoiser, conds = lively(self_conditioning=True), conditions()
    bound = bind(Interval(CFG(2.0), high=1.0), batched(denoiser), conds)
    steps = remembered(bound)
    began = next(step for step in steps if "uncond" in step.estimate.parts)
    assert began.index > 0
    with torch.no_grad():
        alone = denoiser(began.x, began.here, cond=conds["uncond"])
    assert torch.allclose(began.estimate.parts["uncond"].x0, alone.x0, atol=1e-5)


# what makes no sense


def test_what_makes_no_sense_is_refused() -> None:
    for share in (0.0, -0.5, 1.5):
        with pytest.raises(UnnoiseError, match="feedback share"):
            SelfConditioning(share)
    with pytest.raises(UnnoiseError, match="does not read what it said"):
        DenoisingObjective(Denoiser(nn.Identity(), path("flow"), FlowVelocity()), feedback=SelfConditioning())
