"""A term that pushes velocities apart."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.core.objective import Draws
from unnoise.core.prediction import Prediction
from unnoise.core.registry import register
from unnoise.errors import UnnoiseError


@register("contrast", "contrastive-flow", "delta-fm")
class Contrast:
    """Contrastive flow matching: |v - u|^2 - weight |v - u~|^2, with the velocity u~ of another sample and other noise.

    Stoica et al. 2025 (arXiv 2506.05350). It makes the flows of unlike prompts more unlike, and is biased by design:
    the best network is not E[u | x] but

        v = (E[u | x] - weight E[u~]) / (1 - weight)

    so that what is drawn with it is not the data's law. Where E[u~] is known, (1 - weight) v + weight E[u~] is the
    unbiased one again; the authors' code draws so under guidance.

    Args:
        weight: lambda, 0.05 in the paper; at 1 and above the loss has no least value.
    """

    kind: ClassVar[str] = "objectives"

    def __init__(self, weight: float = 0.05) -> None:
        self.weight = checks.number("contrast weight", weight, above=0, below=1)

    def check(self, prediction: Prediction) -> None:
        """Refuses a network whose output is no velocity of the flow.

        Raises:
            UnnoiseError: it predicts something else.
        """
        if prediction.target(NoiseLevel(0.6, 0.4)) != (-1.0, 1.0):
            raise UnnoiseError(
                f"contrastive flow matching pushes velocities apart, and the network predicts "
                f"{getattr(prediction, 'name', type(prediction).__name__)}",
                "leave the contrast out, or predict the velocity: flow",
            )

    def penalty(self, prediction: Prediction, output: Tensor, other: Tensor, level: NoiseLevel, draws: Draws) -> Tensor:
        """(B,) what is taken off each row's loss.

        Args:
            output: (B, C, ...) velocities that were predicted.
            other: (B, C, ...) data of other samples, drawn independently of the rows'.
        """
        eps = draws.normal("other eps", *other.shape[1:])
        error = (output - prediction.encode(other, eps, level)) ** 2
        return self.weight * error.mean(dim=tuple(range(1, error.ndim)))
