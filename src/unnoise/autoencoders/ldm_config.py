"""The shape of an autoencoder of latent diffusion, without torch: what is read of a file before its weights are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LDMConfig:
    """The shape of an autoencoder of latent diffusion; what stands here is that of Stable Diffusion 1 and 2.

    Attributes:
        latent_channels: of the latent.
        channels: of each level, that of full size first; each level is half as large as the one before.
        blocks: residual blocks of a level of the encoder; one more in the decoder.
        scale, shift: a latent is (what the encoder says - shift) * scale.
        moments: whether a 1 x 1 convolution stands behind the encoder and one before the decoder.
        groups: of channels, that are normed together.
    """

    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    scale: float = 0.18215
    shift: float = 0.0
    moments: bool = True
    groups: int = 32

    @classmethod
    def tiny(cls) -> LDMConfig:
        """The shape that tests use: as few numbers as have all parts."""
        return cls(channels=(4, 8, 8, 8), blocks=1, shift=0.5, groups=2)
