"""How pictures are drawn: everything that may be chosen but the words and the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unnoise.core import checks
from unnoise.core.guidance import Guidance
from unnoise.core.notation import make
from unnoise.core.solver import Solver
from unnoise.guidances.cfg import CFG
from unnoise.guidances.plain import Plain

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
        weights: whether brackets in prompts weigh words, as ``engine.emphasis`` tells; else they are text.
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
        plain = {
            "solver": checks.text("solver", self.solver),
            "spacing": checks.text("spacing", self.spacing),
            "steps": checks.whole("steps", self.steps, 1, 10_000),
            "cfg_scale": checks.number("cfg_scale", self.cfg_scale, -100, 100),
            "noise": checks.choice("noise", self.noise, "independent", "brownian"),
            "weights": checks.flag("weights", self.weights),
            "rules": checks.whole("rules", self.rules, 1, RULES),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        self.method()
        make("spacings", self.spacing)
        self.steer()

    @property
    def scale(self) -> float | None:
        """The scale of CFG that pictures are drawn with, wherever it was given; None for a guidance that has none."""
        steer = self.steer()
        while (inner := getattr(steer, "inner", None)) is not None:
            steer = inner
        return 1.0 if isinstance(steer, Plain) else getattr(steer, "scale", None)

    def method(self) -> Solver:
        """The solver, made anew. By the first rules none was ``steady`` unless it was asked to be."""
        made: Solver = make("solvers", self.solver, {"steady": self.rules >= 2})
        return made

    def steer(self) -> Guidance:
        """The guidance, made anew."""
        if isinstance(self.guidance, Guidance):
            return self.guidance
        notation = checks.text("guidance", self.guidance, 'write it like "cfg(3)", or give a Guidance')
        made: Guidance = make("guidances", notation, {"scale": self.cfg_scale, "inner": CFG(self.cfg_scale)})
        return made
