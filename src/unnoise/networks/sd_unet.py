from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.condition import Condition
from unnoise.core.edit import Edit
from unnoise.core.registry import register
from unnoise.errors import UnnoiseError
from unnoise.networks.layers import Network, level_layers, required, sinusoid, zero
from unnoise.networks.sd_blocks import Middle, Residual, Stage, Transformer
from unnoise.networks.sd_unet_config import NUMBER, SDUNetConfig


def guidance_waves(w: Tensor, width: int) -> Tensor:
    """(B, width) sines and cosines of a guidance's w, which is its scale less 1. Luo et al. 2023 (arXiv 2310.04378).

    Angles of thousands in float32: another order of the same sums and products is another rounding of them.
    """
    half = width // 2
    rate = torch.full((), 10_000.0, device=w.device).log() / (half - 1)
    angles = (1000.0 * w.float())[:, None] * torch.exp(torch.arange(half, device=w.device) * -rate)  # (B, half)
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)  # (B, width)


@register("sd-unet")
class SDUNet(Network):
    """Stable Diffusion's U-Net, versions 1, 2 and XL: residual blocks and transformers at several scales, with skips.

    Rombach et al. 2022 (arXiv 2112.10752), section 3.3; Podell et al. 2023 (arXiv 2307.01952), section 2, for XL, whose
    pooled prompt and numbers join the level. Published weights fit under the key tables of ``weights.names.sd_unet``.
    Inpainting networks read a mask and the masked picture from the condition's ``concat``, latent consistency models
    (Luo et al. 2023, arXiv 2310.04378) the guidance from its ``scale``, where 1 is no guidance.

    Takes states of any size: maps of odd sizes shrink to half of the next even one, and grow to the size of their skip.

    Sites: ``down.0.residual.0``, ``mid.residual.0``, ``up.0.residual.0`` and on; ``down.0.attention.0.blocks.0``,
    ``mid.attention.blocks.0`` and on, with ``.self`` and ``.cross`` for attention maps and ``.query`` and ``.out``
    behind either; ``up.0.residual.0.backbone`` and ``.skip``, the two that the residual block joins.
    """

    Config = SDUNetConfig
    edges = ("enter.", "leave.", "time.", "guided.", "added.")

    def __init__(self, config: SDUNetConfig | None = None) -> None:
        super().__init__()
        config = config or SDUNetConfig()
        self.config = c = config
        if not len(c.channels) == len(c.depth) == len(c.heads):
            raise ValueError(f"channels {c.channels}, depth {c.depth} and heads {c.heads} are not of as many levels")
        first, last = c.channels[0], len(c.channels) - 1

        def residual(before: int, after: int) -> Residual:
            return Residual(before, after, 4 * first, c.groups)

        def transformer(level: int, depth: int) -> Transformer:
            return Transformer(c.channels[level], c.heads[level], depth, c.text_width, c.groups)

        def stage(level: int, before: Sequence[int]) -> Stage:  # the channels that enter each of its residual blocks
            depth = c.depth[level]
            return Stage(
                [residual(width, c.channels[level]) for width in before],
                [transformer(level, depth) for _ in before if depth],
            )

        self.time = level_layers(4 * first, first)
        if c.guidance_width:
            self.guided = nn.Linear(c.guidance_width, first, bias=False)
        if c.added_width:
            self.added = level_layers(4 * first, c.added_width)
        self.enter = nn.Conv2d(c.channels_in, first, 3, padding=1)
        self.down = nn.ModuleList()
        width, skips = first, [first]
        for level, after in enumerate(c.channels):
            self.down.append(stage(level, [width] + [after] * (c.blocks - 1)))
            width, skips = after, skips + [after] * c.blocks
            if level < last:
                self.down[level].shrink = nn.Conv2d(after, after, 3, stride=2, padding=1)
                skips.append(after)
        self.mid = Middle([residual(width, width) for _ in range(2)], transformer(last, c.middle) if c.middle else None)
        self.up = nn.ModuleList()
        for level, after in reversed(list(enumerate(c.channels))):
            before = [(after if number else width) + skips.pop() for number in range(c.blocks + 1)]
            self.up.insert(0, stage(level, before))
            width = after
            if level:
                self.up[0].grow = nn.Conv2d(after, after, 3, padding=1)
        self.leave = nn.Sequential()
        self.leave.norm = nn.GroupNorm(c.groups, first)
        self.leave.activation = nn.SiLU()
        self.leave.conv = nn.Conv2d(first, c.channels_out, 3, padding=1)
        zero(self.leave.conv)

    def sites(self) -> tuple[str, ...]:
        names: tuple[str, ...] = ()
        for level, stage in enumerate(self.down):
            for number in range(self.config.blocks):
                names += stage.sites(number, f"down.{level}")  # type: ignore[operator]
        names += self.mid.sites()
        for level in reversed(range(len(self.up))):
            for number in range(self.config.blocks + 1):
                joint = f"up.{level}.residual.{number}"
                names += (f"{joint}.backbone", f"{joint}.skip", *self.up[level].sites(number, f"up.{level}"))  # type: ignore[operator]
        return names

    def embed(self, noise_label: Tensor, cond: Condition | None, dtype: torch.dtype) -> Tensor:
        c = self.config
        waves = sinusoid(noise_label, c.channels[0]).to(dtype)  # (B, C)
        if c.guidance_width:
            scale = guidance_waves(required(cond, "scale") - 1, c.guidance_width)  # (B, guidance_width)
            waves = waves + self.guided(scale.to(dtype))
        e: Tensor = self.time(waves)  # (B, E)
        if c.added_width:
            pooled, numbers = required(cond, "pooled"), required(cond, "numbers")  # (B, D), (B, K)
            waves = sinusoid(numbers.flatten(), NUMBER).reshape(len(numbers), -1)  # (B, K 256)
            added = torch.cat([pooled, waves], dim=1)  # (B, added_width)
            if added.shape[1] != c.added_width:
                what = f"a pooled prompt of {pooled.shape[1]} and {numbers.shape[1]} numbers of {NUMBER} make"
                raise UnnoiseError(f"{what} {added.shape[1]}, and the network reads {c.added_width}")
            e = e + self.added(added.to(dtype))
        return e

    def entering(self, x: Tensor, cond: Condition | None) -> Tensor:
        """(B, channels_in, h, w): the state, and behind it the channels of the condition that the network reads.

        Raises:
            UnnoiseError: the condition has not as many.
        """
        beside = self.config.channels_in - self.config.channels_out
        if not beside:
            return x
        concat = required(cond, "concat")
        if concat.shape[1] != beside:
            raise UnnoiseError(f"the network reads {beside} channels beside the state, and was given {concat.shape[1]}")
        return torch.cat([x, concat.to(x.dtype)], dim=1)

    def forward(
        self,
        x: Tensor,
        noise_label: Tensor,
        cond: Condition | None = None,
        edits: Sequence[Edit] = (),
        read: Sequence[str] = (),
    ) -> tuple[Tensor, dict[str, Tensor]]:  # x (B, channels_out, h, w), noise_label (B,)
        e, prompt, inside = self.begin(x, noise_label, cond, edits, read)
        h = self.enter(self.entering(x, cond))  # (B, C, h, w)
        skips = [h]
        for level, stage in enumerate(self.down):
            for number in range(self.config.blocks):
                h = stage(number, h, e, prompt, inside, f"down.{level}")
                skips.append(h)
            if level < len(self.down) - 1:
                h = stage.shrink(h)  # type: ignore[operator]  # (B, C, ceil(h / 2), ceil(w / 2))
                skips.append(h)
        h = self.mid(h, e, prompt, inside)
        for level in reversed(range(len(self.up))):
            stage, site = self.up[level], f"up.{level}"
            for number in range(self.config.blocks + 1):
                joint = f"{site}.residual.{number}"
                backbone, skip = inside(f"{joint}.backbone", h), inside(f"{joint}.skip", skips.pop())
                h = stage(number, torch.cat([backbone, skip], dim=1), e, prompt, inside, site)
            if level:
                h = F.interpolate(h, skips[-1].shape[2:])  # (B, C, 2 h, 2 w), or one less
                h = stage.grow(h)  # type: ignore[operator]
        return self.leave(h), inside.features  # (B, channels_out, h, w)
