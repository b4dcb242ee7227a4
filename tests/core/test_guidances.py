"""Guidance against the papers' formulas."""

from __future__ import annotations

import pytest
import torch

from laws.guidances import CONDS, guide, world
from laws.world import draw
from unnoise.core.level import NoiseLevel
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG
from unnoise.guidances.interval import Interval
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


def test_rescale_is_of_x0() -> None:
    """Lin et al., equations 15 and 16, on the picture; on the noise the answer is another, so the choice is fixed."""
    x, amount = draw(3, 3), 0.7
    c, guided = world(1).estimate(x, HERE), guide(CFG(5.0))(x, HERE)
    e = guide(Rescale(CFG(5.0), amount))(x, HERE)
    ratio = c.x0.std(1, keepdim=True) / guided.x0.std(1, keepdim=True)
    assert torch.allclose(e.x0, amount * guided.x0 * ratio + (1 - amount) * guided.x0, rtol=0, atol=1e-12)
    assert torch.allclose(HERE.mix(e.x0, e.eps), x, rtol=0, atol=1e-12)
    on_noise = guided.eps * (amount * c.eps.std(1, keepdim=True) / guided.eps.std(1, keepdim=True) + 1 - amount)
    assert not torch.allclose(e.eps, on_noise, rtol=0, atol=1e-3)
    full = guide(Rescale(CFG(5.0), 1.0))(x, HERE)
    assert torch.allclose(full.x0.std(1), c.x0.std(1), rtol=1e-9)


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(UnnoiseError):
        Interval(CFG(), 2.0, 2.0)
