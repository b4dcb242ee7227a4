from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.registry import register


@dataclass(frozen=True)
class ImageConvConfig:
    """The shape of a small convolutional picture encoder.

    Attributes:
        stages: (channels, blocks) at 1/8 and 1/16 of the picture's size.
        width: of the picture's vector.
    """

    stages: tuple[tuple[int, int], ...] = ((128, 2), (192, 2))
    width: int = 256

    @classmethod
    def tiny(cls) -> ImageConvConfig:
        """The shape that tests use: as few numbers as have all parts."""
        return cls(((8, 1), (8, 1)), 32)


class ConvBlock(nn.Module):
    """Two 3 x 3 convolutions beside the identity, normed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w)
        h: Tensor = self.conv2(F.silu(self.conv1(self.norm(x))))  # (B, C, h, w)
        return x + h


@register("image-conv")
class ImageConv(nn.Module):
    """The picture's half of the contrastive pair: residual convolutions, then one vector a picture.

    Pictures of 128 pixels are folded 8 x 8 into channels first: what the pair must distinguish is visible at 1/8 scale.
    """

    Config = ImageConvConfig

    def __init__(self, config: ImageConvConfig | None = None) -> None:
        super().__init__()
        config = config or ImageConvConfig()
        self.config = config
        (c8, n8), (c16, n16) = config.stages
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(8),
            nn.Conv2d(192, c8, 1),
            *[ConvBlock(c8) for _ in range(n8)],
            nn.Conv2d(c8, c16, 2, stride=2),
            *[ConvBlock(c16) for _ in range(n16)],
            nn.GroupNorm(8, c16),
            nn.SiLU(),
        )
        # the layout matters (left, right, above): pooled to 4 x 4 and not to a point
        self.head = nn.Linear(16 * c16, config.width)
        self.edges = ("trunk.1.", "head.")

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) in [-1, 1]
        h = F.adaptive_avg_pool2d(self.trunk(x), 4)  # (B, C, 4, 4)
        vector: Tensor = self.head(h.flatten(1))  # (B, width)
        return vector
