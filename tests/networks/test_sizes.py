"""Networks at sizes that they were not trained on: positions, and rows that are not taken for columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.test_networks import NEAR, call
from tiny import lively
from unnoise.networks import dit
from unnoise.networks.dit import DiT, DiTConfig, grid_positions
from unnoise.networks.unet import UNet, UNetConfig


def a_unet() -> UNet:
    torch.manual_seed(0)
    return lively(UNet(UNetConfig.tiny()))


def test_at_the_trained_size_positions_are_the_weights_themselves() -> None:
    unet, transformer = a_unet(), lively(DiT(DiTConfig.tiny()))
    side = unet.config.size // 2
    assert unet.positions(side, side) is unet.position
    side = transformer.config.size // transformer.config.patch
    assert transformer.positions(side, side) is transformer.position
    assert torch.equal(grid_positions(side, side, transformer.config.width), transformer.position)


def test_a_larger_grid_extends_a_smaller_one() -> None:
    net = DiT(DiTConfig.tiny())
    side, width = net.config.size // net.config.patch, net.config.width
    large = net.positions(side + 3, side + 1).unflatten(0, (side + 3, side + 1))
    assert torch.equal(large[:side, :side].flatten(0, 1), net.position)
    assert torch.equal(large[5, 2], grid_positions(6, 3, width)[-1])
    turned = grid_positions(side + 1, side + 3, width).unflatten(0, (side + 1, side + 3))
    assert torch.equal(large, turned.transpose(0, 1).roll(width // 2, -1)), "first half the row, second the column"
    assert not torch.equal(large[4, 2], large[2, 4])


def keys(grid: Tensor, rows: int, columns: int) -> Tensor:
    """(rows, columns, D) from (h, w, D) by cubic convolution: Keys 1981, equations 4 and 15, with a = -3/4."""
    a = -0.75

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    def matrix(count: int, have: int) -> Tensor:
        weights = torch.zeros(count, have)
        for i in range(count):
            place = (i + 0.5) * have / count - 0.5  # middles of cells lie over one another
            for j in range(int(place) - 3, int(place) + 5):
                weights[i, min(max(j, 0), have - 1)] += kernel(place - j)
        return weights

    return torch.einsum("ai,bj,ijd->abd", matrix(rows, grid.shape[0]), matrix(columns, grid.shape[1]), grid)


def resamples_by_cubics(kind: type[UNet]) -> None:
    torch.manual_seed(0)
    net = lively(kind(UNetConfig.tiny()))
    side = net.config.size // 2
    grid = net.position.detach().unflatten(0, (side, side))
    for rows, columns in ((side + 4, 2 * side), (3, side), (side, 5)):
        found = net.positions(rows, columns).unflatten(0, (rows, columns))
        assert torch.allclose(found, keys(grid, rows, columns), atol=1e-5)


def test_learned_positions_are_resampled_by_cubics() -> None:
    resamples_by_cubics(UNet)


class Straight(UNet):
    def positions(self, rows: int, columns: int) -> Tensor:
        grid = self.position.mT.reshape(1, -1, self.config.size // 2, self.config.size // 2)
        return F.interpolate(grid, (rows, columns), mode="bilinear")[0].flatten(1).mT


class Turned(UNet):
    def positions(self, rows: int, columns: int) -> Tensor:
        found = super().positions(rows, columns)
        return found.unflatten(0, (columns, rows)).transpose(0, 1).flatten(0, 1)


@pytest.mark.parametrize("fault", [Straight, Turned])
def test_positions_that_are_resampled_otherwise_are_seen(fault: type[UNet]) -> None:
    with pytest.raises(AssertionError):
        resamples_by_cubics(fault)


def test_positions_of_another_size_learn() -> None:
    net = UNet(UNetConfig.tiny())
    nn.init.normal_(net.leave[2].weight)
    for block in net.mid:
        nn.init.normal_(block.mlp.down.weight)  # type: ignore[union-attr,arg-type]
    net(*call(net, 1, (20, 12)))[0].square().mean().backward()
    assert net.position.grad is not None
    assert net.position.grad.abs().amin() > 0


@torch.no_grad()
def symmetric(net: Any) -> Any:
    """The network with weights to which a picture and the same one turned about its diagonal are alike."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.copy_((module.weight + module.weight.mT) / 2)
    if isinstance(net, UNet):
        side = net.config.size // 2
        grid = net.position.unflatten(0, (side, side))
        net.position.copy_(((grid + grid.transpose(0, 1)) / 2).flatten(0, 1))
        spread, p = net.grow, 2
    else:
        spread, p = net.leave, net.config.patch
    for tensor in (spread.weight, spread.bias):  # (C p p, ...): what becomes a patch of p x p cells
        patch = tensor.unflatten(0, (-1, p, p))
        tensor.copy_(((patch + patch.transpose(1, 2)) / 2).flatten(0, 2))
    return net


def along_the_diagonal(rows: int, columns: int, width: int, device: torch.device | None = None) -> Tensor:
    """Positions that a cell shares with the one across the diagonal."""
    found = grid_positions(rows, columns, width, device)
    return found + found.roll(width // 2, -1)


def turns_with_its_picture(net: Any) -> None:
    for cells in ((12, 20), (4, 16)):
        x, label, cond = call(net, 2, cells)
        with torch.no_grad():
            found, turned = net(x, label, cond)[0], net(x.mT, label, cond)[0]
        assert torch.allclose(turned.mT, found, rtol=0, atol=NEAR * float(found.abs().max()))
        assert not torch.allclose(found, found.flip(-1), atol=1e-2 * float(found.abs().max()))


@pytest.fixture
def transformer(monkeypatch: pytest.MonkeyPatch) -> DiT:
    monkeypatch.setattr(dit, "grid_positions", along_the_diagonal)
    torch.manual_seed(0)
    return symmetric(lively(DiT(DiTConfig.tiny())))  # type: ignore[no-any-return]


def test_a_unet_turns_with_its_picture() -> None:
    turns_with_its_picture(symmetric(a_unet()))


def test_a_transformer_turns_with_its_picture(transformer: DiT) -> None:
    turns_with_its_picture(transformer)


def swapped(net: nn.Module) -> None:
    positions: Callable[[int, int], Tensor] = net.positions  # type: ignore[assignment]
    net.positions = lambda rows, columns: positions(columns, rows)  # type: ignore[assignment]


def test_rows_that_are_taken_for_columns_are_seen(transformer: DiT) -> None:
    for net in (symmetric(a_unet()), transformer):
        swapped(net)
        with pytest.raises(AssertionError):
            turns_with_its_picture(net)
    with pytest.raises(AssertionError):
        turns_with_its_picture(a_unet())
