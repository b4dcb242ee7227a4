"""Guidance against the papers' formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from laws.guidances import CONDS, guide, world
from laws.world import draw, red
from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG
from unnoise.guidances.embedded import Embedded
from unnoise.guidances.interval import Interval
from unnoise.guidances.nag import NAG
from unnoise.guidances.rescale import Rescale

HERE = NoiseLevel(0.5, 0.5)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_cfg_is_the_published_line(scale: float) -> None:
    """u + scale (c - u) on x0 and on eps, which is one line: the halves still make the state."""
    x = draw(3, 3)
    c, u = world(1).estimate(x, HERE), world(0).estimate(x, HERE)
    e = guide(CFG(scale))(x, HERE)
    assert torch.allclose(e.x0, u.x0 + scale * (c.x0 - u.x0), rtol=0, atol=1e-14)
    assert torch.allclose(HERE.mix(e.x0, e.eps), x, rtol=0, atol=1e-12)
    assert len(CFG(scale).asks(CONDS, HERE)) == (2 if scale == 3 else 1)


def rescale_is_of_x0(kind: Callable[..., Guidance]) -> None:
    """Lin et al., equations 15 and 16, on the picture; on the noise the answer is another, so the choice is fixed."""
    x, amount = draw(3, 3), 0.7
    c, guided = world(1).estimate(x, HERE), guide(CFG(5.0))(x, HERE)
    e = guide(kind(CFG(5.0), amount))(x, HERE)
    ratio = c.x0.std(1, keepdim=True) / guided.x0.std(1, keepdim=True)
    assert torch.allclose(e.x0, amount * guided.x0 * ratio + (1 - amount) * guided.x0, rtol=0, atol=1e-12)
    assert torch.allclose(HERE.mix(e.x0, e.eps), x, rtol=0, atol=1e-12)
    full = guide(kind(CFG(5.0), 1.0))(x, HERE)
    assert torch.allclose(full.x0.std(1), c.x0.std(1), rtol=1e-9)


class RescaleOfTheNoise(Rescale):
    """The same formula on eps, as where it is applied to whatever a noise network says (diffusers)."""

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        guided, memory = self.inner.combine(parts, x, here, memory)
        ratio = parts["cond"].eps.std(1, keepdim=True) / guided.eps.std(1, keepdim=True)
        eps = guided.eps * (self.amount * ratio + 1 - self.amount)
        return Estimate((x - float(here.sigma) * eps) / float(here.alpha), eps), memory


def test_rescale_is_of_x0() -> None:
    rescale_is_of_x0(Rescale)
    red(rescale_is_of_x0, RescaleOfTheNoise)


@pytest.mark.parametrize("rows", [1, 3])
def test_embedded_tells_the_network_the_scale(rows: int) -> None:
    """One call with the prompt; other guidances wrap it, and NAG edits it as it does a plain call."""
    tokens, other = torch.ones(rows, 2, 4), torch.zeros(rows, 5, 4)
    conds = {"cond": Condition(tokens=tokens, pooled=tokens[:, 0]), "uncond": Condition(tokens=other)}
    for guidance in (Embedded(8.25), Rescale(Embedded(8.25), 0.7), NAG(Embedded(8.25)), Interval(Embedded(8.25))):
        asks = guidance.asks(conds, HERE)
        assert len(asks) == 1
        (ask,) = asks.values()
        assert ask.cond is not None
        assert ask.cond.scale is not None
        assert ask.cond.scale.tolist() == [8.25] * rows
        assert ask.cond.scale.dtype == torch.float32
        assert ask.cond.tokens is tokens
        assert bool(ask.edits) == isinstance(guidance, NAG)
    assert Embedded().asks({"cond": None}, HERE)["cond"].cond is not None
    assert conds["cond"].scale is None


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(UnnoiseError):
        Interval(CFG(), 2.0, 2.0)
