"""What every network does: laws over the registry, on default settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tiny import lively
from unnoise.core.condition import Condition
from unnoise.core.edit import Edit
from unnoise.core.registry import find, index

ROWS, WORDS, LENGTH = 3, 5, 12
# Of the largest number of an output, where the same sums are added in another order: a float32 sum rounds by 2^-24 of
# its terms' size, some 40 layers hand that on, and their roundings add up as a root: 4e-7, and a few times that at the
# worst of thousands of numbers. A fault is off by 1e-3 or more.
NEAR = 1e-5


class Call(NamedTuple):
    x: Tensor
    label: Tensor
    cond: Condition


def call(network: nn.Module, rows: int = ROWS) -> Call:
    """What a network of that shape is asked; row i's prompt has WORDS + i tokens, the others are masked."""
    noise = torch.Generator().manual_seed(1)
    c: Any = network.config
    x = torch.randn(rows, c.channels_in, c.size, c.size, generator=noise)
    tokens = torch.randn(rows, LENGTH, c.text_width, generator=noise)
    mask = torch.arange(LENGTH) < WORDS + torch.arange(rows)[:, None]
    pooled = torch.randn(rows, c.text_width, generator=noise)
    return Call(x, torch.linspace(100, 900, rows), Condition(tokens, mask, pooled))


@cache
def network(name: str) -> nn.Module:
    """The network in its default shape, with a say in everything."""
    torch.manual_seed(0)
    return lively(find("networks", name)())


def answer(name: str, *args: Any, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        output: Tensor = network(name)(*args, **kwargs)[0]
    return output


@dataclass(frozen=True)
class Watching(Edit):
    """Changes nothing and notes where it was asked."""

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
    fresh = find("networks", name)()
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
    """State, level, tokens and pooled vector all matter; what is masked does not."""
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
    asked = call(network(name))
    plain = answer(name, *asked)
    places, maps = sites(name)
    assert places
    assert torch.equal(answer(name, *asked, edits=(Edit(tuple(places)), Edit(tuple(places)))), plain)
    mapped = answer(name, *asked, edits=(Edit(tuple(maps)),))  # maps are then computed in the open
    assert torch.allclose(mapped, plain, rtol=0, atol=NEAR * plain.abs().max())


def edits_act(name: str) -> None:
    """An edit at any site, attention maps too, reaches the output."""

    @dataclass(frozen=True)
    class Flip(Edit):
        def __call__(self, site: str, value: Tensor) -> Tensor:
            return value.flip(-1)

    asked = call(network(name), 1)
    plain = answer(name, *asked)
    places, maps = sites(name)
    assert maps
    for site in (*places, *maps):
        changed = answer(name, *asked, edits=(Flip((site,)),))
        assert (changed - plain).abs().max() > 1e-6 * plain.abs().max(), site


def reads_change_nothing(name: str) -> None:
    """Reading brings what was asked for; maps sum to 1 and give masked tokens nothing."""
    asked = call(network(name))
    places, maps = sites(name)
    plain = answer(name, *asked)
    with torch.no_grad():
        output, features = network(name)(*asked, read=(*places, *maps))
    assert features.keys() == {*places, *maps}
    assert torch.allclose(output, plain, rtol=0, atol=NEAR * plain.abs().max())
    assert maps
    for site in maps:
        seen = features[site]
        assert seen.ndim == 4, site
        assert torch.allclose(seen.sum(-1), torch.ones(()), atol=1e-5), site
        if site.endswith("cross"):
            assert asked.cond.token_mask is not None
            masked = ~asked.cond.token_mask[:, None, None, :].expand_as(seen)
            assert not seen[masked].any(), site
            assert seen[~masked].all(), site


def traces_whole(name: str) -> None:
    """One graph, no break."""
    asked = call(network(name))
    compiled = torch.compile(network(name), fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.allclose(compiled(*asked)[0], answer(name, *asked), rtol=0, atol=1e-5)


def is_affordable(name: str) -> None:
    """At most 3 GFLOP for one row: a processor draws a picture in seconds."""
    x, label, cond = call(network(name), 1)
    with FlopCounterMode(display=False) as counter:
        answer(name, x, label, cond)
    assert 0 < counter.get_total_flops() <= 3e9, f"{counter.get_total_flops() / 1e9:.2f} GFLOP"


def works_without_prompt(name: str) -> None:
    cls = find("networks", name)
    bare = lively(cls(replace(cls.Config(), text_width=0)))
    x, label, cond = call(bare)
    output, _ = bare(x, label)
    assert output.shape == x.shape
    assert output.abs().max() > 0
    assert torch.equal(bare(x, label, cond)[0], output), "a condition that it cannot read is no fault"


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
    is_affordable,
    works_without_prompt,
]


@pytest.mark.parametrize("name", index("networks"))
@pytest.mark.parametrize(
    "law",
    [pytest.param(law, id=law.__name__, marks=pytest.mark.slow if law is traces_whole else ()) for law in LAWS],
)
def test_network(law: Callable[[str], None], name: str) -> None:
    law(name)
