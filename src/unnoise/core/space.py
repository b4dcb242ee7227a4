"""The space that a state lives in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from unnoise.core import checks
from unnoise.errors import UnnoiseError

NAMES = ("width", "height", "frames")  # of the axes, the last of the state first


@dataclass(frozen=True)
class Space:
    """What a state looks like, without the batch.

    Sizes and strides are written width first, as people write 160x96; axes of a state come the other way round.

    Attributes:
        channels: channels of the state.
        dims: spatial axes (2 for pictures).
        stride: pixels for each cell of the state (1 in pixel space, 8 for latents): one number for all axes, or one for
            each, width first.
        media: what states are decoded to, such as "picture".
    """

    channels: int
    dims: int = 2
    stride: int | tuple[int, ...] = 1
    media: str = "picture"

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride along each axis, width first.

        Raises:
            ValueError: ``stride`` has another number of axes, or one that is not positive.
        """
        strides = (self.stride,) * self.dims if isinstance(self.stride, int) else tuple(self.stride)
        if len(strides) != self.dims or min(strides, default=1) < 1:
            raise ValueError(f"a stride of {self.stride} does not go with {self.dims} axes")
        return strides

    def shape(self, size: int | Sequence[int], multiple: int = 1) -> tuple[int, ...]:
        """The state's shape, (channels, ..., height, width), for media of that size.

        Args:
            size: in pixels: (width, height) of a picture, and so on width first; one number for the same along each
                axis.
            multiple: cells come in multiples of this along each axis, as a network requires.

        Raises:
            UnnoiseError: the size has another number of axes, or is no multiple of what a cell, or ``multiple`` of
                them, take; the nearest that go are named.
        """
        if isinstance(size, Sequence) and not isinstance(size, str):
            sizes = tuple(size)
        else:
            sizes = (size,) * self.dims
        if len(sizes) != self.dims:
            order = ", ".join((*NAMES, *("size",) * self.dims)[: self.dims])
            raise UnnoiseError(
                f"the size of a {self.media} has {self.dims} numbers, not {len(sizes)}", f"give one, or ({order})"
            )
        cells = [
            _cells(name, checks.whole(name, value, 1), stride, multiple)
            for name, value, stride in zip(_names(size, self.dims), sizes, self.strides, strict=True)
        ]
        return (self.channels, *reversed(cells))

    def project(self, x: Tensor) -> Tensor:
        """The nearest state that is allowed; every state of a picture is, so this is the identity."""
        return x


def _names(size: object, dims: int) -> tuple[str, ...]:
    """What errors call each axis."""
    named = isinstance(size, Sequence) and 1 < dims <= len(NAMES)
    return NAMES[:dims] if named else ("size",) * dims


def _cells(name: str, value: int, stride: int, multiple: int) -> int:
    unit = stride * multiple
    if value % unit:
        raise UnnoiseError(f"{name} {value} is no multiple of {unit}", f"choose {nearest(value, unit)}")
    return value // stride


def nearest(value: int, unit: int) -> str:
    """The multiples of a unit next to a number, in words: "96 or 104"; none is 0."""
    low = value // unit * unit
    return f"{low} or {low + unit}" if low else str(unit)
