"""The controls: a network with a fault breaks the law that is there for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from networks import test_networks as laws
from unnoise.networks import layers, unet


def no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = layers.Attention.forward

    def blind(self: Any, x: Tensor, inside: Any, site: str, context: Any = None, mask: Any = None) -> Tensor:
        return forward(self, x, inside, site, context, None)

    monkeypatch.setattr(layers.Attention, "forward", blind)


def rows_that_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = unet.Residual.forward
    monkeypatch.setattr(unet.Residual, "forward", lambda self, x, e: forward(self, x + 1e-3 * x.mean(0), e))


def a_loud_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unet.nn.init, "zeros_", lambda tensor: torch.nn.init.constant_(tensor, 1e-3))


def maps_that_cannot_be_edited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers.Inside, "wants", lambda self, site: site in self.read)


def reads_that_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    call = layers.Inside.__call__

    def loud(self: Any, site: str, value: Tensor) -> Tensor:
        return call(self, site, value) * (1 + 0.01 * len(self.read))

    monkeypatch.setattr(layers.Inside, "__call__", loud)


def a_deaf_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unet, "sinusoid", lambda label, width: torch.zeros(len(label), width))


def a_break_in_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    sinusoid = unet.sinusoid

    def breaking(label: Tensor, width: int) -> Tensor:
        torch._dynamo.graph_break()
        return sinusoid(label, width)

    monkeypatch.setattr(unet, "sinusoid", breaking)


FAULTS: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[str], None]]] = [
    (no_mask, laws.hears_everything),
    (no_mask, laws.does_not_see_padding),
    (no_mask, laws.reads_change_nothing),
    (rows_that_mix, laws.answers_rows_alone),
    (a_loud_start, laws.begins_at_zero),
    (maps_that_cannot_be_edited, laws.edits_act),
    (reads_that_touch, laws.reads_change_nothing),
    (a_deaf_level, laws.hears_everything),
    (a_break_in_the_graph, laws.traces_whole),
]


@pytest.mark.parametrize(("fault", "law"), FAULTS, ids=lambda f: f.__name__)
def test_a_fault_breaks_its_law(
    fault: Callable[[pytest.MonkeyPatch], None], law: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    torch.compiler.reset()
    with pytest.raises((AssertionError, torch._dynamo.exc.Unsupported)):
        law("unet")
    monkeypatch.undo()
    torch.compiler.reset()
