from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path
from unnoise.core.registry import register
from unnoise.core.spacing import Spacing
from unnoise.errors import UnnoiseError
from unnoise.spacings.shifted import Shifted
from unnoise.spacings.trailing import Trailing

RULES: dict[str, Callable[[float], float]] = {  # the shift for a picture of so many tokens
    "flux": lambda tokens: math.exp(0.5 + (tokens - 256) / (4096 - 256) * (1.15 - 0.5)),
    "sd3": lambda tokens: math.sqrt(tokens / 256),
}


@register("resolution-shifted", "dynamic-shift")
class ResolutionShifted(Spacing):
    """`shifted` by as much as the picture's size asks for: larger pictures need more noise to be hidden.

    "flux": the shift is e^mu with mu a line in the number of tokens, 0.5 at 256 and 1.15 at 4096 (Black Forest Labs
    2024, the flux repository's schedule). "sd3": the square root of how many times more tokens there are than 256, the
    uncertainty argument of Esser et al. 2024 (arXiv 2403.03206), equation 23; from it they chose 3 at 4096 by eye.

    Args:
        rule: "flux" or "sd3".
        patch: cells of the state to a token along one axis; 2 for both.
        inner: the spacing that is moved.
    """

    def __init__(self, rule: str = "flux", patch: int = 2, inner: Spacing | None = None) -> None:
        self.rule, self.patch = checks.choice("rule", rule, *RULES), checks.whole("patch", patch, 1)
        self.inner = checks.instance(
            "inner", Trailing() if inner is None else inner, Spacing, "give one, such as Trailing()"
        )

    def levels(self, path: Path, num_steps: int, shape: Sequence[int] | None = None) -> list[NoiseLevel]:
        if shape is None:
            raise UnnoiseError("a shift by resolution wants to know the state's shape", "give shape, or use `shifted`")
        shape = checks.several("shape", shape, partial(checks.whole, least=1))
        tokens = math.prod(shape[1:]) / self.patch ** len(shape[1:])
        return Shifted(RULES[self.rule](tokens), self.inner).levels(path, num_steps, shape)
