"""What turns pictures into smaller states and back."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from unnoise.core.space import Space


class Posterior(NamedTuple):
    """A Gaussian over latents: mean and standard deviation, (B, C, h, w) each."""

    mean: Tensor
    std: Tensor


class Autoencoder(nn.Module):
    """Encodes pictures (B, 3, H, W) in [-1, 1] into latents of about zero mean and unit variance, and back.

    H and W are any multiples of the space's stride.

    Attributes:
        space: of the latents.
        spread: whether its posteriors have a spread; if not they are points, with a standard deviation of 0.
        exact: whether it only rearranges numbers: its posteriors have no spread, and are cheaper computed than kept.
    """

    kind: ClassVar[str] = "autoencoders"
    spread: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    space: Space

    def check_size(self, x: Tensor) -> None:
        """Ensures that pictures (B, 3, H, W) are of a size that it takes.

        Raises:
            UnnoiseError: they are not; the nearest that it takes are named.
        """
        self.space.shape((x.shape[-1], x.shape[-2]))

    @abstractmethod
    def encode(self, x: Tensor) -> Posterior:
        """The latents of pictures in [-1, 1].

        Raises:
            UnnoiseError: their size is no multiple of the stride.
        """

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """(B, 3, H, W) pictures, about [-1, 1], from latents."""
