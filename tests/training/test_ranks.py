"""A training in two processes, weights spread over both, is the training in one: a step, a preview, what is saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.fsdp import fully_shard

from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.objective import Batch, Draws, Loss
from unnoise.engine.load import default_model
from unnoise.networks.unet import UNet, UNetConfig
from unnoise.objectives.denoising import DenoisingObjective, stratified
from unnoise.paths.flow import Flow
from unnoise.predictions.flow import FlowVelocity
from unnoise.training import checkpoint, ranks
from unnoise.training.settings import TrainSettings
from unnoise.training.trainer import Trainer
from unnoise.weights.model import load_model, save_model
from unnoise.weights.record import read_record

SITE = "mid.0"
PROCESSES = 2
NEAR = 1e-6


class Reading(DenoisingObjective):
    """A loss that also looks at a site inside the network."""

    def loss(self, batch: Batch, draws: Draws) -> Loss:
        x0: Tensor = batch["x0"]
        t = self.times.times(stratified(draws), self.denoiser.path)
        level, eps = self.denoiser.path.at(t), draws.normal("eps", *x0.shape[1:])
        output, read = self.denoiser.output(level.mix(x0, eps), t, level, batch["condition"], read=(SITE,))
        error = (output - self.denoiser.prediction.encode(x0, eps, level)) ** 2
        inside = read[SITE].square().flatten(1).mean(1)
        per_sample = error.flatten(1).mean(1) + 0.1 * inside
        return Loss(per_sample.mean(), per_sample.detach(), None, {"inside": inside.mean().detach()})


class Latents:
    """Eight latents with conditions of the default model's shapes."""

    identity = "latents"

    def __init__(self, config: UNetConfig) -> None:
        g = torch.Generator().manual_seed(1)
        self.weights = torch.ones(8)
        self.x0 = torch.randn(8, config.channels_in, config.size, config.size, generator=g)
        self.tokens, self.pooled = (torch.randn(8, *shape, config.text_width, generator=g) for shape in ((6,), ()))

    def batch(self, items: Tensor, draws: Draws) -> Batch:
        mask = torch.ones(len(items), 6, dtype=torch.bool)
        return {"x0": self.x0[items], "condition": Condition(self.tokens[items], mask, self.pooled[items])}


def default_config() -> UNetConfig:
    record = read_record(default_model())
    return UNetConfig(**record["parts"]["denoiser"]["config"])


def made(folder: Path, shard: bool) -> Trainer:
    """A training of the default network from given first weights; in several processes spread over them."""
    torch.manual_seed(0)
    network = UNet(default_config())
    with torch.no_grad():  # so that nothing in it is zero, and all weights learn in the first step
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    if shard:
        for block in (*network.down, *network.mid, *network.up):
            fully_shard(block)
        fully_shard(network)
    settings = TrainSettings(samples=64, batch=8, micro_batch=2, warmup=0, averages=(0.1,), cooldown=0)
    objective = Reading(Denoiser(network, Flow(), FlowVelocity()))
    return Trainer(objective, Latents(network.config), settings, folder)


@torch.no_grad()
def preview(modules: dict[str, nn.Module], data: Latents) -> Tensor:
    """A picture in two Euler steps, of the weights that the modules have."""
    denoiser, cond = Denoiser(modules["denoiser"], Flow(), FlowVelocity()), data.batch(torch.tensor([0, 1]), None)  # type: ignore[arg-type]
    x = torch.randn(data.x0[:2].shape, generator=torch.Generator().manual_seed(2))
    levels = [Flow().at(t) for t in (0.9, 0.5, 0.1)]
    for here, there in zip(levels, levels[1:], strict=False):
        e = denoiser(x, here, there, cond["condition"])
        x = there.mix(e.x0, e.eps)
    return x


def trained(folder: Path, shard: bool) -> None:
    """Trains a step, draws, saves, goes on from what was saved, and trains one more; each part into the folder."""
    training = made(folder / "checkpoints", shard)
    losses, fired = [], []
    training.roles["denoiser"].module.register_forward_hook(lambda *_: fired.append(1))
    steps = training.run()
    step = next(steps)
    losses.append([float(step.losses["denoising"].total), step.gradient_norm])
    assert fired, "the read went through the hooks"
    with training.averaged() as modules:
        picture = preview(modules, training.data.items)  # type: ignore[attr-defined]
        parts = ranks.plain({"denoiser": Denoiser(modules["denoiser"], Flow(), FlowVelocity())})
        if training.rank == 0:
            save_model(folder / "model", parts, dtype=torch.float32)
    path = training.save()
    again = made(folder / "checkpoints", shard)
    again.load(path)
    step = next(again.run())
    losses.append([float(step.losses["denoising"].total), step.gradient_norm])
    again.save()
    if training.rank == 0:
        torch.save({"preview": picture}, folder / "drawn.pt")
        (folder / "losses.json").write_text(json.dumps(losses))


def one_of(rank: int, store: str, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", store=distributed.FileStore(store, PROCESSES), rank=rank, world_size=PROCESSES
    )
    try:
        trained(Path(folder), shard=True)
    finally:
        distributed.destroy_process_group()


def apart(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The largest difference of tensors, each over the other's size."""
    return max(
        float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-9))
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
    trained(alone, shard=False)
    multiprocessing.spawn(one_of, args=(str(tmp_path / "store"), str(together)), nprocs=PROCESSES)
    one, two = (json.loads((folder / "losses.json").read_text()) for folder in (alone, together))
    assert torch.allclose(torch.tensor(two), torch.tensor(one), rtol=10 * NEAR)  # sums of some thousand numbers each
    pictures = [torch.load(folder / "drawn.pt")["preview"] for folder in (alone, together)]
    assert apart(pictures[1:], pictures[:1]) < 10 * NEAR, "two calls of the network one after the other"
    steps = {}
    for step in (1, 2):
        places = [folder / "checkpoints" / f"step-{step:08d}" for folder in (alone, together)]
        (_, plain), (manifest, sharded) = (checkpoint.read(place) for place in places)
        assert manifest["machine"]["processes"] == PROCESSES
        checkpoint.match(plain, sharded)
        steps[step] = plain["denoiser"]
        for file, named in plain.items():
            # the weights themselves; moments are as near as gradients are, and what follows is a step further
            near = NEAR if (step, file.rpartition(".")[2]) != (1, "optimiser") and step == 1 else 100 * NEAR
            assert apart([sharded[file][key] for key in named], list(named.values())) < near, (step, file)
    models = [
        list(load_model(folder / "model", ["denoiser"])[0]["denoiser"].state_dict().values())
        for folder in (alone, together)
    ]
    assert apart(models[1], models[0]) < NEAR
    assert apart(list(steps[2].values()), list(steps[1].values())) > 1000 * NEAR, "control: a step is told apart"
    whole = made(together / "checkpoints", shard=False)
    whole.load(together / "checkpoints" / "step-00000002")  # what two processes saved, one resumes
    assert whole.warnings == ["processes is None, it began with 2: the bits may differ from an unbroken run"]
