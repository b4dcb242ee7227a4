"""Tiny autoencoders: equal to diffusers', to the published branch with norms, and under every program's names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.autoencoders.taesd import TAESDConfig, TinyAutoencoder
from unnoise.errors import UnnoiseError
from unnoise.weights.jail import unpack
from unnoise.weights.keys import match, state_to_ours, state_to_theirs
from unnoise.weights.names import taesd

SHAPES = [
    TAESDConfig(width=8),
    TAESDConfig(latent_channels=16, width=12, encoder=(1, 2, 1, 2), decoder=(2, 1, 2, 1)),
    TAESDConfig(latent_channels=1, width=5, encoder=(0, 1, 3), decoder=(1, 0, 2)),
    TAESDConfig(latent_channels=3, width=16, encoder=(2, 2), decoder=(3, 3)),
    TAESDConfig(latent_channels=32, width=9, encoder=(1, 1, 1, 1, 1), decoder=(1, 1, 1, 1, 1)),
    TAESDConfig(latent_channels=7, width=4, encoder=(2,), decoder=(1,)),
]
HALVES = [
    TAESDConfig(),
    TAESDConfig(width=8, pooled=True),
    TAESDConfig(width=8, encoder=()),
    TAESDConfig(width=8, decoder=(), pooled=True),
    TAESDConfig(width=4, encoder=(), decoder=(2, 0, 1), pooled=True),
    TAESDConfig(width=4, encoder=(0, 2), decoder=(), latent_channels=9),
]


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with random weights, none of them zero, that keep values in range."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        size = 0.1 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        shift = 1.0 if name.endswith("pool.1.weight") else 0.0
        parameter.data = shift + size * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def far(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference over the largest absolute value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.slow  # importing diffusers takes longest
@pytest.mark.parametrize("config", SHAPES, ids=lambda c: f"{c.latent_channels} {c.width} {len(c.encoder)}")
@torch.no_grad()
def test_it_equals_that_of_diffusers(config: TAESDConfig) -> None:
    from diffusers import AutoencoderTiny

    theirs: Any = lively(AutoencoderTiny.from_config(taesd.to_config(config)))
    assert taesd.from_config(dict(theirs.config)) == config
    state = theirs.state_dict()
    assert taesd.from_shapes({name: tuple(t.shape) for name, t in state.items()}, "diffusers") == config
    ours = TinyAutoencoder(config).eval()
    ours.load_state_dict(state_to_ours(taesd.table(config, "diffusers"), state))
    stride = 2 ** (len(config.encoder) - 1)
    for batch, rows, columns in ((1, 1, 1), (2, 3, 5), (3, 8, 2)):
        x = torch.rand(batch, 3, rows * stride, columns * stride) * 2 - 1
        z = theirs.encode(x).latents
        assert far(ours.encode(x).mean, z) < 1e-5
        assert far(ours.decode(3 * z), theirs.decode(3 * z).sample) < 1e-5


def published(state: dict[str, Tensor], x: Tensor, decoder: bool) -> Tensor:
    """A half as its author's file is run: layers by number, what has no weights by its place."""
    x = torch.tanh(x / 3) * 3 if decoder else (x + 1) / 2
    for number in range(int(decoder), 1 + max(int(name.split(".")[0]) for name in state)):
        own = {name.partition(".")[2]: t for name, t in state.items() if name.startswith(f"{number}.")}
        if not own:
            x = x.relu() if number == 2 else F.interpolate(x, scale_factor=2)
        elif "weight" in own:
            shrinks = not decoder and "bias" not in own
            x = F.conv2d(x, own["weight"], own.get("bias"), padding=1, stride=2 if shrinks else 1)
        else:
            if "pool.0.weight" in own:
                h = F.group_norm(F.conv2d(x, own["pool.0.weight"]), 4, own["pool.1.weight"], own["pool.1.bias"])
                x = x + F.conv2d(h.relu(), own["pool.3.weight"])
            h = x
            for at in (0, 2, 4):
                h = F.conv2d(h if at == 0 else h.relu(), own[f"conv.{at}.weight"], own[f"conv.{at}.bias"], padding=1)
            x = (h + x).relu()
    return x * 2 - 1 if decoder else x


@pytest.mark.parametrize("config", [c for c in HALVES if not (c.encoder and c.decoder)], ids=str)
@torch.no_grad()
def test_a_half_is_run_as_published(config: TAESDConfig) -> None:
    ours: Any = lively(TinyAutoencoder(config))
    state = state_to_theirs(taesd.table(config, "taesd"), ours.state_dict())
    if config.decoder:
        z = 2 * torch.randn(2, config.latent_channels, 3, 4)
        assert far(ours.decode(z), published(state, z, True)) < 1e-5
        with pytest.raises(UnnoiseError, match="has a decoder alone"):
            ours.encode(torch.zeros(1, 3, 64, 64))
    else:
        x = torch.rand(2, 3, 48, 32) * 2 - 1
        assert far(ours.encode(x).mean, published(state, x, False)) < 1e-5
        with pytest.raises(UnnoiseError, match="has an encoder alone"):
            ours.decode(torch.zeros(1, config.latent_channels, 4, 4))


@torch.no_grad()
def test_the_branch_with_norms_matters() -> None:
    """The control: without it the outcome is another."""
    ours: Any = lively(TinyAutoencoder(HALVES[4]))
    state = state_to_theirs(taesd.table(HALVES[4], "taesd"), ours.state_dict())
    z = torch.randn(1, 4, 3, 4)
    state = {name: tensor for name, tensor in state.items() if ".pool." not in name}
    assert far(ours.decode(z), published(state, z, True)) > 1e-3


@pytest.mark.parametrize("config", HALVES, ids=str)
@pytest.mark.parametrize("layout", taesd.LAYOUTS)
def test_names_go_both_ways(config: TAESDConfig, layout: str) -> None:
    with torch.device("meta"):
        ours = {name: tuple(t.shape) for name, t in TinyAutoencoder(config).state_dict().items()}
    if layout == "taesd" and config.encoder and config.decoder:
        with pytest.raises(UnnoiseError, match="a file for each half"):
            taesd.table(config, layout)
        return
    rows = taesd.table(config, layout)
    assert sorted(name for row in rows for name in row.ours) == sorted(ours)
    theirs = {row.theirs: ours[row.ours[0]] for row in rows}
    assert len(theirs) == len(rows)
    assert all(taesd.tidied(name, layout) == name for name in theirs)
    assert taesd.from_shapes(theirs, layout) == config
    assert match(rows, theirs, taesd.IGNORED[layout]) == (rows, (), ())


def test_names_are_those_of_published_files() -> None:
    """The last and a middle layer of TAESD's halves in each program's files, as their own code names them."""
    decoder, encoder = replace(TAESDConfig(), encoder=()), replace(TAESDConfig(), decoder=())

    def theirs(config: TAESDConfig, layout: str) -> set[str]:
        return {row.theirs for row in taesd.table(config, layout)}

    assert {"1.bias", "7.weight", "18.conv.4.bias", "19.bias"} <= theirs(decoder, "taesd")
    assert not {"0.bias", "2.weight", "6.weight", "7.bias"} & theirs(decoder, "taesd")
    assert {"0.bias", "1.conv.0.weight", "2.weight", "14.bias"} <= theirs(encoder, "taesd")
    assert {"decoder.layers.0.bias", "decoder.layers.18.bias"} <= theirs(decoder, "diffusers")
    assert {"decoder.1.bias", "decoder.19.bias"} <= theirs(decoder, "sd.cpp")
    assert {"taesd_decoder.1.bias", "taesd_decoder.19.bias"} <= theirs(decoder, "comfyui")
    assert "taesd_encoder.14.bias" in theirs(encoder, "comfyui")
    assert len(theirs(decoder, "taesd")) == len(theirs(encoder, "taesd")) == 67
    assert taesd.tidied("decoder.layers.3.conv.0.bias", "sd.cpp") == "decoder.3.conv.0.bias"


@pytest.mark.parametrize(
    ("setting", "value", "meaning"),
    [
        ("act_fn", "gelu", "activation"),
        ("scaling_factor", 0.18215, "another scale"),
        ("upsample_fn", "bilinear", "another way to enlarge"),
        ("out_channels", 4, "something else than pictures"),
        ("decoder_block_out_channels", [64, 64, 64, 32], "levels of different widths"),
        ("num_encoder_blocks", "many", "encoder"),
        ("_class_name", "AutoencoderKL", "another autoencoder"),
    ],
)
def test_an_autoencoder_that_ours_is_not_is_refused(setting: str, value: Any, meaning: str) -> None:
    good = taesd.to_config(TAESDConfig())
    assert taesd.from_config(good) == taesd.from_config({}) == TAESDConfig()
    with pytest.raises(UnnoiseError, match=meaning):
        taesd.from_config(good | {setting: value})


def test_what_is_no_tiny_autoencoder_is_refused() -> None:
    with pytest.raises(UnnoiseError, match="neither half"):
        taesd.from_shapes({"x": (3,)}, "taesd")
    with pytest.raises(UnnoiseError, match=r"the last layer of decoder\. is missing"):
        taesd.from_shapes({"decoder.1.bias": (4,), "decoder.1.weight": (4, 4, 3, 3)}, "sd.cpp")
    with pytest.raises(UnnoiseError, match="different levels"):
        TinyAutoencoder(TAESDConfig(encoder=(1, 1), decoder=(1,)))
    with pytest.raises(UnnoiseError, match="no normed branch"):
        taesd.to_config(TAESDConfig(pooled=True))


@torch.no_grad()
def test_a_half_out_of_a_pickle(tmp_path: Path) -> None:
    """As people have it: torch.save of a half in float16, converted, recognised by its shapes, and run."""
    config = TAESDConfig(latent_channels=32, width=8, encoder=(), pooled=True)
    ours: Any = lively(TinyAutoencoder(config)).half()
    torch.save(state_to_theirs(taesd.table(config, "taesd"), ours.state_dict()), tmp_path / "decoder.pth")
    unpack(tmp_path / "decoder.pth", tmp_path / "decoder.safetensors")
    state = load_file(tmp_path / "decoder.safetensors")
    found = taesd.from_shapes({name: tuple(t.shape) for name, t in state.items()}, "taesd")
    assert found == config
    again = TinyAutoencoder(found)
    again.load_state_dict(state_to_ours(taesd.table(found, "taesd"), state))
    z = torch.randn(1, 32, 4, 4)
    assert torch.equal(again.decode(z), ours.float().decode(z))
