"""Trainings so small that they can be killed, broken and compared by the hundred: tiny pictures, tiny recipes."""

from __future__ import annotations

import hashlib
import inspect
import io
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image

import tiny
from unnoise.core.registry import find
from unnoise.data.write import Row, write_set
from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.recipes.latent import PREVIEW_PROMPTS
from unnoise.training import checkpoint
from unnoise.training.plan import Training
from unnoise.weights.model import save_model

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200)}
SHAPES = ("square", "bar", "post")
# nine pictures, four in a batch, two at once: epochs end inside a batch and inside a micro-batch
TRAIN = {
    "samples": 48,
    "batch": 4,
    "micro-batch": 2,
    "warmup": 8,
    "averages": 0.1,
    "checkpoint-every": 16,
    "preview-every": 0,
}
TINY = {  # what is typed for a setting of that name, of whatever network
    "channels": 8,
    "blocks": 1,
    "width": 16,
    "depth": 1,
    "heads": 2,
    "text-width": 32,
    "embedding": 16,
    "vocabulary": 300,
    "length": 24,
    "hidden": 32,
    "stages": "8 1 8 1",
    "encoder": "8 1 8 1",
    "decoder": "8 1 8 1 8 1",
}
PLAIN = {"crop": 16, "width": 16}  # settings of a recipe itself
OWN = {"folder": {"init": "none", "size": "tiny"}}  # where a recipe starts from something large by itself


def parameters(recipe: str) -> Mapping[str, inspect.Parameter]:
    """The settings of a recipe by name."""
    return inspect.signature(find("recipes", recipe)).parameters


def shape(recipe: str) -> dict[str, Any]:
    """Settings that make a recipe's networks tiny, read from its signature, so that a new recipe needs none here."""
    found: dict[str, Any] = {name: value for name, value in PLAIN.items() if name in parameters(recipe)}
    for name, parameter in parameters(recipe).items():
        if is_dataclass(parameter.default) and name != "train":
            words = [field.name.replace("_", "-") for field in fields(parameter.default)]
            found |= {f"{name}.{word}": TINY[word] for word in words if word in TINY}
    return found | OWN.get(recipe, {})


def picture_set(out: Path, kept: int = 0, captions: bool = True) -> Path:
    """Nine pictures of 128 pixels with two captions each, or none; one is kept from the autoencoder.

    Args:
        kept: how many more, of a lighter colour, are kept back from all.
    """
    rows = []
    for number, (colour, shape) in enumerate((c, s) for c in COLOURS for s in SHAPES):
        image = Image.new("RGB", (128, 128), "white")
        box = {"square": (32, 32, 96, 96), "bar": (8, 48, 120, 80), "post": (48, 8, 80, 120)}[shape]
        image.paste(COLOURS[colour], box)
        data = io.BytesIO()
        image.save(data, "PNG")
        pixels = hashlib.sha256(image.tobytes()).hexdigest()
        said = [f"{colour} {shape}", f"a {shape} that is {colour}"]
        tier = ("autoencoder", "validation") if number == 4 else ("train", "train")
        family = shape if colour == "red" else f"{colour} {shape}"
        rows.append(Row(f"p{number}", data.getvalue(), pixels, said if captions else [""], {}, family, number, *tier))
    for number in range(kept):
        image = Image.new("RGB", (128, 128), (250, 200 + 5 * number, 90))
        image.paste((90, 40 * number % 256, 160), (16 + 4 * number, 24, 100, 80 + 4 * number))
        data = io.BytesIO()
        image.save(data, "PNG")
        pixels = hashlib.sha256(image.tobytes()).hexdigest()
        said = [f"light {SHAPES[number % 3]}"] if captions else [""]
        rows.append(
            Row(f"k{number}", data.getvalue(), pixels, said, {}, f"k{number}", 9 + number, "tier1", "validation")
        )
    write_set(out, rows, {})
    return out


@cache
def words(length: int = 48) -> Tokenizer:
    return Tokenizer.train([*PREVIEW_PROMPTS] * 4, 300, length)


def encoders(out: Path) -> Path:
    """A model folder with an autoencoder and a text tower."""
    torch.manual_seed(0)
    text = CLIPText(CLIPTextConfig(300, 48, width=32, depth=1, heads=2, hidden=32, end=words().end))
    parts = {"autoencoder": tiny.components()["autoencoder"], "text": tiny.lively(text)}
    save_model(out, parts, {}, {"tokenizer.json": words().json}, torch.float32)
    return out


def options(recipe: str, world: Path, **train: Any) -> list[str]:
    """Command-line options of a tiny training by that recipe; ``train`` changes its length and rates."""
    chosen = {f"train.{name}": value for name, value in TRAIN.items()} | shape(recipe)
    chosen |= {f"train.{name.replace('_', '-')}": value for name, value in train.items()}
    chosen["data"] = world / "pictures"
    for name in ("text", "autoencoder"):
        if name in parameters(recipe) and not is_dataclass(parameters(recipe)[name].default):  # a model folder
            chosen[name] = world / "encoders"
    return [word for name, value in chosen.items() for word in (f"--{name}", *str(value).split())]


def command(recipe: str, world: Path, out: Path, *more: Any, **train: Any) -> list[Any]:
    """What is typed to begin that training in a folder."""
    return ["train", recipe, *options(recipe, world, **train), "--run.dtype", "float32", "--run.out", out, *more]


def build(recipe: str, world: Path, *more: str, **train: Any) -> Training:
    """The tiny training itself."""
    return tyro.cli(find("recipes", recipe), args=[*options(recipe, world, **train), *more])


def bits(folder: Path) -> dict[str, str]:
    """Everything in a run's newest checkpoint, by name: a hash of each tensor's bytes, and the counters."""
    manifest, files = checkpoint.read(checkpoint.checkpoints(folder / "checkpoints")[-1])
    found = {
        f"{file}: {name}": f"{t.dtype} {tuple(t.shape)} {hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest()}"
        for file, named in files.items()
        for name, t in named.items()
    }
    return found | {key: str(manifest[key]) for key in ("step", "samples", "skipped", "skipped_in_a_row")}
