"""What can be set of every training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from unnoise.core import checks
from unnoise.errors import UnnoiseError

WIDEST = 0.28  # relative widths of averages lie below it
LONGEST = 1e6  # minutes
RISE = 0.1  # part of a training by time over which its rate rises at most
# may be another when a training is resumed
LENIENT = ("samples", "minutes", "cooldown", "checkpoint_every", "preview_every", "watch_every", "keep")


@dataclass(frozen=True)
class TrainSettings:
    """How long, how fast and how carefully to train. Schedules count samples, or with ``minutes`` the time.

    Attributes:
        samples: training length in samples; the learning rate's cool-down ends here.
        batch: samples an optimiser step.
        micro_batch: samples computed at once; 0 means the whole batch. Divides the batch.
        rate: learning rate of AdamW, for vectors, embeddings and the layers at the edges.
        matrix_rate: learning rate of Muon, for hidden matrices and convolutions; 0 gives them to AdamW too.
        weight_decay: decoupled, of matrices alone.
        warmup: samples over which the rate rises from 0.
        cooldown: the last part of the training, in [0, 1], over which the rate falls linearly to a hundredth.
        clip: largest norm of AdamW's gradients.
        averages: relative widths of the running averages of weights (sigma_rel of arXiv 2312.02696), between 0 and
            0.28; the narrowest makes the model. None: the weights themselves make it.
        seed: 0 to 2^63 - 1, of data order, noise, times and dropout.
        checkpoint_every: samples between two checkpoints.
        preview_every: samples between two preview sheets; 0 for none.
        watch_every: samples between two looks at pictures kept back, where the set has any; 0 for none.
        keep: how many checkpoints are kept.
        minutes: training length in minutes of optimiser steps, in place of samples: the cool-down ends when they are
            over, and the rate has risen after a tenth of them at the latest; 0 for a length in samples.
    """

    samples: int
    batch: int = 64
    micro_batch: int = 0
    rate: float = 1e-3
    matrix_rate: float = 0.02
    weight_decay: float = 0.01
    warmup: int = 2000
    cooldown: float = 0.4
    clip: float = 1.0
    averages: tuple[float, ...] = (0.05, 0.10)
    seed: int = 0
    checkpoint_every: int = 10_000
    preview_every: int = 20_000
    watch_every: int = 5_000
    keep: int = 2
    minutes: float = 0.0

    def __post_init__(self) -> None:
        least = {"samples": 1, "batch": 1, "checkpoint_every": 1, "keep": 1, "micro_batch": 0, "preview_every": 0}
        least |= {"watch_every": 0, "warmup": 0}
        plain: dict[str, Any] = {name: checks.whole(name, getattr(self, name), low) for name, low in least.items()}
        for name in ("rate", "matrix_rate", "weight_decay"):
            plain[name] = checks.number(name, getattr(self, name), 0)
        plain["minutes"] = checks.number("minutes", self.minutes, 0, LONGEST)
        plain["cooldown"] = checks.number("cooldown", self.cooldown, 0, 1)
        plain["clip"] = checks.number("clip", self.clip, above=0, most=math.inf)
        widths = checks.several("averages", self.averages, partial(checks.number, above=0, below=WIDEST), 0, 64)
        plain |= {"averages": tuple(widths), "seed": checks.seed("seed", self.seed)}
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        if self.micro_batch and self.batch % self.micro_batch:
            raise UnnoiseError(
                f"a batch of {self.batch} does not divide into micro-batches of {self.micro_batch}",
                "choose a micro_batch that divides the batch",
            )

    def factor(self, samples: int, seconds: float = 0.0) -> float:
        """The learning rate's factor after so many samples and seconds: warm-up, constant, cool-down."""
        up = (samples + self.batch) / max(1, self.warmup)
        now, end = self._clock(samples, seconds)
        if self.minutes:
            up = max(up, now / (RISE * end))
        up = min(1.0, up)
        start = end * (1 - self.cooldown)
        if now <= start or self.cooldown == 0:
            return up
        rest = max(0.0, (end - now) / (end - start))
        return up * (0.01 + 0.99 * rest)

    def done(self, samples: int, seconds: float = 0.0) -> bool:
        """Whether a training is at its end after so many samples and seconds."""
        now, end = self._clock(samples, seconds)
        return now >= end

    def length(self) -> dict[str, float]:
        """How long a training is, by the name of what counts."""
        return {"minutes": self.minutes} if self.minutes else {"samples": self.samples}

    def _clock(self, samples: int, seconds: float) -> tuple[float, float]:
        """(now, the end) in what counts: seconds, or samples."""
        return (seconds, 60 * self.minutes) if self.minutes else (samples, self.samples)
