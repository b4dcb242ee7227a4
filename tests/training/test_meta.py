"""Every recipe's step and its solvers' run on the meta device: a tensor left on another device is found without a GPU.

The meta device alone is not enough: a convolution of a tensor on the processor with weights on the meta device is
computed in silence, and so are others. Hence a watch on every operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from training.small import build
from unnoise.core.condition import Condition
from unnoise.core.evaluate import batched
from unnoise.core.guidance import bind
from unnoise.core.noise import NoiseSource
from unnoise.core.objective import Batch, Draws
from unnoise.core.registry import find, index
from unnoise.core.sample import sample
from unnoise.guidances.cfg import CFG
from unnoise.training.averages import PowerAverage
from unnoise.training.optimiser import Optimiser
from unnoise.training.plan import Training

META = torch.device("meta")
COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
CASES = [*index("recipes"), "emoji-flow, text fixed"]


class TwoDevices(Exception):
    """Tensors of two devices met."""


class OneDevice(TorchDispatchMode):
    """Refuses every operation on tensors of two devices, but for copies from the processor to the device.

    Tensors without axes are no exception: a GPU takes them from the processor, but waits for it. Values cannot be read
    on the meta device; with ``finite``, a single one that is asked for is said to be 1, or true: nothing is infinite.
    """

    def __init__(self, finite: bool = False) -> None:
        super().__init__()
        self.finite = finite

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        back = func in COPIES and found[0].device == META and (kwargs or {}).get("device", META) != META
        if back or (len({x.device.type for x in found}) > 1 and func not in COPIES):
            raise TwoDevices(f"{func}: {[(x.device.type, tuple(x.shape)) for x in found]}")
        if self.finite and func is torch.ops.aten._local_scalar_dense.default:
            return True if found[0].dtype == torch.bool else 1
        return func(*args, **(kwargs or {}))


def begin(case: str, world: Path) -> Training:
    recipe, _, fixed = case.partition(", ")
    training = build(recipe, world, *(["--text-rate", "0"] if fixed else []))
    training.objective.to(META)
    return training


def load(training: Training) -> Batch:
    return training.data.batch(torch.tensor([0, 5]), Draws(0, 0, 4, slice(0, 2), META))


def loss(training: Training, batch: Batch) -> Tensor:
    (phase,) = training.objective.phases()
    return phase.loss(batch, Draws(0, 0, 4, slice(0, 2), META)).total


def tensors(batch: Mapping[str, Any]) -> Iterator[tuple[str, str | None, Tensor]]:
    """(entry, field of a condition or None, tensor)."""
    for name, value in batch.items():
        if isinstance(value, Condition):
            yield from ((name, f.name, t) for f in fields(value) if (t := getattr(value, f.name)) is not None)
        else:
            yield name, None, value


@pytest.mark.parametrize("case", CASES)
def test_a_whole_step(case: str, world: Path) -> None:
    """Data, loss, gradients, optimiser and averages."""
    training = begin(case, world)
    with OneDevice():
        batch = load(training)
        assert all(t.device == META for _, _, t in tensors(batch))
        total = loss(training, batch)
        assert total.device == META
        total.backward()
        for role in training.objective.roles().values():
            if role.trained:
                optimiser, average = Optimiser(role.module, training.settings), PowerAverage(role.module, 0.1)
                assert optimiser.gradient_norm().device == META
                optimiser.step(1.0)
                average.update(2)
                assert {t.device for n, t in optimiser.state().items() if n != "steps"} == {META}


@pytest.mark.parametrize("case", CASES)
def test_data_left_behind_are_found(case: str, world: Path) -> None:
    """Each tensor of the batch in turn stays on the processor."""
    training = begin(case, world)
    batch = load(training)
    with OneDevice():
        loss(training, batch)
    for name, field, tensor in tensors(batch):
        here = torch.zeros(tensor.shape, dtype=tensor.dtype)
        changed = here if field is None else Condition(**{**vars(batch[name]), field: here})
        with OneDevice(), pytest.raises(TwoDevices):
            loss(training, {**batch, name: changed})


@pytest.mark.parametrize("recipe", ["emoji-autoencoder", "emoji-text", "emoji-flow"])
def test_weights_left_behind_are_found(recipe: str, world: Path) -> None:
    """Weights in turn stay on the processor: all of them, and of the largest recipe every third."""
    training = begin(recipe, world)
    batch = load(training)
    places = [(m, name) for m in training.objective.modules() for name, w in m._parameters.items() if w is not None]
    assert len(places) > 15
    for module, name in places[:: 3 if recipe == "emoji-flow" else 1]:
        weight = module._parameters[name]
        module._parameters[name] = nn.Parameter(torch.zeros(weight.shape))
        with OneDevice(), pytest.raises(TwoDevices):
            loss(training, batch)
        module._parameters[name] = weight
    with OneDevice():
        loss(training, batch)


def test_the_meta_device_alone_is_blind() -> None:
    x, w = torch.zeros(1, 3, 8, 8), torch.zeros(4, 3, 3, 3, device=META)
    F.conv2d(x, w)  # no word of complaint
    with OneDevice(), pytest.raises(TwoDevices, match=r"aten\.convolution"):
        F.conv2d(x, w)
    with OneDevice(), pytest.raises(TwoDevices, match=r"aten\.mul"):
        w * torch.ones(())


# an adaptive solver looks at its error before it goes on, and a meta tensor has none
PLANNED = [name for name, entry in index("solvers").items() if not entry.facts.get("adaptive")]
SHORT = ("dpmpp-2m", "dpmpp-3m-sde", "euler-a", "heun", "sa-solver", "unipc")  # one of each kind


@pytest.fixture(scope="module")
def begun(world: Path) -> Callable[[str], Training]:
    """A training for runs of its networks, which change nothing in them."""
    return cache(lambda recipe: begin(recipe, world))


@pytest.mark.parametrize("solver", [pytest.param(s, marks=() if s in SHORT else pytest.mark.slow) for s in PLANNED])
@pytest.mark.parametrize("recipe", ["emoji-flow", pytest.param("emoji-ddpm", marks=pytest.mark.slow)])
def test_solver_steps(recipe: str, solver: str, begun: Callable[[str], Training]) -> None:
    training = begun(recipe)
    objective, batch, shape = training.objective, load(training), (4, 16, 16)
    denoiser: Any = objective.denoiser
    with OneDevice(finite=True), torch.no_grad():
        conds = {"cond": objective.text(batch["token_ids"]), "uncond": objective.text(batch["empty_ids"].expand(2, -1))}
        noise = NoiseSource([1, 2], shape, device=META)
        levels = find("spacings", training.info["defaults"]["spacing"])().levels(denoiser.path, 4, shape)
        denoise = bind(CFG(3.0), batched(denoiser), conds)
        x = noise.initial() * levels[0].sigma
        for step in sample(denoise, find("solvers", solver)(), levels, x, noise):
            assert step.run.x.device == step.estimate.x0.device == META
        assert step.run.x.shape == (2, *shape)


def test_the_autoencoder_both_ways(world: Path) -> None:
    autoencoder: Any = begin("emoji-autoencoder", world).objective.autoencoder
    with OneDevice():
        x = torch.zeros(2, 3, 32, 32, device=META)
        assert autoencoder.decode(autoencoder.encode(x).mean).device == META
