"""The space that a state lives in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Space:
    """What a state looks like, without the batch.

    Attributes:
        channels: channels of the state.
        dims: spatial axes (2 for pictures).
        stride: pixels of the picture for each cell of the state, along one axis (1 in pixel space, 8 for latents).
    """

    channels: int
    dims: int = 2
    stride: int = 1

    def shape(self, size: int) -> tuple[int, ...]:
        """The state's shape for square pictures of `size` pixels.

        Raises:
            ValueError: the size is no multiple of the stride.
        """
        if size <= 0 or size % self.stride:
            raise ValueError(f"size {size} is no multiple of {self.stride}")
        return (self.channels, *[size // self.stride] * self.dims)

    def project(self, x: Tensor) -> Tensor:
        """The nearest state that is allowed; every state of a picture is, so this is the identity."""
        return x
