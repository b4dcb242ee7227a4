"""Stable Diffusion's networks against diffusers' own classes, on random weights none of which is zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import diffusers
import pytest
import torch
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_text2img import (
    LatentConsistencyModelPipeline,
)
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.autoencoders import ldm
from unnoise.autoencoders.ldm import LDMAutoencoder, LDMConfig
from unnoise.core.condition import Condition
from unnoise.errors import UnnoiseError
from unnoise.networks import sd_blocks, sd_unet
from unnoise.networks.sd_unet import SDUNet, SDUNetConfig
from unnoise.weights.keys import to_ours
from unnoise.weights.names import ldm as ldm_names
from unnoise.weights.names import sd_unet as sd_unet_names

# Of the largest number of the reference's output: float32 rounds by 6e-8, and random weights, of which a hundred layers
# hand it on, make up to some 50 times as much of it. In float64 the two must be the same but for its own rounding.
CLOSE, SAME = 1e-5, 1e-11
STREAM = ("conv_in", "conv2", "proj_in", "to_out.0")  # what writes into a sum that norms read
GENTLE = ("to_q", "to_k", "ff.net.2", "proj_out")  # what else makes much of a rounding


@torch.no_grad()
def random(module: Any) -> Any:
    """Weights at random: biases, norms and what begins at zero as well. Sums that norms read begin with a variance of
    1e-2, so that a wrong epsilon in a norm shows."""
    noise = torch.Generator().manual_seed(3)
    for name, parameter in module.named_parameters():
        layer = name.rpartition(".")[0]
        size = 0.1 if layer.endswith(STREAM) else 0.5 if layer.endswith(GENTLE) else 1.0
        if parameter.ndim > 1:
            parameter.normal_(0, size / parameter[0].numel() ** 0.5, generator=noise)
        elif name.endswith("weight"):
            parameter.normal_(1, 0.3, generator=noise)
        else:
            parameter.normal_(0, 0.3 * size, generator=noise)
    return module.eval().requires_grad_(False)


def apart(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.01 * theirs.abs().max(), "says something everywhere"
    return float((ours - theirs).abs().max() / theirs.abs().max())


def take(ours: Any, theirs: nn.Module, names: Any) -> None:
    """Gives ours all weights of theirs, by the key table of its kind."""
    rest, weights = dict(theirs.state_dict()), {}
    for row in names.table(ours.config, "diffusers"):
        weights |= to_ours(row, rest.pop(row.theirs))
    assert not rest, sorted(rest)
    ours.load_state_dict(weights)


# the U-Net


def unet_of_theirs(c: SDUNetConfig) -> dict[str, Any]:
    """The config of diffusers' class for one of ours."""
    kinds = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in c.depth]
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": c.added_width,
    }
    return {
        "in_channels": c.channels_in,
        "out_channels": c.channels_out,
        "block_out_channels": c.channels,
        "layers_per_block": c.blocks,
        "down_block_types": kinds,
        "up_block_types": [kind.replace("Down", "Up") for kind in reversed(kinds)],
        "transformer_layers_per_block": [*c.depth[:-1], c.middle],
        "attention_head_dim": c.heads,  # a number of heads, whatever it is called
        "cross_attention_dim": c.text_width,
        "use_linear_projection": c.linear,
        "time_cond_proj_dim": c.guidance_width or None,
        "norm_num_groups": c.groups,
        **(added if c.added_width else {}),
    }


class Case(NamedTuple):
    """A shape, and what it is called with: rows, columns, pictures, tokens, whether some of them are masked."""

    config: SDUNetConfig
    cells: tuple[int, int] = (8, 8)
    rows: int = 2
    tokens: int = 7
    masked: bool = False


SD1 = SDUNetConfig(
    size=8, channels=(8, 16, 24, 24), blocks=1, depth=(1, 1, 1, 0), heads=(2, 2, 2, 2), text_width=12, groups=2
)
SD2 = replace(SD1, heads=(1, 2, 3, 3), linear=True, text_width=20)
XL = SDUNetConfig(
    size=8,
    channels=(8, 16, 32),
    blocks=2,
    depth=(0, 2, 3),
    middle=3,
    heads=(1, 2, 4),
    text_width=20,
    added_width=12 + 6 * 256,
    linear=True,
    groups=2,
)
REFINER = replace(
    SD1, channels=(12, 24, 48, 48), depth=(0, 2, 2, 0), middle=2, heads=(1, 2, 4, 4), added_width=20 + 5 * 256
)
CASES = {
    "sd1": Case(SD1),
    "sd1, odd": Case(replace(SD1, blocks=2), (9, 7), 3, 77),
    "sd1, one cell": Case(replace(SD1, groups=4), (1, 1), 1, 1),
    "sd1, a strip": Case(SD1, (3, 17), 1, 154),
    "sd1, masked": Case(replace(SD1, text_width=5), (5, 6), 3, 154, True),
    "sd1, other levels": Case(replace(SD1, channels=(16, 24), depth=(0, 1), heads=(4, 3)), (7, 9), 1, 3),
    "sd1, uneven": Case(replace(SD1, channels=(8, 12, 20, 28), heads=(1, 3, 5, 7), blocks=3), (11, 13), 2, 9, True),
    "sd2": Case(SD2, (9, 7), 2, 77),
    "sd2, two blocks": Case(replace(SD2, blocks=2), (16, 8), 1, 20),
    "sd2, masked": Case(SD2, (13, 5), 4, 154, True),
    "sd2, deep": Case(replace(SD2, depth=(2, 1, 3, 0), middle=2), (6, 10), 2, 5),
    "sd2, three channels": Case(replace(SD2, channels_in=3, channels_out=3), (8, 9), 1, 77),
    "sdxl": Case(XL, (9, 7), 2, 77),
    "sdxl, even": Case(XL, (8, 12), 1, 154),
    "sdxl, masked": Case(replace(XL, blocks=1), (7, 5), 3, 20, True),
    "sdxl, one block": Case(replace(XL, blocks=1, depth=(0, 1, 2), middle=2), (15, 6), 2, 77),
    "sdxl, one number": Case(replace(XL, added_width=30 + 256), (2, 3), 2, 4),
    "refiner": Case(REFINER, (9, 7), 2, 77),
    "refiner, even": Case(replace(REFINER, blocks=2), (8, 16), 1, 154),
    "refiner, masked": Case(REFINER, (5, 3), 3, 11, True),
    "refiner, linear": Case(replace(REFINER, linear=True), (1, 9), 2, 77),
    "refiner, shallow": Case(replace(REFINER, depth=(0, 1, 1, 0), middle=1), (10, 10), 2, 77),
    "inpainting": Case(replace(SD1, channels_in=9), (9, 7), 2, 77),
    "inpainting, sd2": Case(replace(SD2, channels_in=9), (8, 8), 1, 154, True),
    "inpainting, sdxl": Case(replace(XL, channels_in=9), (5, 9), 2, 77),
    "inpainting, a picture beside": Case(replace(SD1, channels_in=8), (7, 7), 3, 5),
    "inpainting, depth": Case(replace(SD2, channels_in=5), (6, 5), 2, 77),
    "lcm": Case(replace(SD1, guidance_width=16), (9, 7), 3, 77),
    "lcm, wide": Case(replace(SD1, guidance_width=256), (8, 8), 1, 20),
    "lcm, sdxl": Case(replace(XL, guidance_width=32), (7, 9), 2, 77, True),
    "lcm, sd2": Case(replace(SD2, guidance_width=6), (4, 5), 2, 154),
    "lcm, inpainting": Case(replace(SD1, guidance_width=256, channels_in=9), (11, 4), 2, 77),
}
FAST = ("sd1, odd", "sd2, masked", "sdxl, masked", "refiner, masked", "inpainting", "lcm")


def called(case: Case) -> tuple[Tensor, Tensor, Condition]:
    """State, labels and condition of a case; row i has i tokens less, where some are masked."""
    c, noise = case.config, torch.Generator().manual_seed(1)
    pooled = c.added_width % 256 or 256
    count = (c.added_width - pooled) // 256

    def draw(*shape: int) -> Tensor:
        return torch.randn(case.rows, *shape, generator=noise)

    return (
        draw(c.channels_out, *case.cells),
        torch.linspace(981, 1.5, case.rows),
        Condition(
            tokens=draw(case.tokens, c.text_width),
            token_mask=torch.arange(case.tokens) < case.tokens - torch.arange(case.rows)[:, None]
            if case.masked
            else None,
            pooled=draw(pooled) if c.added_width else None,
            concat=draw(c.channels_in - c.channels_out, *case.cells) if c.channels_in > c.channels_out else None,
            numbers=(torch.rand(case.rows, count, generator=noise) * 1024).round() if c.added_width else None,
            scale=7.25 + torch.arange(case.rows) if c.guidance_width else None,
        ),
    )


def answer_of_theirs(theirs: Any, x: Tensor, label: Tensor, cond: Condition) -> Tensor:
    """What diffusers' network says when called as its pipelines call it."""
    waves = None
    if cond.scale is not None:
        width = theirs.config.time_cond_proj_dim
        counted = cond.scale - 1  # as the pipeline does
        waves = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, counted, width).to(x.dtype)
    found: Tensor = theirs(
        x if cond.concat is None else torch.cat([x, cond.concat], dim=1),
        label,
        cond.tokens,
        timestep_cond=waves,
        added_cond_kwargs={"text_embeds": cond.pooled, "time_ids": cond.numbers},
        encoder_attention_mask=cond.token_mask,
    ).sample
    return found


def parity(case: Case) -> tuple[float, float]:
    """How far ours and theirs are apart in float32, and in float64, by the largest number of theirs."""
    torch.manual_seed(0)
    theirs = random(diffusers.UNet2DConditionModel(**unet_of_theirs(case.config)))
    ours = SDUNet(case.config).eval().requires_grad_(False)
    take(ours, theirs, sd_unet_names)
    x, label, cond = called(case)
    single = apart(ours(x, label, cond)[0], answer_of_theirs(theirs, x, label, cond))
    ours, theirs, x, cond = ours.double(), theirs.double(), x.double(), cond.to(dtype=torch.float64)
    return single, apart(ours(x, label, cond)[0], answer_of_theirs(theirs, x, label, cond))


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in CASES])
def test_unet(name: str) -> None:
    single, double = parity(CASES[name])
    assert single < CLOSE
    assert double < SAME


def other(module: Any, **changes: Any) -> SimpleNamespace:
    """A module of torch with something else in it, for ours alone."""
    return SimpleNamespace(**{**vars(module), **changes})


def other_epsilon(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sd_blocks, "nn", other(nn, GroupNorm=lambda groups, width, eps=1e-5: nn.GroupNorm(groups, width)))


def gate_first(patch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        gate, value = self.up(x).chunk(2, dim=2)
        return self.down(value * F.gelu(gate))

    patch.setattr(sd_blocks.GatedMLP, "forward", forward)


def rough_gelu(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sd_blocks, "F", other(F, gelu=lambda x: F.gelu(x, approximate="tanh")))


def sines_first(patch: pytest.MonkeyPatch) -> None:
    waves = sd_unet.sinusoid
    patch.setattr(sd_unet, "sinusoid", lambda label, width: waves(label, width).roll(width // 2, 1))


def skips_first(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sd_unet, "torch", other(torch, cat=lambda parts, dim: torch.cat(list(parts)[::-1], dim)))


def smooth_growth(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sd_unet, "F", other(F, interpolate=lambda h, size: F.interpolate(h, size, mode="bilinear")))


def cosines_of_the_scale(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sd_unet, "guidance_waves", lambda w, width: sd_unet.sinusoid(1000 * w, width))


def one_more(patch: pytest.MonkeyPatch) -> None:
    waves = sd_unet.guidance_waves
    patch.setattr(sd_unet, "guidance_waves", lambda w, width: waves(w + 1, width))


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (other_epsilon, "sd1"),
        (gate_first, "sd1"),
        (rough_gelu, "sd1"),
        (sines_first, "sd1"),
        (skips_first, "sdxl, masked"),
        (smooth_growth, "sd1"),
        (cosines_of_the_scale, "lcm"),
        (one_more, "lcm"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_fault_of_the_unet_is_seen(
    fault: Callable[[pytest.MonkeyPatch], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]._replace(cells=(5, 3), rows=1, tokens=3, masked=False)
    fault(monkeypatch)
    assert parity(case)[1] > 1e5 * SAME


def test_what_the_network_reads_must_be_there() -> None:
    for name, lacking in (("sdxl", "pooled"), ("sdxl", "numbers"), ("lcm", "scale"), ("inpainting", "concat")):
        case = CASES[name]
        x, label, cond = called(case)
        network = SDUNet(case.config)
        for less in (replace(cond, **{lacking: None}), None):
            with pytest.raises(UnnoiseError, match=f"reads '({lacking}|pooled)' of its condition, which has none"):
                network(x, label, less)
    x, label, cond = called(CASES["sdxl"])
    assert cond.numbers is not None
    with pytest.raises(UnnoiseError, match="12 and 5 numbers of 256 make 1292, and the network reads 1548"):
        SDUNet(XL)(x, label, replace(cond, numbers=cond.numbers[:, 1:]))
    x, label, cond = called(CASES["inpainting"])
    assert cond.concat is not None
    with pytest.raises(UnnoiseError, match="reads 5 channels beside the state, and was given 4"):
        SDUNet(CASES["inpainting"].config)(x, label, replace(cond, concat=cond.concat[:, 1:]))
    with pytest.raises(ValueError, match="not of as many levels"):
        SDUNet(replace(SD1, depth=(1, 1)))


PUBLISHED = {
    "sd1": (SDUNetConfig(), 859_520_964),
    "sd1 inpainting": (SDUNetConfig(channels_in=9), 859_535_364),
    "sd1 lcm": (SDUNetConfig(guidance_width=256), 859_602_884),
    "sd2": (SDUNetConfig(text_width=1024, heads=(5, 10, 20, 20), linear=True), 865_910_724),
    "sdxl": (
        SDUNetConfig(
            size=128,
            channels=(320, 640, 1280),
            depth=(0, 2, 10),
            middle=10,
            heads=(5, 10, 20),
            text_width=2048,
            added_width=2816,
            linear=True,
        ),
        2_567_463_684,
    ),
    "sdxl refiner": (
        SDUNetConfig(
            size=128,
            channels=(384, 768, 1536, 1536),
            depth=(0, 4, 4, 0),
            middle=4,
            heads=(6, 12, 24, 24),
            text_width=1280,
            added_width=2560,
            linear=True,
        ),
        2_259_526_660,
    ),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "sd1" else pytest.mark.slow) for n in PUBLISHED])
def test_published_shapes(name: str) -> None:
    config, count = PUBLISHED[name]
    with torch.device("meta"):
        ours, theirs = SDUNet(config), diffusers.UNet2DConditionModel(**unet_of_theirs(config))
        assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == count
        take(ours, theirs, sd_unet_names)


# the autoencoder


class Pictures(NamedTuple):
    """A shape, and what it is called with: cells of the latent, pictures."""

    config: LDMConfig
    cells: tuple[int, int] = (9, 7)
    rows: int = 2


LDM = LDMConfig(channels=(8, 12, 16, 16), blocks=1, groups=4)
AUTOENCODERS = {
    "sd1": Pictures(LDM),
    "sd1, two blocks": Pictures(replace(LDM, blocks=2), (3, 4), 3),
    "sd1, one cell": Pictures(LDM, (1, 1), 1),
    "sdxl": Pictures(replace(LDM, scale=0.13025), (2, 5)),
    "sixteen channels": Pictures(replace(LDM, latent_channels=16, scale=0.3611, shift=0.1159, moments=False), (5, 3)),
    "two levels": Pictures(replace(LDM, channels=(12, 20), blocks=3), (7, 11), 1),
    "one level": Pictures(replace(LDM, channels=(16,), groups=8, latent_channels=3), (6, 9), 1),
}


def ldm_of_theirs(c: LDMConfig) -> dict[str, Any]:
    """The config of diffusers' class for one of ours."""
    levels = len(c.channels)
    return {
        "latent_channels": c.latent_channels,
        "block_out_channels": c.channels,
        "layers_per_block": c.blocks,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "norm_num_groups": c.groups,
        "scaling_factor": c.scale,
        "shift_factor": c.shift,
        "use_quant_conv": c.moments,
        "use_post_quant_conv": c.moments,
    }


def apart_both_ways(case: Pictures, dtype: torch.dtype = torch.float32) -> float:
    """How far ours and theirs are apart, encoding and decoding, by the largest number of theirs."""
    c, noise = case.config, torch.Generator().manual_seed(1)
    theirs = random(diffusers.AutoencoderKL(**ldm_of_theirs(c)))
    ours = LDMAutoencoder(c).eval().requires_grad_(False)
    take(ours, theirs, ldm_names)
    stride = ours.space.stride
    assert isinstance(stride, int)
    x = torch.rand(case.rows, 3, stride * case.cells[0], stride * case.cells[1], generator=noise) * 2 - 1
    z = torch.randn(case.rows, c.latent_channels, *case.cells, generator=noise)
    ours, theirs, x, z = ours.to(dtype), theirs.to(dtype), x.to(dtype), z.to(dtype)
    found, wanted = ours.encode(x), theirs.encode(x).latent_dist
    return max(
        apart(found.mean, (wanted.mean - c.shift) * c.scale),
        apart(found.std, wanted.std * c.scale),
        apart(ours.decode(z), theirs.decode(z / c.scale + c.shift).sample),
    )


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_autoencoder(name: str) -> None:
    assert apart_both_ways(AUTOENCODERS[name]) < CLOSE
    assert apart_both_ways(AUTOENCODERS[name], torch.float64) < SAME


def padded_all_round(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ldm, "F", other(F, pad=lambda h, by: F.pad(h, (1, 0, 1, 0))))


def epsilon_of_the_unet(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ldm, "norm", lambda channels, c: nn.GroupNorm(c.groups, channels))


def blind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ldm, "attend", lambda q, k, v: v)


@pytest.mark.parametrize("fault", [padded_all_round, epsilon_of_the_unet, blind], ids=lambda f: f.__name__)
def test_a_fault_of_the_autoencoder_is_seen(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert apart_both_ways(Pictures(LDM, (2, 2), 1), torch.float64) > 1e5 * SAME


def test_published_shape_of_the_autoencoder() -> None:
    with torch.device("meta"):
        ours, theirs = LDMAutoencoder(), diffusers.AutoencoderKL(**ldm_of_theirs(LDMConfig()))
        assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 83_653_863
        take(ours, theirs, ldm_names)
