"""What a network predicts, as two coefficients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from unnoise.core.level import NoiseLevel, Scalar, over
from unnoise.errors import UnnoiseError


class Prediction(ABC):
    """Every common network output is ``a * x0 + b * eps``, with a and b that depend on the level alone.

    One 2 x 2 inversion then gives every conversion and every training target.

    Attributes:
        name: in the registry; what is not registered has none.
    """

    kind: ClassVar[str] = "predictions"
    name: ClassVar[str]

    @abstractmethod
    def target(self, level: NoiseLevel) -> tuple[Scalar, Scalar]:
        """(a, b) of the output at this level."""

    def scale_in(self, level: NoiseLevel) -> Scalar:
        """What the state is multiplied by before the network sees it."""
        return 1.0

    def encode(self, x0: Tensor, eps: Tensor, level: NoiseLevel) -> Tensor:
        """The output that a perfect network would give: the training target. Shapes as x0."""
        a, b = self.target(level)
        return over(a, x0) * x0 + over(b, x0) * eps

    def decode(self, output: Tensor, x: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """(x0, eps) from the network's output and the state x it was given.

        Raises:
            UnnoiseError: the output holds nothing that x does not (noise prediction where alpha is 0).
        """
        a, b = self.target(level)
        self.check(level)
        alpha, sigma = over(level.alpha, x), over(level.sigma, x)
        a, b = over(a, x), over(b, x)
        det = alpha * b - sigma * a
        return (b * x - sigma * output) / det, (alpha * output - a * x) / det

    def check(self, level: NoiseLevel) -> None:
        """Refuses a level at which x0 and eps cannot be told from the output. Tensors, as in training, are let by."""
        if isinstance(level.alpha, Tensor) or isinstance(level.sigma, Tensor):
            return
        a, b = self.target(level)
        if level.alpha * b - level.sigma * a == 0:
            name = getattr(self, "name", type(self).__name__)
            raise UnnoiseError(
                f"{name} prediction cannot be inverted at alpha = {level.alpha:g}, sigma = {level.sigma:g}",
                "choose another prediction (v, flow), or levels that stop short of it",
            )
