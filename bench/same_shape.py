"""Our default U-Net and transformer built of diffusers' own modules, and how their weights are told apart from ours.

Residual blocks are ``ResnetBlock2D``, attentions ``Attention`` with its processor for torch's fused attention, the MLP
``FeedForward``, the halving ``PatchEmbed``, the level ``Timesteps`` and ``TimestepEmbedding``. Where diffusers has no
module of the kind, its own networks use torch's: norms, 1 x 1 convolutions, ``pixel_shuffle``. Its
``BasicTransformerBlock`` is the one that does not fit: under "ada_norm_single" it gates both branches, which ours does
not, and leaves out the norm before cross-attention, which ours has; so the block is composed here of the same parts,
without the gates. The transformer's is composed likewise, with them: under "ada_norm_zero" a block takes class labels.
"""

from __future__ import annotations

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import PatchEmbed, TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.networks.dit import DiT, DiTConfig
from unnoise.networks.unet import UNet, UNetConfig

EPS = torch.finfo(torch.float32).eps  # what torch's RMSNorm takes where none is given

NAMES = (  # of ours, of diffusers; replaced in this order
    ("time.0.", "time.linear_1."),
    ("time.2.", "time.linear_2."),
    ("shrink.", "patch.proj."),
    ("level.", "time_emb_proj."),
    ("self_attention.", "attn1."),
    ("cross_attention.", "attn2."),
    ("attention.", "attn2."),
    ("query_norm.", "norm_q."),
    ("key_norm.", "norm_k."),
    ("query.", "to_q."),
    ("key.", "to_k."),
    ("value.", "to_v."),
    ("out.", "to_out.0."),
    ("mlp.up.", "ff.net.0.proj."),
    ("mlp.down.", "ff.net.2."),
    ("constant", "scale_shift_table"),
    ("leave.0.", "norm_out."),
    ("leave.2.", "conv_out."),
)


def renamed(ours: nn.Module) -> dict[str, Tensor]:
    """The weights of ours under the names of diffusers' modules."""
    named = {}
    for name, tensor in ours.state_dict().items():
        for here, there in NAMES:
            head, found, tail = name.rpartition(here)
            if found and (not head or head.endswith(".")):
                name = head + there + tail
        named[name] = tensor
    return named


def hidden(mask: Tensor, x: Tensor) -> Tensor:
    """(B, 1, L) what is added to the logits of the prompt's tokens, as UNet2DConditionModel makes it."""
    return ((1 - mask.to(x.dtype)) * -10000.0).unsqueeze(1)


def attention(width: int, heads: int, context: int | None = None) -> Attention:
    """diffusers' attention with normed queries and keys."""
    return Attention(
        query_dim=width, heads=heads, dim_head=width // heads, cross_attention_dim=context, qk_norm="rms_norm", eps=EPS
    )


def residual(c: UNetConfig) -> ResnetBlock2D:
    """diffusers' residual block, told the level by scale and shift; ``e`` has been through its SiLU before."""
    return ResnetBlock2D(
        in_channels=c.channels,
        temb_channels=c.embedding,
        groups=8,
        eps=1e-5,
        time_embedding_norm="scale_shift",
        skip_time_act=True,
    )


class Cross(nn.Module):
    """A map of features looks at the prompt, as diffusers' ``Transformer2DModel`` goes to tokens and back."""

    def __init__(self, channels: int, text_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attn2 = attention(channels, max(1, channels // 64), text_width)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:  # (B, C, h, w)
        batch, channels, height, width = x.shape
        h = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)  # (B, h w, C)
        h = self.attn2(self.norm(h), encoder_hidden_states=text, attention_mask=mask)
        return x + h.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class Branches(nn.Module):
    """The parts of a transformer block that looks at itself and at a prompt."""

    def __init__(self, c: UNetConfig | DiTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.width, elementwise_affine=False)
        self.attn1 = attention(c.width, c.heads)
        self.norm2 = nn.LayerNorm(c.width)
        self.attn2 = attention(c.width, c.heads, c.text_width)
        self.norm3 = nn.LayerNorm(c.width, elementwise_affine=False)
        self.ff = FeedForward(c.width, activation_fn="gelu")


class Block(Branches):
    """A transformer block of diffusers' attentions and MLP, modulated as PixArt's."""

    def __init__(self, c: UNetConfig) -> None:
        super().__init__(c)
        self.scale_shift_table = nn.Parameter(torch.zeros(4 * c.width))

    def forward(self, x: Tensor, level: Tensor, text: Tensor, mask: Tensor) -> Tensor:  # (B, N, D)
        scale1, shift1, scale2, shift2 = (self.scale_shift_table[None, None] + level[:, None]).chunk(4, dim=2)
        x = self.attn1(self.norm1(x) * (1 + scale1) + shift1) + x
        x = self.attn2(self.norm2(x), encoder_hidden_states=text, attention_mask=mask) + x
        return self.ff(self.norm3(x) * (1 + scale2) + shift2) + x


class DiffusersUNet(nn.Module):
    """The same network of diffusers' modules; ``take`` copies the weights of ours."""

    def __init__(self, c: UNetConfig) -> None:
        super().__init__()
        self.label = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(256, c.embedding)
        self.pooled = nn.Linear(c.text_width, c.embedding)
        self.enter = nn.Conv2d(c.channels_in, c.channels, 3, padding=1)
        self.down = nn.ModuleList(residual(c) for _ in range(c.blocks))
        self.down_cross = Cross(c.channels, c.text_width)
        self.patch = PatchEmbed(c.size, c.size, 2, c.channels, c.width)
        self.patch.pos_embed = nn.Parameter(self.patch.pos_embed)  # ours is learnt
        self.time_emb_proj = nn.Linear(c.embedding, 4 * c.width)
        self.mid = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.grow = nn.Conv2d(c.width, 4 * c.channels, 1)
        self.join = nn.ModuleList(nn.Conv2d(2 * c.channels, c.channels, 1) for _ in range(c.blocks))
        self.up = nn.ModuleList(residual(c) for _ in range(c.blocks))
        self.up_cross = Cross(c.channels, c.text_width)
        self.norm_out = nn.GroupNorm(8, c.channels)
        self.conv_out = nn.Conv2d(c.channels, c.channels_in, 3, padding=1)

    def forward(self, x: Tensor, label: Tensor, text: Tensor, mask: Tensor, pooled: Tensor) -> Tensor:
        bias = hidden(mask, x)  # (B, 1, L)
        e = F.silu(self.time(self.label(label).to(x.dtype)) + self.pooled(pooled))  # (B, E)
        h = self.enter(x)  # (B, C, h, w)
        skips = []
        for block in self.down:
            h = block(h, e)
            skips.append(h)
        h = self.down_cross(h, text, bias)
        tokens = self.patch(h)  # (B, N, D)
        level = self.time_emb_proj(e)  # (B, 4 D)
        for block in self.mid:
            tokens = block(tokens, level, text, bias)
        side = h.shape[2] // 2
        low = tokens.reshape(len(h), side, side, -1).permute(0, 3, 1, 2)  # (B, D, h / 2, w / 2)
        h = h + F.pixel_shuffle(self.grow(low), 2)
        for join, block in zip(self.join, self.up, strict=True):
            h = block(join(torch.cat([h, skips.pop()], dim=1)), e)
        h = self.up_cross(h, text, bias)
        return self.conv_out(F.silu(self.norm_out(h)))  # (B, C, h, w)

    @torch.no_grad()
    def take(self, ours: UNet) -> DiffusersUNet:
        """The weights of ours, each under its name here; none is left over on either side."""
        named = renamed(ours)
        named["patch.pos_embed"] = named.pop("position")[None]
        self.load_state_dict(named)
        return self


class GatedBlock(Branches):
    """A transformer block of diffusers' attentions and MLP, gated as DiT's, with PixArt's look at the prompt."""

    def __init__(self, c: DiTConfig) -> None:
        super().__init__(c)
        self.modulation = nn.Linear(c.embedding, 6 * c.width)

    def forward(self, x: Tensor, e: Tensor, text: Tensor, mask: Tensor) -> Tensor:  # (B, N, D)
        scale1, shift1, gate1, scale3, shift3, gate3 = self.modulation(e)[:, None].chunk(6, dim=2)
        x = gate1 * self.attn1(self.norm1(x) * (1 + scale1) + shift1) + x
        x = self.attn2(self.norm2(x), encoder_hidden_states=text, attention_mask=mask) + x
        return gate3 * self.ff(self.norm3(x) * (1 + scale3) + shift3) + x


class DiffusersDiT(nn.Module):
    """The same transformer of diffusers' modules; ``take`` copies the weights of ours."""

    def __init__(self, c: DiTConfig) -> None:
        super().__init__()
        self.patch_size = c.patch
        self.label = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(256, c.embedding)
        self.pooled = nn.Linear(c.text_width, c.embedding)
        self.patch = PatchEmbed(c.size, c.size, c.patch, c.channels_in, c.width)
        self.blocks = nn.ModuleList(GatedBlock(c) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, elementwise_affine=False)
        self.modulation = nn.Linear(c.embedding, 2 * c.width)
        self.leave = nn.Linear(c.width, c.channels_in * c.patch**2)

    def forward(self, x: Tensor, label: Tensor, text: Tensor, mask: Tensor, pooled: Tensor) -> Tensor:
        bias = hidden(mask, x)  # (B, 1, L)
        e = F.silu(self.time(self.label(label).to(x.dtype)) + self.pooled(pooled))  # (B, E)
        tokens = self.patch(x)  # (B, N, D)
        for block in self.blocks:
            tokens = block(tokens, e, text, bias)
        scale, shift = self.modulation(e)[:, None].chunk(2, dim=2)  # (B, 1, D) each
        patches = self.leave(self.norm(tokens) * (1 + scale) + shift)  # (B, N, C p p)
        side = x.shape[2] // self.patch_size
        low = patches.reshape(len(x), side, side, -1).permute(0, 3, 1, 2)  # (B, C p p, h / p, w / p)
        return F.pixel_shuffle(low, self.patch_size)  # (B, C, h, w)

    @torch.no_grad()
    def take(self, ours: DiT) -> DiffusersDiT:
        """The weights of ours, each under its name here; none is left over on either side."""
        named = {name.replace("enter.", "patch.proj."): tensor for name, tensor in renamed(ours).items()}
        self.patch.pos_embed.copy_(named.pop("position")[None])  # fixed, and no part of diffusers' weights
        self.load_state_dict(named)
        return self
