"""The controls: a network with a fault breaks the law that is there for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from networks import test_networks as laws
from unnoise.errors import UnnoiseError
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

    def loud(self: Any, site: str, value: Tensor, look: Any = None) -> Tensor:
        return call(self, site, value, look) * (1 + 0.01 * len(self.read))

    monkeypatch.setattr(layers.Inside, "__call__", loud)


def a_deaf_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "sinusoid", lambda label, width: torch.zeros(len(label), width))


def a_break_in_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    sinusoid = layers.sinusoid

    def breaking(label: Tensor, width: int) -> Tensor:
        torch._dynamo.graph_break()
        return sinusoid(label, width)

    monkeypatch.setattr(layers, "sinusoid", breaking)


def a_site_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    sites = unet.UNet.sites
    monkeypatch.setattr(unet.UNet, "sites", lambda self: (*sites(self), "up.9"))


def a_site_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    sites = unet.UNet.sites
    monkeypatch.setattr(unet.UNet, "sites", lambda self: sites(self)[:-1])


def any_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "check_sites", lambda *args: None)


def one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unet.UNet, "positions", lambda self, rows, columns: self.position)


def no_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Circular convolutions beside positions that are all the same: a shifted picture is a shifted answer."""
    pad = torch.nn.functional.pad
    conv = torch.nn.Conv2d._conv_forward

    def circular(self: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        p = self.padding[0]
        if not p:
            return conv(self, x, weight, bias)
        return torch.nn.functional.conv2d(pad(x, (p, p, p, p), mode="circular"), weight, bias)

    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", circular)
    monkeypatch.setattr(unet.UNet, "positions", lambda self, rows, columns: self.position[:1])


def no_check_of_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers.Network, "check_size", lambda self, *cells: None)


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
    (no_mask, laws.joins_prompts_of_other_lengths),
    (a_site_too_many, laws.lists_its_sites),
    (a_site_too_few, laws.lists_its_sites),
    (any_site, laws.lists_its_sites),
    (one_size, laws.takes_any_size),
    (no_places, laws.takes_any_size),
    (no_check_of_size, laws.takes_any_size),
]


@pytest.mark.parametrize(("fault", "law"), FAULTS, ids=lambda f: f.__name__)
def test_a_fault_breaks_its_law(
    fault: Callable[[pytest.MonkeyPatch], None], law: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    torch.compiler.reset()
    # a wrong size meets torch's own error, a site that is missing the check of sites
    with pytest.raises((AssertionError, RuntimeError, UnnoiseError, pytest.fail.Exception)):
        law("unet")
    monkeypatch.undo()
    torch.compiler.reset()
