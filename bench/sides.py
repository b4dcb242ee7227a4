"""The two sides of time_to_quality.py: our recipe as it ships, and diffusers' published one, each a step at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from harness import fastest
from published import Published, PublishedTraining, drawn, guided
from torch import Tensor, nn

from unnoise.core.denoiser import Denoiser
from unnoise.core.noise import NoiseSource
from unnoise.data.feeds import LatentFeed, trained
from unnoise.data.store import PictureSet
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.engine.engine import Engine, finished
from unnoise.engine.model import Model as Whole
from unnoise.files import discard
from unnoise.recipes.flow import FLOW_DEFAULTS
from unnoise.recipes.latent import encode_captions, encode_pictures
from unnoise.training import checkpoint
from unnoise.training.plan import Training
from unnoise.training.probe import fastest_dtype
from unnoise.training.settings import TrainSettings
from unnoise.training.trainer import Trainer

SETTINGS = {
    f"{kind}, {order}": (dtype, layout)
    for kind, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32))
    for order, layout in (("channels last", torch.channels_last), ("channels first", torch.contiguous_format))
}


class Model(NamedTuple):
    """What a side has learnt by now, with its averaged weights.

    Attributes:
        denoiser, text: in evaluation mode.
        draw: latents (N, C, h, w) of so many prompts, each with its seed.
    """

    denoiser: Denoiser
    text: nn.Module
    draw: Callable[[Sequence[str], Sequence[int]], Tensor]


class Side(Protocol):
    """A training that can be told the time, stopped and looked at.

    Attributes:
        setting: what it computes in; found by trying unless it was given.
        steps: those of its optimiser so far.
    """

    setting: str

    @property
    def steps(self) -> int: ...

    def step(self, spent: float) -> float: ...

    def model(self) -> Model: ...

    def save(self, folder: Path) -> str: ...

    def load(self, folder: Path, name: str) -> None: ...


def planned(settings: TrainSettings, samples: int, spent: float, seconds: float) -> TrainSettings:
    """The settings with the length that so many seconds come to, at the pace so far.

    The schedule of our recipe counts samples, and ends with a cool-down; how many samples fit into the time is not
    known before. Until the cool-down begins a training's length changes nothing of its past, so that it is set anew at
    every step until then, and kept from there on.
    """
    if not samples or spent >= seconds * (1 - settings.cooldown):
        return settings
    return replace(settings, samples=max(samples + 1, round(samples * seconds / spent)))


class Ours:
    """A recipe of ours through the project's own trainer.

    Args:
        training: what the recipe made.
        seconds: how long it will train, for its schedule.
        folder: where its states go.
        setting: the dtype that it computes in.
    """

    def __init__(self, training: Training, seconds: float, folder: Path, setting: str = "") -> None:
        self.training, self.seconds = training, seconds
        cpu = torch.device("cpu")
        dtype = fastest_dtype(cpu, setting or "auto")
        self.setting = str(dtype).removeprefix("torch.")
        self.trainer = Trainer(
            training.objective, training.data, training.settings, folder, cpu, dtype, training.identity
        )

    @property
    def steps(self) -> int:
        return self.trainer.step

    def step(self, spent: float) -> float:
        """One optimiser step, after ``spent`` seconds of them; returns its loss."""
        self.trainer.settings = planned(self.trainer.settings, self.trainer.samples, spent, self.seconds)
        done = next(self.trainer.run(self.trainer.samples + 1))
        return float(done.losses["denoising"].total)

    def model(self) -> Model:
        with self.trainer.averaged() as modules:
            parts: dict[str, Any] = copy.deepcopy(self.training.finish(modules))
        tokenizer = Tokenizer(self.training.texts["tokenizer.json"], parts["text"].config.length)
        engine = Engine(Whole(parts, {"text": tokenizer}, self.training.info))

        def draw(prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
            requests = [engine.request(prompt, seed=seed) for prompt, seed in zip(prompts, seeds, strict=True)]
            return torch.cat([each.latents for each in finished(engine.draw(requests)) if each.latents is not None])

        return Model(engine.model.denoiser, engine.model.tower.network, draw)

    def save(self, folder: Path) -> str:
        """Writes a checkpoint of the trainer's; returns its name. One of a run that was killed before it had taken note
        of it goes: that run may have planned another length."""
        again = folder / f"step-{self.steps:08d}"
        if again.exists():
            discard(again)
        return self.trainer.save().name

    def load(self, folder: Path, name: str) -> None:
        manifest = checkpoint.verify(folder / name)
        length = int(manifest["identity"]["settings"]["samples"])
        self.trainer.load(folder / name)
        self.trainer.settings = replace(self.trainer.settings, samples=length)


class Theirs:
    """The published training on the latents, captions, batch and first weights of a recipe of ours.

    Args:
        training: what our recipe made; its network is copied and not trained.
        pictures: the set.
        given: the engine whose autoencoder and text tower both sides begin with; here both stay as they are.
        rate: the learning rate.
        setting: of ``SETTINGS``; the dtype and memory format that it computes in.
    """

    def __init__(self, training: Training, pictures: PictureSet, given: Engine, rate: float, setting: str = "") -> None:
        self.given, objective, ours = given.model, training.objective, training.settings
        text, tokenizer = self.given.tower
        items, latents = trained(pictures, "denoiser"), encode_pictures(self.given.autoencoder, pictures)
        captions = encode_captions(text, pictures, items, tokenizer)
        feed = LatentFeed(pictures, items, tokenizer, latents["mean"], latents["std"], captions)
        chosen = Published(rate, train_batch_size=ours.batch, seed=ours.seed)

        def begun(name: str) -> PublishedTraining:
            first, drop = objective.denoiser.network, objective.drop  # type: ignore[union-attr]
            return PublishedTraining(first, feed, chosen, drop, *SETTINGS[name])  # type: ignore[arg-type]

        self.setting = setting or fastest({name: begun(name).step for name in SETTINGS}, 10.0)
        self.training = begun(self.setting)

    @property
    def steps(self) -> int:
        return self.training.steps

    def step(self, spent: float) -> float:
        """One optimiser step; the published schedule does not know the time."""
        return self.training.step()

    def model(self) -> Model:
        denoiser, chosen = self.training.averaged(), FLOW_DEFAULTS  # how the recipe's models draw
        shape = self.given.space.shape(self.given.size)

        @torch.inference_mode()
        def draw(prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
            says = guided(denoiser, self.given.encode(prompts), self.given.encode([""]), chosen["cfg_scale"])
            return drawn(says, NoiseSource(seeds, shape).initial(), chosen["steps"])

        return Model(denoiser, self.given.tower.network, draw)

    def save(self, folder: Path) -> str:
        return self.training.save(folder)

    def load(self, folder: Path, name: str) -> None:
        self.training.load(folder, name)
