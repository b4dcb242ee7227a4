"""The training loop: a generator that can be stopped anywhere and goes on to the same bits."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from unnoise.core.objective import Batch, Draws, Loss, Objective, Phase
from unnoise.errors import UnnoiseError
from unnoise.files import discard, explain, sweep
from unnoise.kernels.compiled import is_compiled
from unnoise.training import checkpoint
from unnoise.training.averages import PowerAverage
from unnoise.training.optimiser import Optimiser
from unnoise.training.order import Order
from unnoise.training.settings import TrainSettings

MAX_SKIPPED = 20


class TrainData(Protocol):
    """What a training reads: items by index, and how often each should be seen."""

    @property
    def weights(self) -> Sequence[float] | Tensor: ...

    @property
    def identity(self) -> str: ...

    def batch(self, items: Tensor, draws: Draws) -> Batch: ...


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


def machine(device: torch.device) -> dict[str, Any]:
    """What bit-equal resuming is promised for: the same of each of these."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "processor": name}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = [
            line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "model\t", "cpu fam"))
        ]
        return " / ".join(dict.fromkeys(fields)) or platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


class Trainer:
    """Trains an objective on data; everything random is a function of (seed, step, sample).

    What must be saved is then little: weights, optimiser state, averages and a few counters. A mixed-precision dtype
    computes forward passes under autocast; weights stay float32.

    Args:
        objective: what is minimised.
        data: what it is minimised on.
        settings: how.
        folder: where checkpoints go.
        device: "cpu" or "cuda".
        dtype: of the computation: float32, or bfloat16 under autocast.
        identity: what makes this training itself (recipe and its settings); a resumed one must be the same.
    """

    def __init__(
        self,
        objective: Objective,
        data: TrainData,
        settings: TrainSettings,
        folder: Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.objective = objective.to(device)
        self.data, self.settings, self.folder = data, settings, folder
        self.device, self.dtype = torch.device(device), dtype
        self.identity = dict(identity or {}) | {"data": data.identity, "settings": asdict(settings)}
        self.roles = {name: role for name, role in objective.roles().items() if role.trained}
        half = dtype == torch.bfloat16
        self.optimisers = {n: Optimiser(role.module, settings, role.rate, half) for n, role in self.roles.items()}
        self.averages = {
            f"{name}.average-{width:g}": PowerAverage(role.module, width)
            for name, role in self.roles.items()
            for width in (settings.averages if role.averaged else ())
        }
        self.order = Order(data.weights, settings.seed)
        self.step, self.samples, self.skipped = 0, 0, 0
        self._skipped_in_a_row = 0
        self.machine = machine(self.device) | {"dtype": str(self.dtype).removeprefix("torch.")}
        self.machine["compiled"] = any(is_compiled(role.module) for role in self.roles.values())
        self.warnings: list[str] = []
        self.whole = True  # between two steps; after a step that failed only if it had changed nothing

    def run(self, samples: int | None = None) -> Iterator[TrainStep]:
        """Trains until ``samples`` (by default the settings') have been seen, yielding every step.

        Raises:
            UnnoiseError: numbers that are not finite, twenty steps on end.
        """
        self.objective.train()
        limit = self.settings.samples if samples is None else samples
        while self.samples < limit:
            yield self._advance()

    def _advance(self) -> TrainStep:
        started = time.perf_counter()
        factor = self.settings.factor(self.samples)
        losses: dict[str, Loss] = {}
        norm, ok = 0.0, True
        for phase in self.objective.phases():
            if self.step % phase.every:
                continue
            losses[phase.name] = self._losses(phase)
            norm = float(torch.stack([self.optimisers[name].gradient_norm() for name in phase.trains]).norm())
            ok = ok and bool(torch.isfinite(losses[phase.name].total)) and norm < float("inf")
            if not ok:  # before it touches weights, moments or averages
                break
            self.whole = False
            for name in phase.trains:
                self.optimisers[name].step(factor)
        self.whole = False
        self.step += 1
        self.samples += self.settings.batch
        self._skipped_in_a_row = 0 if ok else self._skipped_in_a_row + 1
        self.skipped += not ok
        if ok:
            for average in self.averages.values():
                average.update(self.step)
        self.whole = True
        if self._skipped_in_a_row >= MAX_SKIPPED:
            raise UnnoiseError(
                f"{MAX_SKIPPED} steps on end gave numbers that are not finite (step {self.step})",
                "start again with a lower rate and matrix_rate",
            )
        return TrainStep(self.step, self.samples, losses, factor, norm, not ok, time.perf_counter() - started)

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
        return all(bool(torch.isfinite(t).all()) for t in tensors)

    def _backward(self, phase: Phase) -> Loss:
        """Gradients of one phase over the whole batch, micro-batch by micro-batch, and the mean loss."""
        for name in phase.trains:
            self.roles[name].module.zero_grad(set_to_none=True)
        batch, size = self.settings.batch, self.settings.micro_batch or self.settings.batch
        parts: list[Loss] = []
        for start in range(0, batch, size):
            draws = Draws(self.settings.seed, self.step, batch, slice(start, start + size), self.device)
            items = self.order(self.samples + start, size)
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                loss = phase.loss(self.data.batch(items, draws), draws)
            (loss.total * (size / batch)).backward()
            parts.append(loss)
        return _mean(parts)

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """All tensors that the next step depends on, by file of a checkpoint."""
        files: dict[str, Mapping[str, Tensor]] = {}
        for name, role in self.roles.items():
            files[name] = role.module.state_dict()
            files[f"{name}.optimiser"] = self.optimisers[name].state()
        return files | {name: average.tensors for name, average in self.averages.items()}

    def save(self) -> Path:
        """Writes a checkpoint, verifies it and deletes those that are no longer kept."""
        manifest = {
            "samples": self.samples,
            "skipped": self.skipped,
            "skipped_in_a_row": self._skipped_in_a_row,
            "machine": self.machine,
            "identity": self.identity,
        }
        sweep(self.folder)
        path = self.folder / f"step-{self.step:08d}"
        if path.exists() and not checkpoint.healthy(path):
            try:
                discard(path)  # damaged, and passed over when this training was resumed
            except OSError as error:
                raise explain(error, path) from None
        if not path.exists():
            checkpoint.write(self.folder, self.step, manifest, self.tensors())
        checkpoint.retain(self.folder, self.settings.keep, path)
        return path

    def load(
        self,
        path: Path,
        lenient: Sequence[str] = ("samples", "cooldown", "checkpoint_every", "preview_every", "watch_every", "keep"),
    ) -> None:
        """Goes on from a checkpoint, to the same bits as if it had never stopped.

        The recipe, the data and all settings must be those it was written with, except for the ``lenient`` ones.
        Another torch, thread count, processor or precision, or networks compiled now and not then, is said in
        ``warnings``: bits may then differ.

        Raises:
            UnnoiseError: the checkpoint is of another training, lacks something or has something that is not ours.
        """
        manifest, files = checkpoint.read(path)
        try:
            self._match(manifest, lenient)
            self.step, self.samples = int(manifest["step"]), int(manifest["samples"])
            self.skipped, self._skipped_in_a_row = int(manifest["skipped"]), int(manifest["skipped_in_a_row"])
            if self.samples != self.step * self.settings.batch:
                raise KeyError("counters that disagree")
            checkpoint.match(self.tensors(), files)
            for name, role in self.roles.items():
                role.module.load_state_dict(files[name])
                self.optimisers[name].load(files[f"{name}.optimiser"])
            for name, average in self.averages.items():
                average.load(files[name])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error.args[0] if error.args else error).split())[:200]  # a KeyError quotes itself
            raise UnnoiseError(
                f"{path} does not fit this training: {reason}", "resume with the settings it began with"
            ) from None

    def _match(self, manifest: Mapping[str, Any], lenient: Sequence[str]) -> None:
        here, then = _flat(self.identity), _flat(manifest["identity"])
        for key in sorted(here.keys() | then.keys()):
            if key.removeprefix("settings.") not in lenient and here.get(key, ...) != then.get(key, ...):
                raise KeyError(f"{key} is {here.get(key)!r}, it began with {then.get(key)!r}")
        now, before = self.machine, manifest["machine"]
        for key in sorted(now.keys() | before.keys()):
            if now.get(key) != before.get(key):
                self.warnings.append(
                    f"{key} is {now.get(key)}, it began with {before.get(key)}: "
                    "the bits may differ from an unbroken run"
                )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {
            k: v
            for key, each in value.items()
            for k, v in _flat(each, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {prefix: json.loads(json.dumps(value))}  # as a checkpoint gives it back: tuples are lists


def _mean(parts: Sequence[Loss]) -> Loss:
    def join(values: Sequence[Tensor | None]) -> Tensor | None:
        return None if values[0] is None else torch.cat([v for v in values if v is not None])

    total = torch.stack([part.total.detach() for part in parts]).mean()
    metrics = {key: torch.stack([part.metrics[key].detach() for part in parts]).mean() for key in parts[0].metrics}
    return Loss(total, join([p.per_sample for p in parts]), join([p.log_snr for p in parts]), metrics)
