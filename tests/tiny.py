"""A whole model so small that everything can be tried on it: random weights, real parts."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from unnoise.autoencoders.kl import KLAutoencoder, KLConfig
from unnoise.core.denoiser import Denoiser
from unnoise.core.registry import find
from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.networks.unet import UNet, UNetConfig
from unnoise.weights.model import save_model

Module = TypeVar("Module", bound=nn.Module)

UNET = UNetConfig.tiny()
KL = KLConfig.tiny()
DEFAULTS = {"steps": 4, "solver": "euler", "spacing": "trailing", "cfg_scale": 2.0}


@cache
def tokenizer(length: int = 32) -> Tokenizer:
    return Tokenizer.train(["red apple", "blue heart", "a dog and a cat", "two red hearts"] * 4, 300, length)


@torch.no_grad()
def lively(module: Module, amount: float = 0.1) -> Module:
    """The module with noise on all its weights, so that nothing in it is zero and everything has a say."""
    noise = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.add_(amount * torch.randn(parameter.shape, generator=noise))
    return module.eval().requires_grad_(False)


def components() -> dict[str, nn.Module]:
    """The parts of a text-to-picture model, the same each time."""
    torch.manual_seed(0)
    words = tokenizer()
    text = CLIPText(replace(CLIPTextConfig.tiny(), vocabulary=words.vocabulary, length=words.length, end=words.end))
    denoiser = Denoiser(UNet(UNET), find("paths", "flow")(), find("predictions", "flow")())
    return {
        name: lively(part)
        for name, part in (("autoencoder", KLAutoencoder(KL)), ("text", text), ("denoiser", denoiser))
    }


def save(path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The model in a folder."""
    info = {"name": "tiny", "defaults": DEFAULTS}
    save_model(path, components(), info, {"tokenizer.json": tokenizer().json}, dtype)
    return path
