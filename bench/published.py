"""The training of text-to-image models that diffusers publishes, on our latents: the peer of time_to_quality.py.

Followed is examples/text_to_image/train_text_to_image.py of huggingface/diffusers at commit 000280f56a, with the
command in the README beside it; ``Published`` names where each value comes from. The path, the optimiser, its schedule,
the average of weights and the solver are diffusers' and torch's own classes, called as the script calls them.

That script goes on with the training of Stable Diffusion. Here it begins, and what it takes for granted must come from
elsewhere; each choice favours it:

- the network is ours of diffusers' modules, and begins with the weights that ours begins with;
- prompts are dropped as often as in our recipe. The script drops none: its network knew the empty prompt already, and
  without one there is no guidance;
- pictures and prompts are encoded before the clock starts; the script encodes both at every step;
- the noise, the times and the order are pure functions of seed and step, so that a run that was stopped goes on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from same_shape import DiffusersUNet
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.objective import Draws
from unnoise.files import discard
from unnoise.networks.unet import UNet
from unnoise.paths.scaled_linear import ScaledLinear
from unnoise.predictions.noise import Noise
from unnoise.training.checkpoint import read, retain, write
from unnoise.training.data import Items
from unnoise.training.order import Order

KEEP = 2  # states on disk: the last, and the one before it, should the run stop before it has taken note of the last
PATH = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""The scheduler's configuration in the folder of CompVis/stable-diffusion-v1-4, the README's model."""


@dataclass(frozen=True)
class Published:
    """The script's settings, by its own names for them.

    Attributes:
        learning_rate: 1e-4 by default, 1e-5 in the README's command.
        lr_scheduler, lr_warmup_steps: defaults; diffusers' "constant" has no warm-up, whatever the second says.
        adam_beta1, adam_beta2, adam_weight_decay, adam_epsilon: defaults.
        max_grad_norm: default, and in the command.
        train_batch_size: 16 by default; here that of the recipe it is held against.
        seed: of everything that is drawn.
    """

    learning_rate: float = 1e-4
    lr_scheduler: str = "constant"
    lr_warmup_steps: int = 500
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 1e-2
    adam_epsilon: float = 1e-08
    max_grad_norm: float = 1.0
    train_batch_size: int = 16
    seed: int = 0


class Named(nn.Module):
    """diffusers' network under the call that ``Denoiser`` makes."""

    def __init__(self, unet: DiffusersUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, x: Tensor, noise_label: Tensor, cond: Condition, edits: Sequence[Any] = (), read: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:  # x (B, C, h, w), noise_label (B,)
        return self.unet(x, noise_label, cond.tokens, cond.token_mask, cond.pooled), {}  # (B, C, h, w)


def as_denoiser(network: nn.Module) -> Denoiser:
    """A network that says the noise at timestep 0 to 999 of Stable Diffusion's path, as a denoiser of ours."""
    return Denoiser(network, ScaledLinear(), Noise(), "index")


class PublishedTraining:
    """The script's loop, a step at a time.

    Args:
        first: a network of ours; diffusers' is made of its shape, and begins with its weights.
        data: gives "x0", "condition" and "empty", as ``LatentFeed`` with encoded captions does; every item is seen once
            an epoch, as the script's ``shuffle=True`` has it.
        settings: the script's.
        drop: part of the samples whose prompt is dropped.
        dtype: bfloat16 computes under autocast, as ``--mixed_precision=bf16`` does; weights stay float32.
        layout: memory format of the network and its input.

    Attributes:
        steps: optimiser steps so far.
    """

    def __init__(
        self,
        first: UNet,
        data: Items,
        settings: Published,
        drop: float = 0.1,
        dtype: torch.dtype = torch.float32,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.data, self.settings, self.drop, self.dtype, self.layout = data, settings, drop, dtype, layout
        unet = DiffusersUNet(first.config).take(first)
        self.unet = unet.to(memory_format=layout).train()  # type: ignore[call-overload]
        self.noise_scheduler: Any = DDPMScheduler(**PATH)  # type: ignore[no-untyped-call]
        s = settings
        self.optimizer = torch.optim.AdamW(
            self.unet.parameters(),
            lr=s.learning_rate,
            betas=(s.adam_beta1, s.adam_beta2),
            weight_decay=s.adam_weight_decay,
            eps=s.adam_epsilon,
        )
        self.lr_scheduler = get_scheduler(s.lr_scheduler, self.optimizer, num_warmup_steps=s.lr_warmup_steps)
        self.ema = EMAModel(self.unet.parameters())  # --use_ema of the command, with the class's own defaults
        self.order = Order(torch.ones(len(data.weights)), s.seed)
        self.steps = 0

    def step(self) -> float:
        """One optimiser step; returns its loss."""
        size = self.settings.train_batch_size
        draws = Draws(self.settings.seed, self.steps, size, slice(None))
        batch = self.data.batch(self.order(self.steps * size, size), draws)
        latents: Tensor = batch["x0"]
        noise = draws.normal("eps", *latents.shape[1:])
        timesteps = draws.integers("timesteps", self.noise_scheduler.config.num_train_timesteps)
        noisy = self.noise_scheduler.add_noise(latents, noise, timesteps)
        kept = draws.uniform("drop") >= self.drop
        c: Condition = batch["condition"].where(kept, batch["empty"].repeat(size))
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            said = self.unet(noisy.contiguous(memory_format=self.layout), timesteps, c.tokens, c.token_mask, c.pooled)
        loss = F.mse_loss(said.float(), noise.float(), reduction="mean")
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.unet.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.lr_scheduler.step()
        self.optimizer.zero_grad()
        self.ema.step(self.unet.parameters())
        self.steps += 1
        return float(loss.detach())

    def averaged(self) -> Denoiser:
        """A copy with the averaged weights, in evaluation mode."""
        unet = copy.deepcopy(self.unet)
        self.ema.copy_to(unet.parameters())
        return as_denoiser(Named(unet)).eval().requires_grad_(False)

    def save(self, folder: Path) -> str:
        """Writes all that the next step depends on; returns the checkpoint's name. Of older ones one is kept."""
        slots, averages = self.optimizer.state_dict()["state"], self.ema.state_dict()
        files = {
            "unet": self.unet.state_dict(),
            "optimizer": {f"{i}.{slot}": value for i, state in slots.items() for slot, value in state.items()},
            "ema": {str(i): value for i, value in enumerate(averages.pop("shadow_params"))},
        }
        scheduler = {key: value for key, value in self.lr_scheduler.state_dict().items() if key != "lr_lambdas"}
        again = folder / f"step-{self.steps:08d}"
        if again.exists():  # of a run that was stopped before it took note of it
            discard(again)
        path = write(folder, self.steps, {"lr_scheduler": scheduler, "ema": averages}, files)
        retain(folder, KEEP, path)
        return path.name

    def load(self, folder: Path, name: str) -> None:
        """Goes on from what ``save`` wrote under that name."""
        manifest, files = read(folder / name)
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in files["optimizer"].items():
            number, slot = key.split(".")
            slots.setdefault(int(number), {})[slot] = value
        self.unet.load_state_dict(files["unet"])
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": slots})
        self.lr_scheduler.load_state_dict(manifest["lr_scheduler"] | {"lr_lambdas": [None]})
        shadow = [files["ema"][str(i)] for i in range(len(files["ema"]))]
        self.ema.load_state_dict(manifest["ema"] | {"shadow_params": shadow})
        self.steps = int(manifest["step"])


def drawn(says: Callable[[Tensor, Tensor], Tensor], x: Tensor, steps: int) -> Tensor:
    """The end of a run of diffusers' DPM++ 2M at its own defaults, from standard normal noise x.

    Args:
        says: the noise, from a state and a timestep (a scalar tensor).
    """
    scheduler: Any = DPMSolverMultistepScheduler(**PATH)  # type: ignore[no-untyped-call]
    scheduler.set_timesteps(steps)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(says(scheduler.scale_model_input(x, t), t), t, x, return_dict=False)[0]
    return x


def guided(denoiser: Denoiser, cond: Condition, empty: Condition, scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    """What ``drawn`` asks, with guidance as StableDiffusionPipeline has it: both halves in one batch.

    Args:
        cond: the prompts, B rows.
        empty: the empty prompt, one row.
    """
    both = Condition.cat([empty.repeat(len(cond.tokens)), cond])  # type: ignore[arg-type]

    def says(x: Tensor, t: Tensor) -> Tensor:
        labels = t.float().expand(2 * len(x))
        without, given = denoiser.network(torch.cat([x, x]), labels, both)[0].chunk(2)
        return without + scale * (given - without)  # type: ignore[no-any-return]

    return says
