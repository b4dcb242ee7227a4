"""What every network does: laws over the registry, each in the tiny shape that its config has for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tiny import lively
from unnoise.core import registry
from unnoise.core.condition import Condition
from unnoise.core.edit import Edit
from unnoise.core.registry import find, index
from unnoise.errors import UnnoiseError
from unnoise.networks.unet import UNet, UNetConfig

ROWS, WORDS, LENGTH = 3, 5, 12
# Of the largest number of an output, where the same sums are added in another order: a float32 sum rounds by 2^-24 of
# its terms' size, some 40 layers hand that on, and their roundings add up as a root: 4e-7, and a few times that at the
# worst of thousands of numbers. A fault is off by 1e-3 or more.
NEAR = 1e-5
EXTRA = ("added_width", "guidance_width")  # fields of configs of networks that read numbers, and a scale
TINY = 100_000  # weights, at most


class Call(NamedTuple):
    x: Tensor
    label: Tensor
    cond: Condition


def call(network: nn.Module, rows: int = ROWS, cells: tuple[int, int] | None = None) -> Call:
    """A call of a network, at its own size or another; row i's prompt has WORDS + i tokens, the others are masked.

    With numbers and a scale for networks that read them.
    """
    noise = torch.Generator().manual_seed(1)
    c: Any = network.config
    x = torch.randn(rows, c.channels_in, *(cells or (c.size, c.size)), generator=noise)
    tokens = torch.randn(rows, LENGTH, c.text_width, generator=noise)
    mask = torch.arange(LENGTH) < WORDS + torch.arange(rows)[:, None]
    pooled = torch.randn(rows, c.text_width, generator=noise)
    added, guided = (getattr(c, name, 0) for name in EXTRA)
    numbers = torch.rand(rows, (added - c.text_width) // 256, generator=noise) * 1024 if added else None
    scale = torch.linspace(1.5, 7.5, rows) if guided else None
    cond = Condition(tokens, mask, pooled, numbers=numbers, scale=scale)
    return Call(x, torch.linspace(100, 900, rows), cond)


@cache
def network(name: str) -> nn.Module:
    """The network in its tiny shape, with noise on all its weights."""
    torch.manual_seed(0)
    return lively(tiny(name))


def tiny(name: str) -> nn.Module:
    cls = find("networks", name)
    made: nn.Module = cls(cls.Config.tiny())
    return made


def answer(name: str, *args: Any, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        output: Tensor = network(name)(*args, **kwargs)[0]
    return output


@dataclass(frozen=True)
class Watching(Edit):
    """Changes nothing and notes which sites it passes."""

    seen: list[str] = field(default_factory=list, compare=False)

    def __call__(self, site: str, value: Tensor) -> Tensor:
        self.seen.append(site)
        return value


def sites(name: str) -> tuple[list[str], list[str]]:
    """(places of features, attention maps) of a network."""
    watch = Watching(("*",))
    answer(name, *call(network(name)), edits=(watch,))
    assert len(watch.seen) == len(set(watch.seen)), "each site is passed once"
    maps = [site for site in watch.seen if site.split(".")[-1] in ("self", "cross")]
    return [site for site in watch.seen if site not in maps], maps


def has_the_shape_of_its_input(name: str) -> None:
    for rows in (1, ROWS):
        x, label, cond = call(network(name), rows)
        output, features = network(name)(x, label, cond)
        assert output.shape == x.shape
        assert output.dtype == x.dtype
        assert features == {}


def begins_at_zero(name: str) -> None:
    fresh = tiny(name)
    assert not fresh(*call(fresh))[0].any()


def answers_rows_alone(name: str) -> None:
    """A row's answer does not depend on what else is in the batch."""
    x, label, cond = call(network(name))
    whole = answer(name, x, label, cond)
    for row in range(ROWS):
        part = slice(row, row + 1)
        alone = answer(name, x[part], label[part], cond.rows(part))
        assert torch.allclose(alone, whole[part], rtol=0, atol=NEAR * whole.abs().max())


def hears_everything(name: str) -> None:
    """State, level and all that it reads of a condition matter; what is masked does not."""
    x, label, cond = call(network(name))
    assert cond.tokens is not None
    assert cond.pooled is not None
    assert cond.token_mask is not None
    plain = answer(name, x, label, cond)
    others = {
        "state": (x + 0.1, label, cond),
        "level": (x, label + 50, cond),
        "tokens": (x, label, replace(cond, tokens=cond.tokens + 0.1)),
        "pooled": (x, label, replace(cond, pooled=cond.pooled + 0.1)),
    }
    if cond.numbers is not None:
        others["numbers"] = (x, label, replace(cond, numbers=cond.numbers + 50))
    if cond.scale is not None:
        others["scale"] = (x, label, replace(cond, scale=cond.scale + 0.5))
    for what, changed in others.items():
        assert (answer(name, *changed) - plain).abs().max() > 1e-4 * plain.abs().max(), what
    noise = torch.where(cond.token_mask[..., None], cond.tokens, 7.0)
    assert torch.equal(answer(name, x, label, replace(cond, tokens=noise)), plain)


def does_not_see_padding(name: str) -> None:
    """Columns that are masked in every row may be left out."""
    x, label, cond = call(network(name))
    assert cond.tokens is not None
    assert cond.token_mask is not None
    kept = WORDS + ROWS - 1
    short = replace(cond, tokens=cond.tokens[:, :kept], token_mask=cond.token_mask[:, :kept])
    whole = answer(name, x, label, cond)
    assert torch.allclose(answer(name, x, label, short), whole, rtol=0, atol=NEAR * whole.abs().max())


def fresh_edits_change_nothing(name: str) -> None:
    args = call(network(name))
    plain = answer(name, *args)
    places, maps = sites(name)
    assert places
    assert torch.equal(answer(name, *args, edits=(Edit(tuple(places)), Edit(tuple(places)))), plain)
    mapped = answer(name, *args, edits=(Edit(tuple(maps)),))  # maps are then computed in the open
    assert torch.allclose(mapped, plain, rtol=0, atol=NEAR * plain.abs().max())


def edits_act(name: str) -> None:
    """An edit at any site, attention maps too, reaches the output."""

    @dataclass(frozen=True)
    class Flip(Edit):
        def __call__(self, site: str, value: Tensor) -> Tensor:
            return value.flip(-1)

    args = call(network(name), 1)
    plain = answer(name, *args)
    places, maps = sites(name)
    assert maps
    for site in (*places, *maps):
        changed = answer(name, *args, edits=(Flip((site,)),))
        assert (changed - plain).abs().max() > 1e-6 * plain.abs().max(), site


def reads_change_nothing(name: str) -> None:
    """Reading returns every named site; maps sum to 1 and give masked tokens nothing."""
    args = call(network(name))
    places, maps = sites(name)
    plain = answer(name, *args)
    with torch.no_grad():
        output, features = network(name)(*args, read=(*places, *maps))
    assert features.keys() == {*places, *maps}
    assert torch.allclose(output, plain, rtol=0, atol=NEAR * plain.abs().max())
    assert maps
    for site in maps:
        seen = features[site]
        assert seen.ndim == 4, site
        assert torch.allclose(seen.sum(-1), torch.ones(()), atol=1e-5), site
        if site.endswith("cross"):
            assert args.cond.token_mask is not None
            masked = ~args.cond.token_mask[:, None, None, :].expand_as(seen)
            assert not seen[masked].any(), site
            assert seen[~masked].all(), site


def traces_whole(name: str) -> None:
    """One graph, no break."""
    args = call(network(name))
    compiled = torch.compile(network(name), fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.allclose(compiled(*args)[0], answer(name, *args), rtol=0, atol=1e-5)


def works_without_prompt(name: str) -> None:
    cls = find("networks", name)
    config = cls.Config.tiny()
    bare = lively(cls(replace(config, **dict.fromkeys(["text_width", *(n for n in EXTRA if hasattr(config, n))], 0))))
    x, label, cond = call(bare)
    output, _ = bare(x, label)
    assert output.shape == x.shape
    assert output.abs().max() > 0
    assert torch.equal(bare(x, label, cond)[0], output), "a condition that it cannot read is no fault"
    watch = Watching(("*",))
    bare(x, label, edits=(watch,))
    assert bare.sites() == tuple(watch.seen)


def lists_its_sites(name: str) -> None:
    """What it lists is what it passes, in that order; each can be read, and no other name can be read or edited."""
    net: Any = network(name)
    x, label, cond = call(net)
    watch = Watching(("*",))
    net(x, label, cond, edits=(watch,))
    assert net.sites() == tuple(watch.seen)
    for site in net.sites():
        assert net(x, label, cond, read=(site,))[1].keys() == {site}
    for mistake in ({"read": ("nowhere",)}, {"edits": (Edit(("nowhere.*",)),)}, {"read": (net.sites()[0] + ".",)}):
        with pytest.raises(UnnoiseError, match="has no site"):
            net(x, label, cond, **mistake)


def takes_any_size(name: str) -> None:
    """Larger, smaller and neither square nor of its own size; what does not go is refused with what does."""
    net: Any = network(name)
    m = net.multiple
    own = net.config.size
    for cells in ((own + 2 * m, own + 2 * m), (3 * m, own), (own, 5 * m)):
        x, label, cond = call(net, 2, cells)
        output = answer(name, x, label, cond)
        assert output.shape == x.shape
        assert torch.isfinite(output).all()
        alone = answer(name, x[1:], label[1:], cond.rows(slice(1, 2)))
        assert torch.allclose(alone, output[1:], rtol=0, atol=NEAR * output.abs().max())
        shifted = answer(name, x.roll(m, -1), label, cond)
        assert not torch.allclose(shifted.roll(-m, -1), output, atol=1e-3 * output.abs().max()), "places matter"
    if m > 1:
        for cells in ((own + 1, own), (own, own + 1)):
            with pytest.raises(UnnoiseError, match=f"is no multiple of {m}; give {own}"):
                net(*call(net, 1, cells))


def joins_prompts_of_other_lengths(name: str) -> None:
    """Conditions of unlike lengths, without masks, in one call: each row as alone."""
    x, label, cond = call(network(name))
    assert cond.tokens is not None
    alone = [
        replace(cond.rows(slice(row, row + 1)), tokens=cond.tokens[row : row + 1, : 4 + 3 * row], token_mask=None)
        for row in range(ROWS)
    ]
    joined = answer(name, x, label, Condition.cat(alone))
    for row, each in enumerate(alone):
        part = slice(row, row + 1)
        found = answer(name, x[part], label[part], each)
        assert torch.allclose(found, joined[part], rtol=0, atol=NEAR * joined.abs().max())


LAWS = [
    has_the_shape_of_its_input,
    begins_at_zero,
    answers_rows_alone,
    hears_everything,
    does_not_see_padding,
    fresh_edits_change_nothing,
    edits_act,
    reads_change_nothing,
    traces_whole,
    works_without_prompt,
    lists_its_sites,
    takes_any_size,
    joins_prompts_of_other_lengths,
]


class Huge(UNet):
    """In its default shape it would be of a thousand billion weights."""

    @dataclass(frozen=True)
    class Config(UNetConfig):
        width: int = 2**18
        heads: int = 2**12

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config or self.Config())


def test_laws_cost_a_large_network_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._LIVE, ("networks", "huge"), Huge)
    for law in (has_the_shape_of_its_input, begins_at_zero, works_without_prompt, lists_its_sites):
        law("huge")
    assert sum(p.numel() for p in network("huge").parameters()) < TINY
    with torch.device("meta"):
        assert sum(p.numel() for p in Huge().parameters()) > 1e12


@pytest.mark.parametrize("kind", ["networks", "autoencoders", "encoders"])
def test_all_have_a_tiny_shape(kind: str) -> None:
    for name in index(kind):
        cls = find(kind, name)
        assert sum(p.numel() for p in cls(cls.Config.tiny()).parameters()) < TINY, name


@pytest.mark.parametrize("name", index("networks"))
@pytest.mark.parametrize(
    "law",
    [pytest.param(law, id=law.__name__, marks=pytest.mark.slow if law is traces_whole else ()) for law in LAWS],
)
def test_network(law: Callable[[str], None], name: str) -> None:
    law(name)
