"""The edits that guidance makes: what they do to an attention, and that they do it row by row and nowhere else."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers.hooks import smoothed_energy_guidance_utils as theirs
from torch import Tensor

from networks.test_networks import answer, call, network
from tiny import components, lively
from unnoise.core.condition import Condition
from unnoise.core.edit import Around, Edit
from unnoise.core.evaluate import batched
from unnoise.core.guidance import bind
from unnoise.core.level import NoiseLevel
from unnoise.guidances.cfg import CFG
from unnoise.guidances.pag import PAG, IdentityMap
from unnoise.guidances.plain import Plain
from unnoise.guidances.seg import SEG, BlurredQueries
from unnoise.networks.layers import Attention, Inside

SIDE = 6
LEVEL = NoiseLevel(0.5, 0.5)


def attention() -> tuple[Attention, Tensor]:
    torch.manual_seed(0)
    return lively(Attention(32, 2)), torch.randn(3, SIDE * SIDE, 32, generator=torch.Generator().manual_seed(1))


def through(edit: Edit) -> Tensor:
    module, x = attention()
    found: Tensor = module(x, Inside((edit,)), "a.self")
    return found


def queries() -> Tensor:
    return torch.randn(2, 3, SIDE * SIDE, 4, generator=torch.Generator().manual_seed(2))


def test_pag_leaves_each_cell_its_own_value() -> None:
    module, x = attention()
    assert torch.allclose(through(IdentityMap(("a.self",))), module.out(module.value(x)), atol=1e-6)


def test_seg_without_end_asks_one_mean_question() -> None:
    found = through(BlurredQueries(("a*",)))
    assert torch.allclose(found, found[:, :1].expand_as(found), atol=1e-6)
    module, x = attention()
    assert torch.equal(through(BlurredQueries(("a*",), 0.0)), module(x, Inside(), "a.self"))


def blurs_as_a_gaussian_does(kind: type[BlurredQueries]) -> None:
    """A finite blur is a Gaussian kernel, as in the authors' code; the mean is what an infinite one makes."""
    q = queries()
    flat = q.transpose(2, 3).reshape(2, 12, SIDE * SIDE).transpose(1, 2)  # (B, N, heads d) as theirs wants it
    for blur in (0.5, 1.0, 3.0):
        width = math.ceil(6 * blur) + 1 - math.ceil(6 * blur) % 2
        wanted = theirs._gaussian_blur_2d(flat.clone(), min(width, SIDE + 1), blur, 0.0)  # 0: to the kernel at last
        wanted = wanted.transpose(1, 2).reshape(2, 3, 4, -1).transpose(2, 3)
        assert torch.allclose(kind(("*",), blur).within("a.self.query", q, Around()), wanted, atol=1e-5), blur
        assert (wanted - q.mean(2, keepdim=True)).abs().max() > 1e-3
    assert torch.allclose(kind(("*",)).within("a.self.query", q, Around()), q.mean(2, keepdim=True).expand_as(q))


def test_seg_blur() -> None:
    blurs_as_a_gaussian_does(BlurredQueries)


def blurs_along_rows_and_columns(kind: type[BlurredQueries]) -> None:
    """Of a grid of 4 x 9 cells and of the same one turned round, the blurs are each other turned round."""
    q = torch.randn(1, 1, 36, 4, generator=torch.Generator().manual_seed(3))
    turned = q.unflatten(2, (4, 9)).transpose(2, 3).flatten(2, 3)
    edit = kind(("*",), 0.5)
    found = edit.within("a.self.query", q, Around(cells=(8, 18)))
    again = edit.within("a.self.query", turned, Around(cells=(18, 8)))
    assert torch.allclose(again, found.unflatten(2, (4, 9)).transpose(2, 3).flatten(2, 3), atol=1e-6)
    column = torch.zeros(1, 1, 36, 1)
    column[:, :, 4::9] = 1.0
    spread = edit.within("a.self.query", column, Around(cells=(8, 18))).unflatten(2, (4, 9))
    assert torch.allclose(spread, spread[:, :, :1].expand_as(spread), atol=1e-6), (
        "along a line nothing is to be blurred"
    )


def test_seg_blur_of_a_grid_that_is_no_square() -> None:
    blurs_along_rows_and_columns(BlurredQueries)


def test_a_square_where_there_is_none_is_seen() -> None:
    class Square(BlurredQueries):
        def within(self, site: str, value: Tensor, around: Around) -> Tensor:
            return super().within(site, value, Around())

    with pytest.raises(AssertionError):
        blurs_along_rows_and_columns(Square)


def test_difference_seg_blur() -> None:
    """Their condition is turned round: any finite blur gives the mean, and an infinite one a Gaussian of 7 x 7."""
    flat = queries()[:, 0]  # (B, N, d)
    finite = theirs._gaussian_blur_2d(flat.clone(), 3, 0.5, 9999.9)
    assert torch.allclose(finite, flat.mean(1, keepdim=True).expand_as(flat), atol=1e-6)
    endless = theirs._gaussian_blur_2d(flat.clone(), 7, 1e5, 9999.9)
    assert (endless - flat.mean(1, keepdim=True)).abs().max() > 0.01
    ours = BlurredQueries(("*",), 0.5).within("a.self.query", flat[:, None], Around())[:, 0]
    assert (ours - flat.mean(1, keepdim=True)).abs().max() > 0.1


@pytest.mark.parametrize("edit", [IdentityMap(("mid.*",)), BlurredQueries(("mid.*",)), BlurredQueries(("mid.*",), 1.0)])
def test_edits_act_on_self_attention_alone_and_row_by_row(edit: Edit) -> None:
    x, label, cond = call(network("unet"))
    plain, whole = answer("unet", x, label, cond), answer("unet", x, label, cond, edits=(edit,))
    assert (whole - plain).abs().max() > 1e-4 * plain.abs().max()
    for row in range(len(x)):
        part = slice(row, row + 1)
        alone = answer("unet", x[part], label[part], cond.rows(part), edits=(edit,))
        assert torch.allclose(alone, whole[part], rtol=0, atol=1e-5 * whole.abs().max())
    nowhere = type(edit)(("down.*", "up.*"))  # cross-attention, which has no map of cells by cells
    assert torch.equal(answer("unet", x, label, cond, edits=(nowhere,)), plain)


@pytest.mark.parametrize("kind", [PAG, SEG])
def test_perturbed_calls_are_pushed_away_from(kind: Any) -> None:
    """inner + scale (c - perturbed), through the batched calls of a real network; without CFG as well."""
    denoiser = components()["denoiser"]
    noise = torch.Generator().manual_seed(3)
    x = torch.randn(2, 4, 16, 16, generator=noise)
    conds: dict[str, Condition | None] = {
        name: Condition(torch.randn(2, 5, 32, generator=noise), None, torch.randn(2, 32, generator=noise))
        for name in ("cond", "uncond")
    }
    evaluate_ = batched(denoiser)  # type: ignore[arg-type]
    with torch.no_grad():
        for inner in (Plain(), CFG(1.0), CFG(0.0), CFG(3.0)):
            guidance = kind(inner, 2.0)
            c = bind(Plain(), evaluate_, conds)(x, LEVEL)
            p = denoiser(x, LEVEL, cond=conds["cond"], edits=(guidance.edit,))
            plain = bind(inner, evaluate_, conds)(x, LEVEL)
            found = bind(guidance, evaluate_, conds)(x, LEVEL)
            assert (c.x0 - p.x0).abs().max() > 1e-6, "the edit acts"
            assert torch.allclose(found.x0, plain.x0 + 2.0 * (c.x0 - p.x0), rtol=0, atol=1e-5)
            assert torch.allclose(LEVEL.mix(found.x0, found.eps), x, rtol=0, atol=1e-4)
