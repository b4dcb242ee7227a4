"""The benchmark's two sides are the same network, its rounds are free of drift, and training leaves padding out."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks.test_networks import call, network
from tiny import UNET, lively
from unnoise.networks.dit import DiT, DiTConfig
from unnoise.networks.unet import UNet, UNetConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "bench"))

from harness import agree, paired, work
from same_shape import DiffusersDiT, DiffusersUNet

SMALL: dict[str, tuple[Any, Any]] = {
    "unet": (lambda: UNet(replace(UNET, depth=2, blocks=2)), DiffusersUNet),
    "dit": (lambda: DiT(DiTConfig(size=8, width=32, depth=3, heads=2, text_width=24, embedding=40)), DiffusersDiT),
}


def both(name: str) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Ours, theirs, and what they say to the same."""
    torch.manual_seed(0)
    make, peer = SMALL[name]
    ours = lively(make())
    theirs = peer(ours.config).take(ours).eval()
    x, label, c = call(ours)
    with torch.no_grad():
        return ours, theirs, ours(x, label, c)[0], theirs(x, label, c.tokens, c.token_mask, c.pooled)


@pytest.mark.parametrize("name", SMALL)
def test_both_sides_are_the_same_network(name: str) -> None:
    mine, peer, ours, theirs = both(name)
    assert agree(ours, theirs, 1e-5) > 0, "computed by other code"
    with torch.no_grad(), pytest.raises(AssertionError, match="differ"):
        agree(ours, theirs + 1e-3 * theirs.abs().max())
    with pytest.raises(AssertionError):
        agree(ours, torch.zeros_like(ours))
    assert sum(p.numel() for p in peer.parameters()) == sum(p.numel() for p in mine.parameters())


def test_rounds_are_free_of_drift() -> None:
    """Of two whose times are 1 and 2 on a machine that slows down by 5 % a call, ABBA finds 2; AB would not."""
    spent: list[float] = []

    def drifting(seconds: float) -> dict[str, float]:
        spent.append(seconds * (1 + 0.05 * len(spent)))
        return {"all": spent[-1]}

    found = paired(lambda: drifting(1.0), lambda: drifting(2.0), 0.0, least=3)["all"]
    assert found.rounds == 3
    assert found.low == pytest.approx(found.high) == pytest.approx(found.ratio) == pytest.approx(2.0)
    assert abs(spent[3] / spent[2] - 2.0) > 0.05, "the control"
    with pytest.raises(ValueError, match="quartiles"):
        paired(lambda: drifting(1.0), lambda: drifting(2.0), 0.0, least=1)


def test_work_is_counted() -> None:
    matrix = torch.randn(70, 70)
    x, kernel = torch.randn(1, 4, 8, 8), torch.randn(6, 4, 3, 3)
    done = work(lambda: (torch.nn.functional.conv2d(x, kernel, padding=1), matrix @ matrix))
    assert done.convolutions == 2 * 64 * 4 * 6 * 9
    assert done.products == 2 * 70**3
    q, k = torch.randn(2, 3, 16, 8, requires_grad=True), torch.randn(2, 3, 5, 8, requires_grad=True)
    once = 2 * 2 * 3 * 16 * 5 * 8  # one product of queries and keys
    attend = torch.nn.functional.scaled_dot_product_attention
    assert work(lambda: attend(q, k, k)) == (0, 2 * once)
    assert work(lambda: attend(q, k, k).sum().backward()) == (0, 7 * once), "the backward pass makes the first anew"


@pytest.mark.parametrize("masked", [True, False])
def test_training_leaves_out_padding_alone(masked: bool) -> None:
    """In training columns that no row uses are left out: the same output, and the same gradient of the tokens."""
    x, label, cond = call(network("unet"))
    if not masked:
        cond = replace(cond, token_mask=None)
    net = UNet(UNetConfig.tiny())
    net.load_state_dict(network("unet").state_dict())
    found = []
    for mode in (False, True):
        assert cond.tokens is not None
        tokens = cond.tokens.clone().requires_grad_()
        output = net.train(mode)(x, label, replace(cond, tokens=tokens))[0]
        found.append([output, *torch.autograd.grad(output.square().sum(), tokens)])
    for evaluated, trained in zip(*found, strict=True):
        assert torch.allclose(evaluated, trained, rtol=0, atol=1e-5 * float(evaluated.detach().abs().max()))
    used = int(cond.token_mask.any(0).sum()) if cond.token_mask is not None else cond.tokens.shape[1]
    assert found[1][1][:, :used].any(dim=(0, 2)).all(), "what is a token in some row is seen"
