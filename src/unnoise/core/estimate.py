"""A denoiser's estimate: the picture and the noise that it believes the state is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise.core.level import NoiseLevel, over


class Estimate(NamedTuple):
    """The two halves of a state.

    Attributes:
        x0: E[data | state], shape of the state.
        eps: E[noise | state], shape of the state.
        fraction: for networks with learned variance, shape of the state: where between the logarithms of the two
            ancestral variances to step, 0 for the smaller and 1 for the larger; nothing keeps a network inside them.
        parts: the estimates that guidance combined, by name, and what was read from the network; for looking at.
    """

    x0: Tensor
    eps: Tensor
    fraction: Tensor | None = None
    parts: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, x: Tensor, x0: Tensor, level: NoiseLevel, parts: Mapping[str, Any] | None = None) -> Estimate:
        """The estimate whose x0 is given and whose eps follows from it: ``eps = (x - alpha x0) / sigma``.

        At sigma = 0 nothing is known of the noise, and eps is zero.
        """
        if not isinstance(level.sigma, Tensor) and level.sigma == 0:
            return cls(x0, torch.zeros_like(x0), None, parts)
        return cls(x0, (x - over(level.alpha, x) * x0) / over(level.sigma, x), None, parts)

    def rows(self, start: int, stop: int) -> Estimate:
        """The estimate of a part of the batch."""
        fraction = None if self.fraction is None else self.fraction[start:stop]
        parts = self.parts and {k: v[start:stop] if isinstance(v, Tensor) else v for k, v in self.parts.items()}
        return Estimate(self.x0[start:stop], self.eps[start:stop], fraction, parts)
