"""The smallest training that has everything: two roles and phases, a buffer, Muon and AdamW, noise, bad steps."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unnoise.core.objective import Batch, Draws, Loss, Objective, Phase, Role
from unnoise.core.registry import register
from unnoise.encoders.pair import Pair, PairConfig
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings
from unnoise.training.trainer import Trainer

SETTINGS = TrainSettings(
    samples=48, batch=4, micro_batch=2, warmup=8, averages=(0.1,), checkpoint_every=16, preview_every=0
)


class Net(nn.Module):
    """Two layers and a running mean that the second one sees."""

    edges = ("enter.",)

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.hidden = nn.Linear(3, 4), nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:  # (B, 3)
        h = torch.tanh(self.enter(x))
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(h.mean(0).float(), 0.1)
        return self.hidden(h + self.mean)


class ToyObjective(Objective):
    """A net learns to undo noise; a scale learns every second step."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = Net(), nn.ParameterDict({"scale": torch.ones(3)})

    def roles(self) -> dict[str, Role]:
        return {"net": Role(self.net), "scale": Role(self.scale, rate=0.5, averaged=False)}

    def phases(self) -> list[Phase]:
        return [Phase("net", ("net",), 1, self.loss), Phase("scale", ("scale",), 2, self.loss)]

    def loss(self, batch: Batch, draws: Draws) -> Loss:
        x: Tensor = batch["x"]
        error = (self.net(x + draws.normal("noise", 3)) * self.scale["scale"] - x) ** 2
        per_sample = error.mean(1) * batch["factor"]
        return Loss(per_sample.mean(), per_sample.detach(), torch.zeros(len(x)), {"size": x.detach().abs().mean()})


class ToyData:
    """Nine items of three numbers; the loss of a bad step is multiplied by ``factor``."""

    identity = "toy"

    def __init__(self, bad: Collection[int] = (), factor: float = float("nan")) -> None:
        self.table = torch.randn(9, 3, generator=torch.Generator().manual_seed(7))
        self.weights = torch.ones(9)
        self.bad, self.factor = bad, factor
        self.seen: list[int] = []

    def batch(self, items: Tensor, draws: Draws) -> Batch:
        self.seen += items.tolist()
        return {"x": self.table[items], "factor": self.factor if draws.step in self.bad else 1.0}


def toy(data: ToyData | None = None, **changes: Any) -> Training:
    """The training; ``changes`` are of its settings."""
    torch.manual_seed(3)
    settings = replace(SETTINGS, **changes)
    return Training(
        ToyObjective(), data or ToyData(), settings, {"recipe": "toy", "shapes": ((1, 2), (3,))}, lambda modules: {}
    )


def trainer(folder: Path, data: ToyData | None = None, **changes: Any) -> Trainer:
    training = toy(data, **changes)
    return Trainer(training.objective, training.data, training.settings, folder, identity=training.identity)


def state(of: Trainer) -> dict[str, Any]:
    """Everything that may differ between two trainings, copied."""
    tensors = {f"{file}: {n}": t.clone() for file, named in of.tensors().items() for n, t in named.items()}
    return tensors | {"counters": (of.step, of.samples, of.skipped)}


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(
        torch.equal(a[n], b[n]) if isinstance(a[n], Tensor) else a[n] == b[n] for n in a
    )


def toy_recipe(train: TrainSettings = SETTINGS, bad_from: int = 1_000_000) -> Training:
    """A recipe for the command line.

    Args:
        train: length and rates.
        bad_from: the step from which the loss is no number.
    """
    training = toy(ToyData(range(bad_from, bad_from + 1000)))
    pair = Pair(PairConfig(2, 2, 2))
    return replace(training, settings=train, finish=lambda modules: {"pair": pair})


toy_recipe.kind = "recipes"  # type: ignore[attr-defined]
register("toy")(toy_recipe)
