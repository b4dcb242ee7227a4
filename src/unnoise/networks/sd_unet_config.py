"""The shape of Stable Diffusion's U-Net, without torch: what is read of a file before its weights are."""

from __future__ import annotations

from dataclasses import dataclass

NUMBER = 256  # width of the sinusoid of each of a condition's numbers


@dataclass(frozen=True)
class SDUNetConfig:
    """The shape of a Stable Diffusion U-Net; what stands here is that of version 1.

    Attributes:
        channels_in: of what enters: the state's, and those of the condition's ``concat`` behind them.
        channels_out: of the state.
        size: of the states it is trained on, along one axis, in cells.
        channels: of each level, that of full size first; each level is half as large as the one before.
        blocks: residual blocks of a level on the way down; one more on the way up.
        depth: of the transformer behind each residual block, by level; 0 for none.
        middle: depth of the transformer in the middle.
        heads: of the attentions, by level; the middle has as many as the last level.
        text_width: of the prompt's token vectors; 0 for a network that takes no prompt.
        added_width: of a vector that joins the level: the pooled prompt, then 256 numbers for each of the condition's
            ``numbers``; 0 for none.
        guidance_width: of the sinusoid of the condition's ``scale``; 0 for a network that takes none.
        linear: whether files keep the two projections around a transformer as linear layers, or as convolutions of
            1 x 1. The arithmetic is the same.
        groups: of channels, that are normed together.
    """

    channels_in: int = 4
    channels_out: int = 4
    size: int = 64
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    blocks: int = 2
    depth: tuple[int, ...] = (1, 1, 1, 0)
    middle: int = 1
    heads: tuple[int, ...] = (8, 8, 8, 8)
    text_width: int = 768
    added_width: int = 0
    guidance_width: int = 0
    linear: bool = False
    groups: int = 32

    @classmethod
    def tiny(cls) -> SDUNetConfig:
        """The shape that tests use: as few numbers as have all parts."""
        return cls(
            size=8,
            channels=(8, 16),
            blocks=1,
            depth=(1, 0),
            heads=(2, 2),
            text_width=32,
            added_width=32 + 2 * NUMBER,
            guidance_width=8,
            groups=4,
        )
