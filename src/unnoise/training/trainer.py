"""The training loop: a generator that can be stopped anywhere and goes on to the same bits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unnoise.core.objective import Draws, Loss, Objective, Phase
from unnoise.errors import UnnoiseError
from unnoise.kernels.compiled import eagerly, is_compiled
from unnoise.training import checkpoint, ranks
from unnoise.training.averages import PowerAverage, swapped
from unnoise.training.data import InOrder, Items, TrainData
from unnoise.training.identity import changes, machine, match, plain
from unnoise.training.optimiser import Optimiser
from unnoise.training.parts import mean_loss, micro_batches
from unnoise.training.settings import LENIENT, TrainSettings

MAX_SKIPPED = 20
DATA = "data"  # the file of a checkpoint that keeps where a stream is


class TrainStep(NamedTuple):
    """One optimiser step.

    Attributes:
        step: its number, from 1.
        samples: samples trained so far.
        losses: by phase.
        rate: the learning rate's factor.
        gradient_norm: of all trained weights together, before clipping.
        skipped: whether it changed nothing because a number was not finite.
        seconds: wall clock.
    """

    step: int
    samples: int
    losses: Mapping[str, Loss]
    rate: float
    gradient_norm: float
    skipped: bool
    seconds: float


class Trainer:
    """Trains an objective on data; everything random is a function of (seed, step, sample).

    What must be saved is then little: weights, optimiser state, averages and a few counters. A mixed-precision dtype
    computes forward passes under autocast; weights stay float32.

    In several processes (``torch.distributed``) each computes its part of every batch; modules whose weights are spread
    over them, by ``fully_shard``, are handed in so. All processes make the same calls, and the first one writes.

    Args:
        objective: what is minimised.
        data: what it is minimised on: a stream of steps, or items, which are then visited in an order by the seed.
        settings: how.
        folder: where checkpoints go.
        device: "cpu" or "cuda".
        dtype: of the computation: float32, or bfloat16 under autocast.
        identity: what makes this training itself (recipe and its settings); a resumed one must be the same.
    """

    def __init__(
        self,
        objective: Objective,
        data: TrainData | Items,
        settings: TrainSettings,
        folder: Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.objective = objective.to(device)
        self.data: TrainData = data if isinstance(data, TrainData) else InOrder(data, settings.seed)
        self.settings, self.folder = settings, folder
        self.device, self.dtype = torch.device(device), dtype
        self._identity = dict(identity or {}) | {"data": data.identity}
        self.roles = {name: role for name, role in objective.roles().items() if role.trained}
        half = dtype == torch.bfloat16
        self.optimisers = {n: Optimiser(role.module, settings, role.rate, half) for n, role in self.roles.items()}
        self.averages = {
            f"{name}.average-{width:g}": PowerAverage(role.module, width)
            for name, role in self.roles.items()
            for width in (settings.averages if role.averaged else ())
        }
        self.step, self.samples, self.skipped, self.seconds = 0, 0, 0, 0.0
        self._skipped_in_a_row = 0
        self.machine = machine(self.device) | {"dtype": str(self.dtype).removeprefix("torch.")}
        self.machine["compiled"] = any(is_compiled(role.module) for role in self.roles.values())
        self.rank, self.ranks = ranks.place()
        if self.ranks > 1:
            self.machine["processes"] = self.ranks
        self.warnings: list[str] = []
        self.whole = True  # between two steps; after a step that failed only if it had changed nothing

    def run(self, samples: int | None = None) -> Iterator[TrainStep]:
        """Trains until ``samples`` have been seen, by default to the settings' end, yielding every step.

        Raises:
            UnnoiseError: numbers that are not finite, twenty steps on end.
        """
        self.objective.train()
        while not self.done if samples is None else self.samples < samples:
            yield self._advance()

    @property
    def done(self) -> bool:
        """Whether the training is at its end."""
        return self.settings.done(self.samples, self.seconds)

    @property
    def expected(self) -> int:
        """How many samples it will have seen at its end: as set, or where time is, at its pace so far."""
        if not self.settings.minutes:
            return self.settings.samples
        if self.done:
            return self.samples
        return max(
            self.samples + self.settings.batch,
            round(self.samples * 60 * self.settings.minutes / max(self.seconds, 1e-9)),
        )

    def _advance(self) -> TrainStep:
        started = time.perf_counter()
        factor = self.settings.factor(self.samples, self.seconds)
        losses: dict[str, Loss] = {}
        norm, ok = 0.0, True
        for phase in self.objective.phases():
            if self.step % phase.every:
                continue
            losses[phase.name] = self._losses(phase)
            norm = float(torch.stack([self.optimisers[name].gradient_norm() for name in phase.trains]).norm())
            ok = ok and bool(torch.isfinite(losses[phase.name].total)) and norm < float("inf")  # in every process
            if not ok:  # before it touches weights, moments or averages
                break
            self.whole = False
            for name in phase.trains:
                self.optimisers[name].step(factor)
                self.roles[name].module.zero_grad(set_to_none=True)  # their memory is needed to save and to look
        self.whole = False
        self.step += 1
        self.samples += self.settings.batch
        self._skipped_in_a_row = 0 if ok else self._skipped_in_a_row + 1
        self.skipped += not ok
        if ok:
            for average in self.averages.values():
                average.update(self.step)
        seconds = ranks.mean(time.perf_counter() - started, self.device)
        self.seconds += seconds
        self.whole = True
        if self._skipped_in_a_row >= MAX_SKIPPED:
            raise UnnoiseError(
                f"{MAX_SKIPPED} steps on end gave numbers that are not finite (step {self.step})",
                "start again with a lower rate and matrix_rate",
            )
        return TrainStep(self.step, self.samples, losses, factor, norm, not ok, seconds)

    def _losses(self, phase: Phase) -> Loss:
        """``_backward``; where it fails after it has changed a buffer, the state is not whole any more."""
        buffers = [each for role in self.roles.values() for each in role.module.buffers()]
        versions = [each._version for each in buffers]
        try:
            return self._backward(phase)
        except BaseException:
            self.whole = self.whole and versions == [each._version for each in buffers]
            raise

    def finite(self) -> bool:
        """Whether all numbers that the next step depends on are finite."""
        tensors = [t for named in self.tensors().values() for t in named.values() if t.is_floating_point()]
        finite = all(bool(torch.isfinite(ranks.local(t)).all()) for t in tensors)
        return ranks.mean(float(finite), self.device) == 1

    def _backward(self, phase: Phase) -> Loss:
        """Gradients of one phase over the whole batch, and its mean loss."""
        for name in phase.trains:
            self.roles[name].module.zero_grad(set_to_none=True)
        batch, total = self.settings.batch, self.data.rows(self.step, self.settings.batch)
        parts: list[Loss] = []
        counts: list[int] = []
        for rows in micro_batches(self.settings, total):
            draws = Draws(self.settings.seed, self.step, batch, rows, self.device)
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                loss = phase.loss(self.data.batch(draws), draws)
            counts.append(rows.stop - rows.start)
            # sharded modules take the mean of all processes' gradients
            (loss.total * (counts[-1] / total * self.ranks)).backward()
            parts.append(loss)
        ranks.average(p.grad for name in phase.trains for p in self.roles[name].module.parameters())
        return mean_loss(parts, counts, self.device)

    @contextmanager
    def averaged(self, width: float | None = None, also: nn.Module | None = None) -> Iterator[dict[str, nn.Module]]:
        """Within, the objective's modules by role with their averaged weights, for evaluation and without gradients.

        They are the very modules that are trained; afterwards they are as they were, bit for bit.

        Args:
            width: the average's relative width; by default the narrowest. Roles without averages stay as they are.
            also: another objective of the same modules.
        """
        width = min(self.settings.averages, default=None) if width is None else width
        modules = {name: role.module for name, role in self.objective.roles().items()}
        pairs = [(module, self.averages.get(f"{name}.average-{width or 0:g}")) for name, module in modules.items()]
        objectives = [self.objective] if also is None else [self.objective, also]
        modes = [(module, module.training) for objective in objectives for module in objective.modules()]
        for objective in objectives:
            objective.eval()
        try:
            # compiled code is of training's calls: for so few others more would take longer to make than it saves
            with swapped(pairs), torch.no_grad(), eagerly(modules.values()):
                yield modules
        finally:
            for module, training in modes:
                module.training = training

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """All tensors that the next step depends on, by file of a checkpoint."""
        files: dict[str, Mapping[str, Tensor]] = {}
        for name, role in self.roles.items():
            files[name] = role.module.state_dict()
            files[f"{name}.optimiser"] = self.optimisers[name].state()
        files |= {name: average.tensors for name, average in self.averages.items()}
        position = self.data.state(self.step)
        return files | {DATA: position} if position else files

    def save(self) -> Path:
        """Writes a checkpoint, verifies it and deletes those that are no longer kept."""
        path = self.folder / f"step-{self.step:08d}"
        files = {name: ranks.gathered(named) for name, named in self.tensors().items()}
        written = self.rank != 0
        try:
            if self.rank == 0:
                self._write(files)
                written = True
        finally:
            ranks.written(written, self.device)
        return path

    def _write(self, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        manifest = {
            "samples": self.samples,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "skipped_in_a_row": self._skipped_in_a_row,
            "machine": self.machine,
            "identity": plain(self.identity),
        }
        checkpoint.save(self.folder, self.step, manifest, files, self.settings.keep)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this training itself: recipe, data and settings. JSON values, and dataclasses among them."""
        return self._identity | {"settings": self.settings}

    def load(self, path: Path, lenient: Sequence[str] = LENIENT) -> None:
        """Goes on from a checkpoint, to the same bits as if it had never stopped.

        The recipe, the data and all settings must be those it was written with, except for the ``lenient`` ones; what
        was no setting then must be at its default. Another torch, thread count, processor or precision, or networks
        compiled now and not then, stands in ``warnings``: bits may then differ.

        Raises:
            UnnoiseError: the checkpoint is of another training, lacks something or has something that is not ours.
        """
        manifest, files = checkpoint.read(path)
        try:
            match(self.identity, manifest["identity"], lenient)
            self.warnings += changes(self.machine, manifest["machine"])
            self.step, self.samples = int(manifest["step"]), int(manifest["samples"])
            self.skipped, self._skipped_in_a_row = int(manifest["skipped"]), int(manifest["skipped_in_a_row"])
            if self.samples != self.step * self.settings.batch:
                raise KeyError("counters that disagree")
            self.seconds = float(manifest.get("seconds", 0.0))  # older checkpoints have none
            checkpoint.match(self.tensors(), files)
            for name, role in self.roles.items():
                own = role.module.state_dict()
                role.module.load_state_dict({key: ranks.like(files[name][key], own[key]) for key in own})
                self.optimisers[name].load(files[f"{name}.optimiser"])
            for name, average in self.averages.items():
                average.load(files[name])
            self.data.load(self.step, files.get(DATA, {}))
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error.args[0] if error.args else error).split())[:200]  # a KeyError quotes itself
            raise UnnoiseError(
                f"{path} does not fit this training: {reason}", "resume with the settings it began with"
            ) from None
