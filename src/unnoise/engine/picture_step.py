"""One step of a picture's run, as it is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from unnoise.core.level import NoiseLevel
from unnoise.core.sample import Step
from unnoise.engine.start import Start

if TYPE_CHECKING:
    from unnoise.engine.text_to_picture import Pipeline


class PictureStep(NamedTuple):
    """One step of a run, ready to look at.

    Attributes:
        index: its number, from 0.
        num_steps: how many there are.
        level: the noise level before it.
        step: the core's record: states, estimates, everything needed to restart here.
        pipeline: draws ``picture`` and ``noisy`` when they are asked for; a step that nobody looks at costs nothing.
        start: what the run started from; what its mask keeps is in ``picture`` and ``finished`` as it was.
    """

    index: int  # type: ignore[assignment]  # shadows tuple.index, which nobody calls
    num_steps: int
    level: NoiseLevel
    step: Step
    pipeline: Pipeline
    start: Start | None = None

    @property
    def picture(self) -> Image.Image:
        """The picture that the denoiser now predicts, for the first prompt."""
        return self.pipeline.decode(self.step.estimate.x0[:1], self.start)[0]

    @property
    def noisy(self) -> Image.Image:
        """The state before the step, decoded as it is."""
        return self.pipeline.decode(self.step.x[:1])[0]

    @property
    def finished(self) -> list[Image.Image]:
        """The pictures of all rows as they stand after this step."""
        return self.pipeline.decode(self.step.run.x, self.start)
