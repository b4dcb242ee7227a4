"""Requests that are drawn side by side: each is what it is alone, and what befalls one befalls no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.engine.engine import Engine, finished, sound
from unnoise.engine.events import Admitted, Cancelled, Event, Failed, Finished, Stepped
from unnoise.engine.load import load_engine
from unnoise.engine.request import Request
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG

# A row's bits depend on the rows beside it by the order in which products are summed: 2^-24 of a sum of a thousand
# terms, through some ten layers a call and eight calls, each of which guidance may triple.
BOUND = 2e-4


def eight(engine: Engine) -> list[Request]:
    """Eight requests that differ in all that a request may differ in."""
    return [
        engine.request("red apple", seed=1, steps=4, solver="euler", cfg_scale=2),
        engine.request("blue heart", seed=2, steps=7, solver="heun", cfg_scale=4, negative="red"),
        engine.request("a dog and a cat", seed=3, size="160x96", solver="dpmpp-2m", spacing="karras"),
        engine.request("two red hearts", seed=4, size="64x64", steps=5, guidance="interval(rescale, high=8)"),
        engine.request("red apple", seed=5, steps=6, solver="euler-a", guidance="plain"),
        engine.request("blue (heart:1.4)", seed=6, weights=True, guidance="nag(plain)", negative="dog", steps=3),
        engine.request(
            "cat", seed=7, solver="dpmpp-sde", noise="brownian", steps=5, guidance="pag(cfg, sites=[mid.*])"
        ),
        engine.request("dog", seed=8, size="96x160", solver="unipc", guidance="apg", noise="torch", steps=8),
    ]


def latents(events: Iterator[Event]) -> list[Tensor]:
    return [each.latents for each in finished(events) if each.latents is not None]


def far(a: Tensor, b: Tensor) -> float:
    """The largest difference, in the spread of the latents."""
    return float((a - b).abs().max() / b.std())


def test_eight_of_all_kinds_are_what_each_is_alone(engine: Engine) -> None:
    requests = eight(engine)
    together = latents(engine.draw(requests))
    for request, found in zip(requests, together, strict=True):
        (alone,) = latents(engine.draw([request]))
        assert found.shape[2:] == tuple(side // 8 for side in reversed(request.size or ()))
        assert far(found, alone) < BOUND, request
        (other,) = latents(engine.draw([replace(request, seed=request.seed + 50)]))
        assert far(found, other) > 100 * BOUND, "the control: another seed is another picture"


@pytest.mark.slow
def test_eight_of_all_kinds_with_the_default_model() -> None:
    engine = load_engine(None, "cpu", "float32")
    requests = [request for request in eight(engine) if request.noise != "torch"]
    for request, found in zip(requests, latents(engine.draw(requests)), strict=True):
        assert far(found, latents(engine.draw([request]))[0]) < BOUND, request


def test_the_order_alone_decides_the_bits(engine: Engine) -> None:
    first, again = (latents(engine.draw(eight(engine))) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_they_share_calls_of_the_network(engine: Engine, calls: list[int]) -> None:
    requests = [engine.request("red apple", seed=seed, steps=steps) for seed, steps in ((1, 4), (2, 6), (3, 5))]
    list(engine.draw(requests))
    assert calls == [6, 6, 6, 6, 4, 2], "two rows each, while they live"
    calls.clear()
    list(engine.draw(requests, strict=True))
    assert calls == [2] * 15


def test_edits_of_equal_value_share_calls_too(engine: Engine, calls: list[int]) -> None:
    requests = [engine.request("red apple", seed=seed, steps=2, guidance="nag(plain)") for seed in (1, 2)]
    list(engine.draw(requests))
    assert calls == [2, 2]


class Broken(Guidance):
    """A run that comes to NaN at its second step."""

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return CFG(2.0).asks(conds, here)

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        estimate, _ = CFG(2.0).combine(parts, x, here, None)
        return (estimate if memory is None else Estimate(estimate.x0 * float("nan"), estimate.eps)), "once"


def test_one_that_is_not_finite_fails_alone(engine: Engine) -> None:
    requests = eight(engine)
    requests[2] = replace(requests[2], guidance=Broken())
    events = list(engine.draw(requests))
    (failed,) = [each for each in events if isinstance(each, Failed)]
    assert failed.number == 2
    assert "step 2 of 4" in failed.error.what
    assert "not finite" in failed.error.what
    done = {each.number: each for each in events if isinstance(each, Finished)}
    assert sorted(done) == [0, 1, 3, 4, 5, 6, 7]
    alone = latents(engine.draw([requests[1]]))[0]
    assert done[1].latents is not None
    assert far(done[1].latents, alone) < BOUND
    with pytest.raises(UnnoiseError, match="not finite"):
        finished(engine.draw(requests))


class Elsewhere(CFG):
    """A guidance that asks a network which is not there."""

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        return {name: ask._replace(network="weak") for name, ask in super().asks(conds, here).items()}


def test_a_question_that_cannot_be_answered_fails_alone(engine: Engine) -> None:
    requests = [engine.request("red apple", steps=2), engine.request("red apple", steps=2, guidance=Elsewhere())]
    events = list(engine.draw(requests))
    assert [each.number for each in events if isinstance(each, Finished)] == [0]
    (failed,) = [each for each in events if isinstance(each, Failed)]
    assert "asks a network called 'weak'" in failed.error.what


def test_a_cancel_ends_within_one_step(engine: Engine, calls: list[int]) -> None:
    live = engine.live()
    for seed in (1, 2):
        live.add(engine.request("red apple", seed=seed, steps=50))
    live.tick()
    live.cancel(0)
    before = len(calls)
    (failed,) = [each for each in live.tick() if isinstance(each, Failed)]
    assert isinstance(failed.error, Cancelled)
    assert failed.number == 0
    assert calls[before:] == [2], "no call with a row of what was cancelled"
    assert calls[0] == 4
    live.add(engine.request("blue heart", steps=1))
    live.cancel(1)
    live.cancel(2)
    assert [each.number for each in live.tick() if isinstance(each, Failed)] == [2, 1]
    assert not live


def test_requests_join_between_steps(engine: Engine, calls: list[int]) -> None:
    live = engine.live()
    live.add(engine.request("red apple", seed=1, steps=3))
    events = live.tick()
    live.add(engine.request("blue heart", seed=2, steps=2))
    while live:
        events += live.tick()
    assert [(each.number, each.index) for each in events if isinstance(each, Stepped)] == [
        (0, 0), (0, 1), (1, 0), (0, 2), (1, 1),
    ]  # fmt: skip
    assert calls == [2, 4, 4]
    assert [each.shared for each in events if isinstance(each, Finished)] == [True, True]


def test_leaving_the_loop_ends_all_runs(engine: Engine, calls: list[int]) -> None:
    for event in engine.draw([engine.request("red apple", seed=seed, steps=50) for seed in (1, 2)]):
        if isinstance(event, Stepped):
            break
    assert calls == [4]
    assert not torch.is_inference_mode_enabled()


def test_events_tell_one_story(engine: Engine) -> None:
    seen: dict[int, list[type]] = {}
    for event in engine.draw(eight(engine)):
        seen.setdefault(event.number, []).append(type(event))
    for number, request in enumerate(eight(engine)):
        assert seen[number] == [Admitted, *[Stepped] * request.steps, Finished]


def test_rooms_are_filled_in_order(engine: Engine) -> None:
    small = Engine(engine.model, room=2)
    requests = [engine.request("red apple", seed=seed, steps=steps) for seed, steps in ((1, 3), (2, 1), (3, 1))]
    events = [(type(each).__name__, each.number) for each in small.draw(requests)]
    assert events.index(("Finished", 1)) < events.index(("Admitted", 2)) < events.index(("Finished", 0))


def test_rows_of_one_batch_are_counted(engine: Engine) -> None:
    requests = [engine.request("red apple", seed=5 + row, steps=1) for row in range(3)]
    assert [(each.row, each.batch, each.shared) for each in finished(engine.draw(requests))] == [
        (0, 3, False), (1, 3, False), (2, 3, False),
    ]  # fmt: skip
    assert [(e.row, e.batch, e.shared) for e in finished(engine.draw(requests, strict=True))] == [(0, 1, False)] * 3
    mixed = [*requests[:2], engine.request("blue heart", steps=1)]
    assert all((each.row, each.batch, each.shared) == (0, 1, True) for each in finished(engine.draw(mixed)))


# reads


def test_reads_come_back_with_the_step_from_the_same_call(engine: Engine, calls: list[int]) -> None:
    request = engine.request("red apple", seed=1, steps=3, read=("mid.0.cross", "mid.0"))
    steps = [each for each in sound(engine.draw([request])) if isinstance(each, Stepped)]
    assert calls == [2, 2, 2], "no call but those of the run"
    for step in steps:
        assert step.read.keys() == {"cond", "uncond"}
        maps = step.read["cond"]["mid.0.cross"]
        assert maps.shape[0] == 1
        assert torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-4)
    for a, b in pairwise(steps):
        assert not torch.equal(a.read["cond"]["mid.0"], b.read["cond"]["mid.0"])
    direct = engine.model.denoiser(
        steps[1].step.x, steps[1].level, cond=engine.model.encode(["red apple"]), read=("mid.0",)
    )
    assert direct.parts is not None
    assert torch.allclose(direct.parts["mid.0"], steps[1].read["cond"]["mid.0"], atol=1e-4)
    with pytest.raises(UnnoiseError, match=r"nowhere"):
        engine.draw([engine.request("red apple", read=("nowhere",))])


def test_reading_changes_the_picture_by_rounding_alone(engine: Engine) -> None:
    plain = engine.request("red apple", seed=1, steps=4)
    both = latents(engine.draw([plain, replace(plain, read=("mid.0.cross",))]))
    assert far(both[1], both[0]) < BOUND


@pytest.fixture
def calls(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of the network has."""
    rows: list[int] = []
    call = Denoiser.call

    def counted(self: Denoiser, scaled: Tensor, *args: Any, **more: Any) -> Any:
        rows.append(len(scaled))
        return call(self, scaled, *args, **more)

    monkeypatch.setattr(Denoiser, "call", counted)
    return rows
