from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Ask, Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel, Scalar, over
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.guidances.cfg import CFG

SHAPES: dict[str, Callable[[Scalar], Scalar]] = {  # of t, each of mean 1 over [0, 1]
    "linear": lambda t: 2 * (1 - t),
    "cosine": lambda t: 1 + (torch.cos(math.pi * t) if isinstance(t, Tensor) else math.cos(math.pi * t)),
    "inverse-linear": lambda t: 2 * t,
}


@register("ramp", "rising")
class Ramp(Guidance):
    """Guidance that changes its strength along the run, none at pure noise and twice as much at the end by default.

    Wang et al. 2024 (arXiv 2404.13040): strengths that rise toward the data do better than constant ones of the same
    mean. The inner guidance e is taken as a push on the conditional estimate c, ``c + r(t) (e - c)``: for CFG that is a
    scale of 1 + r (scale - 1).

    Args:
        inner: the guidance whose push is scaled.
        shape: "linear" r = 2 (1 - t), "cosine" r = 1 + cos(pi t), or "inverse-linear" r = 2 t.
        floor: least r, for the paper's clamped forms.
        path: the path whose time t is; the flow's, sigma / (alpha + sigma), where None.
    """

    def __init__(
        self, inner: Guidance | None = None, shape: str = "linear", floor: float = 0.0, path: Path | None = None
    ) -> None:
        self.inner = checks.instance("inner", CFG() if inner is None else inner, Guidance, "give one, such as CFG(3.0)")
        self.shape, self.floor = checks.choice("shape", shape, *SHAPES), checks.number("floor", floor)
        if path is not None:
            checks.instance("path", path, Path, "give one, such as VP(), or none")
        self.path = path

    def strength(self, here: NoiseLevel) -> Scalar:
        """r at this level, one for all rows."""
        t = self.path.time_of(here) if self.path else here.sigma / (here.alpha + here.sigma)
        return max(self.floor, SHAPES[self.shape](t))

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        plain = {"cond": Ask(conds["cond"])}
        return plain if self.strength(here) == 0 else {**self.inner.asks(conds, here), **plain}

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        r, c = self.strength(here), parts["cond"]
        if r == 0:
            return c, memory
        e, memory = self.inner.combine(parts, x, here, memory)
        r = over(r, x)
        return Estimate(c.x0 + r * (e.x0 - c.x0), c.eps + r * (e.eps - c.eps)), memory
