"""How pictures are drawn: everything that may be chosen but the words and the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unnoise.core.guidance import Guidance
from unnoise.core.notation import make
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG

RULES = 2  # the version of how a request becomes a picture; a record keeps the one that it was drawn by


@dataclass(frozen=True)
class Settings:
    """How pictures are drawn.

    Attributes:
        steps: solver steps, 1 to 10,000.
        solver, spacing: methods of the registry, as ``core.notation`` reads them: "heun", "ddim(eta=0.5)".
        cfg_scale: how hard to steer by the prompt: 0 ignores it, 1 is plain, too much fries the picture.
        guidance: how to steer, in the same notation or as an object; ``cfg_scale`` is the scale wherever none is given.
        noise: of solvers that draw it: anew for each step, or along one Brownian path, which more steps refine.
        weights: whether brackets in prompts weigh words, as ``pipelines.emphasis`` tells; else they are text.
        rules: the version of the drawing rules, 1 to ``RULES``; an older one draws as unnoise did then, for `replay`.
    """

    steps: int = 30
    solver: str = "dpmpp-2m"
    spacing: str = "trailing"
    cfg_scale: float = 3.0
    guidance: str | Guidance = "cfg"
    noise: Literal["independent", "brownian"] = "independent"
    weights: bool = False
    rules: int = RULES

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or not 1 <= self.steps <= 10_000:
            raise UnnoiseError(f"{self.steps} steps cannot be run", "ask for 1 to 10000 steps; 10 to 50 are usual")
        if not -100 <= self.cfg_scale <= 100:
            raise UnnoiseError(f"a guidance scale of {self.cfg_scale:g} draws nothing", "choose 1 to 10")
        if self.noise not in ("independent", "brownian"):
            raise UnnoiseError(f"no noise is called {self.noise!r}", "choose independent or brownian")
        make("solvers", self.solver)
        make("spacings", self.spacing)
        self.steer()

    def steer(self) -> Guidance:
        """The guidance, made anew."""
        if isinstance(self.guidance, Guidance):
            return self.guidance
        made: Guidance = make("guidances", self.guidance, {"scale": self.cfg_scale, "inner": CFG(self.cfg_scale)})
        return made
