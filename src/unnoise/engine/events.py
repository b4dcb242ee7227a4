"""What happens to a request while it is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image
from torch import Tensor

from unnoise.core.level import NoiseLevel
from unnoise.core.sample import Step
from unnoise.engine.request import Request
from unnoise.engine.start import Start
from unnoise.errors import UnnoiseError

if TYPE_CHECKING:
    from unnoise.engine.model import Model


class Admitted(NamedTuple):
    """A request has begun.

    Attributes:
        number: which of the requests, from 0 in the order in which they were handed over.
        request: the request, complete.
    """

    number: int
    request: Request


class Stepped(NamedTuple):
    """A step was taken. Its pictures are decoded when they are looked at; a step that is not looked at costs nothing.

    Attributes:
        number, request: as of ``Admitted``.
        index: of the step, from 0.
        num_steps: how many there are; those of all windows of a picture that grows.
        step: the core's record: states, estimates, and everything needed to go on from here.
        start: what the run started from; what its mask keeps is in ``picture`` and ``finished`` as it was.
        model: what decodes.
    """

    number: int
    request: Request
    index: int  # type: ignore[assignment]  # shadows tuple.index, which nobody calls
    num_steps: int
    step: Step
    start: Start | None
    model: Model

    @property
    def level(self) -> NoiseLevel:
        """The noise level before the step."""
        return self.step.here

    @property
    def read(self) -> Mapping[str, Mapping[str, Tensor]]:
        """{call: {site: value}} of what the request reads: by the names of guidance's calls, such as "cond"."""
        return {name: dict(part.parts or {}) for name, part in (self.step.estimate.parts or {}).items()}

    @property
    def picture(self) -> Image.Image:
        """The picture that the denoiser now predicts, decoded as previews are."""
        return self.model.decode(self.step.estimate.x0, self.start, preview=True)[0]

    @property
    def noisy(self) -> Image.Image:
        """The state before the step, decoded as it is, as previews are."""
        return self.model.decode(self.step.x, preview=True)[0]

    @property
    def finished(self) -> Image.Image:
        """The picture as it stands after the step."""
        return self.model.decode(self.step.run.x, self.start)[0]


class Finished(NamedTuple):
    """A picture is done.

    Attributes:
        number, request: as of ``Admitted``.
        picture: RGB.
        latents: (1, C, h, w) the state that it was decoded from; None for a picture that grew.
        row, batch: bits depend, by rounding, on what is computed together. The picture is that of row ``row`` of
            ``batch`` requests that differ in their seeds alone, one after the other; (0, 1) if it was drawn alone.
        shared: whether others that differ in more were drawn beside it: the same request alone is then equal within
            rounding.
    """

    number: int
    request: Request
    picture: Image.Image
    latents: Tensor | None
    row: int
    batch: int
    shared: bool


class Failed(NamedTuple):
    """A request cannot be drawn, or was cancelled. No other is touched.

    Attributes:
        number, request: as of ``Admitted``.
        error: why.
    """

    number: int
    request: Request
    error: UnnoiseError


class Cancelled(UnnoiseError):
    """Why a request that was cancelled has failed."""


Event = Admitted | Stepped | Finished | Failed
