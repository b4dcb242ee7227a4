"""Stable Diffusion's U-Net as one of ours: guidances act inside it at odd sizes, and it learns from zero."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from networks.test_networks import NEAR, answer, call, network
from unnoise.core.edit import Around, Edit
from unnoise.guidances.freeu import Rebalanced
from unnoise.guidances.nag import Away
from unnoise.guidances.pag import IdentityMap
from unnoise.guidances.seg import BlurredQueries
from unnoise.networks.sd_unet import SDUNet, SDUNetConfig

EDITS = [IdentityMap(("mid.*",)), BlurredQueries(("*",), 0.5), Away(("*",), 2.0), Rebalanced(("up.*",), 1.2, 0.9)]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: type(edit).__name__)
def test_edits_of_guidances_act_row_by_row(edit: Edit) -> None:
    x, label, cond = call(network("sd-unet"), 2, (9, 7))
    assert cond.tokens is not None
    cond = replace(cond, other_tokens=cond.tokens.flip(1), other_mask=torch.ones(2, cond.tokens.shape[1]).bool())
    plain, whole = answer("sd-unet", x, label, cond), answer("sd-unet", x, label, cond, edits=(edit,))
    assert (whole - plain).abs().max() > 1e-4 * plain.abs().max()
    for row in range(2):
        part = slice(row, row + 1)
        alone = answer("sd-unet", x[part], label[part], cond.rows(part), edits=(edit,))
        assert torch.allclose(alone, whole[part], rtol=0, atol=NEAR * whole.abs().max())


def test_grids_of_odd_states() -> None:
    """A map is halved, rounded up, as often as it takes, whatever the state's sides."""
    for cells in ((9, 7), (1, 100), (64, 64), (13, 13), (5, 96), (3, 2)):
        grid = cells
        for _ in range(4):
            assert Around(cells=cells).grid(grid[0] * grid[1]) == grid
            grid = ((grid[0] + 1) // 2, (grid[1] + 1) // 2)
    assert Around().grid(36) == (6, 6)


def learns(net: SDUNet) -> list[str]:
    """The weights that stand still in the first steps of a training."""
    x, label, cond = call(net, 2)
    still = dict(net.named_parameters())
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(4):
        optimiser.zero_grad()
        (net.train()(x, label, cond)[0] - x).square().mean().backward()
        still = {n: p for n, p in still.items() if p.grad is None or not p.grad.any()}
        optimiser.step()
    return list(still)


def test_all_of_it_learns_from_its_first_weights() -> None:
    torch.manual_seed(0)
    net = SDUNet(SDUNetConfig.tiny())
    assert learns(net) == []
    net = SDUNet(SDUNetConfig.tiny())
    torch.nn.init.zeros_(net.mid.attention.enter.weight)  # type: ignore[union-attr]
    torch.nn.init.zeros_(net.mid.attention.enter.bias)  # type: ignore[union-attr]
    assert learns(net), "the control: two layers at zero, one behind the other, wait for each other"
