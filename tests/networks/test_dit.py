"""The diffusion transformer beside its paper: positions, patches, adaLN-Zero, and that all of it can be trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from torch import Tensor, nn

from networks import test_networks as laws
from networks.test_networks import call
from tiny import lively
from unnoise.core.denoiser import Denoiser
from unnoise.core.registry import find
from unnoise.networks import dit, layers
from unnoise.networks.dit import DiT, DiTBlock, DiTConfig, grid_positions
from unnoise.weights.model import load_model, save_model

SMALL = DiTConfig(size=8, width=32, depth=3, heads=2, text_width=16, embedding=32)


def test_positions_are_the_papers_but_for_their_order() -> None:
    """The published code writes sines before cosines, and columns before rows."""
    ours, theirs = grid_positions(4, 4, 32), torch.as_tensor(get_2d_sincos_pos_embed(32, 4, base_size=4)).float()
    ours = ours.unflatten(1, (2, 2, 8)).flip(1).flip(2).flatten(1)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_token_is_a_patch_and_goes_back_where_it_was() -> None:
    """With every block the identity, what is written into one token is read out of one patch."""
    torch.manual_seed(0)
    network = DiT(SMALL)
    nn.init.normal_(network.leave.weight)
    nn.init.zeros_(network.enter.weight)
    nn.init.zeros_(network.enter.bias)
    network.position.zero_()
    network.position[5] = torch.randn(32)  # the second token of the second row
    x, label, cond = call(network, 1)
    output = network(x, label, cond)[0][0].detach()
    assert (output[:, 2:4, 2:4] != 0).all()
    output[:, 2:4, 2:4] = 0
    assert not output.any()


def by_the_paper(block: DiTBlock, x: Tensor, e: Tensor, cond: Any) -> Tensor:
    """Section 3.2, line by line, with the attention modules as they are."""
    weight, bias = block.modulation.weight, block.modulation.bias
    gamma1, beta1, alpha1, gamma2, beta2, alpha2 = ((e @ weight.T + bias)[:, None]).tensor_split(6, dim=2)
    none = layers.Inside()

    def norm(x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    x = x + alpha1 * block.self_attention((1 + gamma1) * norm(x) + beta1, none, "a.self")
    x = x + block.cross_attention(block.norm2(x), none, "a.cross", cond.tokens, cond.token_mask)
    hidden = block.mlp.up((1 + gamma2) * norm(x) + beta2)
    return x + alpha2 * block.mlp.down(nn.functional.gelu(hidden))


def test_a_block_is_as_published() -> None:
    torch.manual_seed(0)
    block = lively(DiTBlock(SMALL))
    cond = call(DiT(SMALL)).cond
    x, e = torch.randn(3, 16, 32), torch.randn(3, 32)
    found = block(x, e, cond, layers.Inside(), "blocks.0")
    assert torch.allclose(found, by_the_paper(block, x, e, cond), atol=1e-5)
    assert (found - x).abs().max() > 0.01
    fresh = DiTBlock(SMALL)
    assert torch.equal(fresh(x, e, cond, layers.Inside(), "blocks.0"), x), "adaLN-Zero: the identity at first"


def every_block_learns(network: DiT) -> None:
    """One step after the last layer has a say, each gate has a gradient: no block is dead from the start."""
    nn.init.normal_(network.leave.weight)
    network(*call(network))[0].square().mean().backward()
    for block in network.blocks:
        gates = block.modulation.weight.grad.unflatten(0, (6, -1))[[2, 5]]  # type: ignore[union-attr,operator]
        assert gates.flatten(1).abs().amax(1).min() > 0


def test_every_block_learns() -> None:
    every_block_learns(DiT(SMALL))


def test_a_branch_that_begins_dead_stays_so() -> None:
    """The control: zeros in a branch's last layer as well as in its gate."""
    network = DiT(SMALL)
    for block in network.blocks:
        nn.init.zeros_(block.mlp.down.weight)  # type: ignore[union-attr,arg-type]
    with pytest.raises(AssertionError):
        every_block_learns(network)


def test_it_is_kept_in_a_model_folder(tmp_path: Path) -> None:
    denoiser = lively(Denoiser(DiT(SMALL), find("paths", "flow")(), find("predictions", "flow")()))
    save_model(tmp_path / "model", {"denoiser": denoiser}, {}, {}, torch.float32)
    again = load_model(tmp_path / "model", ["denoiser"])[0]["denoiser"]
    x, label, cond = call(denoiser.network)
    assert torch.allclose(again.network(x, label, cond)[0], denoiser.network(x, label, cond)[0], atol=1e-6)  # type: ignore[operator]


def test_patches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        DiT(DiTConfig(size=9))


def no_modulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "sinusoid", lambda label, width: torch.zeros(len(label), width))


def rows_that_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    modulate = dit.modulate
    monkeypatch.setattr(dit, "modulate", lambda x, a, b: modulate(x + 1e-3 * x.mean(0), a, b))


def a_loud_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dit.nn.init, "zeros_", lambda tensor: torch.nn.init.constant_(tensor, 1e-3))


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (no_modulation, laws.hears_everything),
        (rows_that_mix, laws.answers_rows_alone),
        (a_loud_start, laws.begins_at_zero),
    ],
    ids=lambda each: each.__name__,
)
def test_a_fault_breaks_its_law(
    fault: Callable[[pytest.MonkeyPatch], None], law: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    laws.network.cache_clear()
    try:
        with pytest.raises(AssertionError):
            law("dit")
    finally:
        laws.network.cache_clear()
