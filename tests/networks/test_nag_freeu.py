"""NAG and FreeU inside a network: what they compute, that rows stay apart, and that the seam alone changes no bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers.utils.torch_utils import apply_freeu
from torch import Tensor

from networks.test_networks import NEAR, answer, call, network
from tiny import components, lively
from unnoise.core.condition import Condition
from unnoise.core.edit import Edit
from unnoise.core.evaluate import batched
from unnoise.core.guidance import Ask, Guidance, bind
from unnoise.core.level import NoiseLevel
from unnoise.errors import UnnoiseError
from unnoise.guidances import freeu, nag
from unnoise.guidances.autoguidance import AutoGuidance
from unnoise.guidances.cfg import CFG
from unnoise.guidances.freeu import FreeU, Rebalanced, louder, quieter
from unnoise.guidances.interval import Interval
from unnoise.guidances.nag import NAG, Away, away_from, pushed
from unnoise.guidances.pag import PAG
from unnoise.guidances.plain import Plain
from unnoise.networks.layers import Attention, Inside

LEVEL = NoiseLevel(0.5, 0.5)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# NAG


def by_the_paper(plus: Tensor, minus: Tensor, s: float, tau: float, alpha: float) -> Tensor:
    """Cell by cell, as it is written."""
    out = torch.empty_like(plus)
    for row in range(plus.shape[0]):
        for cell in range(plus.shape[1]):
            p, far = plus[row, cell], plus[row, cell] + s * (plus[row, cell] - minus[row, cell])
            ratio = float(far.abs().sum() / p.abs().sum())
            out[row, cell] = alpha * far * min(ratio, tau) / ratio + (1 - alpha) * p
    return out


def pushes_as_published(push: Callable[..., Tensor]) -> None:
    plus, minus = draw(2, 5, 8), draw(2, 5, 8, seed=1)
    for s, tau, alpha in ((2.0, 2.5, 0.5), (4.0, 1.2, 1.0), (0.7, 9.0, 0.25)):
        assert torch.allclose(push(plus, minus, s, tau, alpha), by_the_paper(plus, minus, s, tau, alpha), atol=1e-5)
    assert torch.isfinite(push(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4), 2.0, 2.5, 0.5)).all(), "0/0 is 0"
    whole = push(plus, plus.flip(1), 4.0, 1.2, 1.0)
    limit = 1.2 * plus.abs().sum(-1)
    assert (whole.abs().sum(-1) <= limit * (1 + 1e-5)).all()
    assert ((whole.abs().sum(-1) - limit).abs() < 1e-4 * limit).any(), "the cap acts"


def test_nag_is_as_published() -> None:
    pushes_as_published(pushed)


def of_the_whole_picture(plus: Tensor, minus: Tensor, s: float, tau: float, alpha: float) -> Tensor:
    far = plus + s * (plus - minus)
    room = tau * plus.abs().sum((1, 2), keepdim=True) / far.abs().sum((1, 2), keepdim=True).clamp_min(1e-30)
    return plus + alpha * (far * room.clamp_max(1.0) - plus)


def counted_from_one(plus: Tensor, minus: Tensor, s: float, tau: float, alpha: float) -> Tensor:
    return pushed(plus, minus, s - 1, tau, alpha)


def nothing_by_nothing(plus: Tensor, minus: Tensor, s: float, tau: float, alpha: float) -> Tensor:
    far = plus + s * (plus - minus)
    ratio = far.abs().sum(-1, keepdim=True) / plus.abs().sum(-1, keepdim=True)
    return alpha * far * ratio.clamp_max(tau) / ratio + (1 - alpha) * plus


@pytest.mark.parametrize("fault", [of_the_whole_picture, counted_from_one, nothing_by_nothing])
def test_nag_faults_are_seen(fault: Callable[..., Tensor]) -> None:
    with pytest.raises(AssertionError):
        pushes_as_published(fault)


def test_nag_asks_the_other_prompt_with_the_same_queries() -> None:
    """In one layer: both prompts attended to with the state's own queries, pushed, then projected."""
    torch.manual_seed(0)
    module = lively(Attention(32, 2, context=16))
    x, plus, minus = draw(3, 9, 32), draw(3, 7, 16, seed=1), draw(3, 5, 16, seed=2)
    mask = torch.arange(5) < torch.tensor([[3], [4], [5]])
    assert not Away(("a.cross",), 2.0, 2.5, 0.5).at("a.cross.out"), "a name is the whole name"
    edit = Away(("a.*",), 2.0, 2.5, 0.5)
    cond = Condition(plus, other_tokens=minus, other_mask=mask)

    def before_projection(tokens: Tensor, mask: Tensor | None) -> Tensor:
        inside = Inside((), ("a.cross.out",))
        module(x, inside, "a.cross", tokens, mask)
        return inside.features["a.cross.out"]

    wanted = module.out(pushed(before_projection(plus, None), before_projection(minus, mask), 2.0, 2.5, 0.5))
    assert torch.allclose(module(x, Inside((edit,), (), cond), "a.cross", plus), wanted, atol=1e-6)
    both = Inside((edit, Edit(("a.cross",))), (), cond)  # the map of the first is edited too
    in_the_open = module(x, both, "a.cross", plus)
    assert torch.allclose(in_the_open, wanted, atol=1e-6)
    for nothing in (None, Condition(plus)):
        with pytest.raises(UnnoiseError, match="no other prompt"):
            module(x, Inside((edit,), (), nothing), "a.cross", plus)


# FreeU


def test_freeu_backbone_is_as_published() -> None:
    h = draw(2, 6, 4, 4)
    mean = h.mean(1)
    for row in range(2):
        m = (mean[row] - mean[row].min()) / (mean[row].max() - mean[row].min())
        assert torch.allclose(louder(h, 1.4)[row, :3], h[row, :3] * (1 + 0.4 * m), atol=1e-6)
        assert torch.equal(louder(h, 1.4)[row, 3:], h[row, 3:])
    flat = torch.ones(1, 4, 3, 3)
    assert torch.equal(louder(flat, 1.4), flat), "0/0 is 0"


def filters_by_radius(kind: Callable[..., Tensor]) -> None:
    """Waves below the radius are scaled and no other, whichever way they run; so a mirrored picture is no other."""
    place = 2 * torch.pi * torch.arange(8.0) / 8
    down, across = torch.meshgrid(place, place, indexing="ij")
    for phase in (0.0, 0.7):
        for k, l in ((0, 0), (1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (1, 2), (2, -1), (3, 3), (4, 0)):
            wave = torch.cos(k * down + l * across + phase)[None, None]
            factor = 0.3 if (k * k + l * l) ** 0.5 < 1.5 else 1.0
            assert torch.allclose(kind(wave, 0.3, 1.5), factor * wave, atol=1e-5), (k, l)
    x = draw(2, 3, 8, 8)
    assert torch.allclose(kind(x.flip(-1), 0.3, 1.5), kind(x, 0.3, 1.5).flip(-1), atol=1e-5)


def test_freeu_skip_is_as_published() -> None:
    filters_by_radius(quieter)
    odd = draw(1, 2, 7, 5)
    assert torch.allclose(quieter(odd, 1.0, 1.5), odd, atol=1e-5)
    assert quieter(odd.bfloat16(), 0.5, 1.5).dtype == torch.bfloat16


def theirs(h: Tensor, skip: Tensor, b: float, s: float) -> tuple[Tensor, Tensor]:
    return apply_freeu(0, h.clone(), skip.clone(), b1=b, s1=s, b2=1.0, s2=1.0)


def test_difference_freeu_mirror() -> None:
    """Their window has -1 and 0 and lacks +1: waves along one diagonal are scaled and along the other are not."""
    with pytest.raises(AssertionError):
        filters_by_radius(lambda x, factor, radius: theirs(x, x, 1.0, factor)[1])
    x = draw(2, 4, 8, 8)
    there, mirrored = theirs(x, x, 1.0, 0.3)[1], theirs(x, x.flip(-1), 1.0, 0.3)[1].flip(-1)
    assert (there - mirrored).abs().max() > 0.01
    mean = x.mean((2, 3), keepdim=True).expand_as(x)
    assert torch.allclose(theirs(x, mean, 1.0, 0.3)[1], quieter(mean, 0.3, 1.5), atol=1e-5), "the mean is common ground"


def test_difference_freeu_backbone() -> None:
    h = draw(1, 4, 5, 5)
    there, ours = theirs(h, h, 1.4, 1.0)[0], louder(h, 1.4)
    assert torch.allclose(there[:, :2], 1.4 * h[:, :2])
    ratio = ours[:, 0] / h[:, 0]
    assert float(ratio.min()) == pytest.approx(1, abs=1e-5)
    assert float(ratio.max()) == pytest.approx(1.4, abs=1e-5)
    assert torch.equal(there[:, 2:], ours[:, 2:])


# in the network


def test_rows_stay_apart() -> None:
    x, label, cond = call(network("unet"))
    assert cond.tokens is not None
    itself = away_from(cond, cond)
    cond = away_from(cond, Condition(cond.tokens.flip(0).roll(1, 1), cond.token_mask))
    assert cond is not None
    plain = answer("unet", x, label, cond)
    for edit in (Away(("*",), 2.0), Rebalanced(("up.*",), 1.4, 0.3)):
        whole = answer("unet", x, label, cond, edits=(edit,))
        assert (whole - plain).abs().max() > 1e-4 * plain.abs().max()
        twice = answer("unet", x.repeat(2, 1, 1, 1), label.repeat(2), Condition.cat([cond, cond]), edits=(edit,))
        assert torch.allclose(twice, whole.repeat(2, 1, 1, 1), rtol=0, atol=1e-5 * whole.abs().max())
        for row in range(len(x)):
            part = slice(row, row + 1)
            alone = answer("unet", x[part], label[part], cond.rows(part), edits=(edit,))
            assert torch.allclose(alone, whole[part], rtol=0, atol=1e-5 * whole.abs().max())
    same = answer("unet", x, label, itself, edits=(Away(("*",), 2.0),))
    assert torch.allclose(same, plain, rtol=0, atol=1e-5 * plain.abs().max()), "away from itself is nowhere"
    for idle in (Rebalanced(("up.*",)), Rebalanced(("mid.*",), 1.4, 0.3), Away(("up.0*",))):
        assert torch.equal(answer("unet", x, label, cond, edits=(idle,)), plain)


def conditions() -> dict[str, Condition | None]:
    return {
        name: Condition(draw(2, 5, 32, seed=seed), None, draw(2, 32, seed=seed))
        for seed, name in enumerate(("cond", "uncond"), 1)
    }


def test_guidances_change_their_inner_calls_and_no_others() -> None:
    denoiser, x, conds = components()["denoiser"], draw(2, 4, 16, 16, seed=5), conditions()
    evaluate = batched(denoiser)  # type: ignore[arg-type]

    def says(guidance: Guidance) -> Tensor:
        with torch.no_grad():
            return bind(guidance, evaluate, conds)(x, LEVEL).x0

    def alone(name: str, *edits: Edit) -> Tensor:
        with torch.no_grad():
            return denoiser(x, LEVEL, cond=away_from(conds[name], conds["uncond"]), edits=edits).x0

    away, up = Away(("*",), 2.0, 2.5, 0.5), Rebalanced(("up.*",), 1.3, 0.5)
    u_up = alone("uncond", up)
    c, u, pushed_, raised = alone("cond"), alone("uncond"), alone("cond", away), alone("cond", up)
    assert min(float((a - c).abs().max()) for a in (pushed_, raised)) > 1e-6
    near = {"rtol": 0, "atol": 1e-4}  # numbers up to 4, counted up to 7 times: one rounding is 2e-6; edits move by 0.2
    assert torch.allclose(says(NAG(Plain())), pushed_, **near)
    assert torch.allclose(says(NAG(CFG(3.0))), u + 3 * (pushed_ - u), **near)
    assert torch.allclose(says(FreeU(CFG(3.0), 1.3, 0.5)), u_up + 3 * (raised - u_up), **near)
    perturbed = alone("cond", PAG().edit)  # type: ignore[arg-type]
    assert torch.allclose(says(PAG(NAG(Plain()), 2.0)), pushed_ + 2 * (c - perturbed), **near), "PAG's own are plain"
    assert torch.allclose(says(NAG(FreeU(Plain(), 1.3, 0.5))), alone("cond", up, away), **near)
    assert torch.equal(says(Interval(NAG(Plain()), 0.0, 0.5)), c), "off outside an interval"
    assert len(NAG(CFG(1.0)).asks(conds, LEVEL)) == 1, "no second call"


def test_only_the_calls_that_nag_edits_carry_the_other_prompt() -> None:
    conds = conditions()
    asks = NAG(AutoGuidance()).asks(conds, LEVEL)
    edited = {name for name, ask in asks.items() if ask.edits}
    assert edited
    assert edited != set(asks)
    for name, ask in asks.items():
        assert ask.cond is not None
        assert (ask.cond.other_tokens is not None) == (name in edited)
    twice = NAG(NAG(Plain(), 1.0)).asks(conds, LEVEL)
    assert [len(ask.edits) for ask in twice.values()] == [2], "an outer one sees the calls of an inner one"


def test_the_calls_of_two_runs_with_nag_are_one() -> None:
    """Prompts of other lengths, with a mask and without; the edits are equal, and so the calls can be joined."""
    net, (x, label, _) = network("unet"), call(network("unet"), 2)
    width = net.config.text_width  # type: ignore[union-attr]
    mask = torch.arange(7) < 4

    def ask(seed: int, length: int, other: Condition) -> Ask:
        tokens, pooled = draw(1, length, width, seed=seed), draw(1, width, seed=seed)
        (found,) = NAG(Plain()).asks({"cond": Condition(tokens, None, pooled), "uncond": other}, LEVEL).values()
        return found

    first = ask(1, 4, Condition(draw(1, 7, width, seed=2), mask[None]))
    second = ask(3, 6, Condition(draw(1, 3, width, seed=4)))
    assert first.edits == second.edits
    assert hash(first.edits) == hash(second.edits)
    assert first.cond is not None
    assert second.cond is not None
    joined = answer("unet", x, label, Condition.cat([first.cond, second.cond]), edits=first.edits)
    swapped = answer("unet", x, label, Condition.cat([second.cond, first.cond]), edits=first.edits)
    near = NEAR * float(joined.abs().max())
    for row, each in enumerate((first, second)):
        part = slice(row, row + 1)
        alone = answer("unet", x[part], label[part], each.cond, edits=each.edits)
        assert torch.allclose(joined[part], alone, rtol=0, atol=near)
        assert not torch.allclose(swapped[part], alone, rtol=0, atol=10 * near), "a row's own prompts matter"


def test_settings_that_are_none_are_refused() -> None:
    for make in (
        lambda: NAG(cap=0),
        lambda: NAG(blend=1.5),
        lambda: FreeU(skip=-1),
        lambda: FreeU(radius=float("nan")),
    ):
        with pytest.raises(UnnoiseError):
            make()
    with pytest.raises(UnnoiseError, match="second prompt"):
        NAG().asks({"cond": Condition()}, LEVEL)
    assert nag.NAG.name == "nag"  # type: ignore[attr-defined]
    assert freeu.FreeU.name == "freeu"  # type: ignore[attr-defined]
