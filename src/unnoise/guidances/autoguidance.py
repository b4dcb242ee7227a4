from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Ask, Asks, Guidance, Parts
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import register


@register("autoguidance", "bad-version")
class AutoGuidance(Guidance):
    """Autoguidance: away from a weaker network's estimate for the same prompt, ``weak + scale (strong - weak)``.

    Karras et al. 2024 (arXiv 2406.02507). The weak network is smaller or less trained, on the same data;
    it need not share the path or the prediction of the run's own. Steers quality apart from the prompt.

    Args:
        scale: how hard to steer; 1 is the strong network alone and asks for no second call.
        network: the name of the weaker network; a model without one of that name refuses it.
    """

    def __init__(self, scale: float = 2.0, network: str = "weak") -> None:
        self.scale, self.network = checks.number("scale", scale), checks.text("network", network)

    def asks(self, conds: Mapping[str, Condition | None], here: NoiseLevel) -> Asks:
        strong = Ask(conds["cond"])
        return {"cond": strong} if self.scale == 1 else {"cond": strong, "weak": strong._replace(network=self.network)}

    def combine(self, parts: Parts, x: Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
        c = parts["cond"]
        if "weak" not in parts:
            return c, memory
        w = parts["weak"]
        return Estimate(w.x0 + self.scale * (c.x0 - w.x0), w.eps + self.scale * (c.eps - w.eps)), memory
