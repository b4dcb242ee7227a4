"""A whole training in a folder: start or resume, watch, save, and end with a model."""

from __future__ import annotations

import copy
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from unnoise.errors import UnnoiseError
from unnoise.training import checkpoint
from unnoise.training.plan import Training
from unnoise.training.report import Report
from unnoise.training.trainer import Trainer
from unnoise.weights.model import save_model


class Stopped(UnnoiseError):
    """A training that was asked to stop, and did so after saving."""


@contextmanager
def stop_flag() -> Iterator[list[str]]:
    """A list that gets the signal's name when the process is asked to stop; a second request stops it at once."""
    flag: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def note(number: int, frame: object) -> None:
        if flag:
            raise KeyboardInterrupt
        flag.append(signal.Signals(number).name)

    before = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def averaged(training: Training, trainer: Trainer, width: float | None = None) -> dict[str, nn.Module]:
    """Copies of the objective's modules, in evaluation mode, with the averaged weights of that relative width.

    Roles without averages come as they are. By default the narrowest average is taken.
    """
    widths = training.settings.averages
    width = width if width is not None else (widths[0] if widths else None)
    modules: dict[str, nn.Module] = {}
    for name, role in training.objective.roles().items():
        module = copy.deepcopy(role.module)
        average = trainer.averages.get(f"{name}.average-{width:g}") if width is not None else None
        if average is not None:
            module.load_state_dict(average.state_dict())
        modules[name] = module.eval().requires_grad_(False)
    return modules


def save_preview(training: Training, trainer: Trainer, folder: Path) -> Path | None:
    """Draws the preview sheet with the averaged weights; its path, or None where the training has none."""
    if training.preview is None:
        return None
    from unnoise.pipelines.pictures import sheet

    pictures = training.preview(training.finish(averaged(training, trainer)))
    path = folder / "previews" / f"samples-{trainer.samples:08d}.png"
    path.parent.mkdir(exist_ok=True)
    sheet(pictures).save(path)
    return path


def run(
    training: Training,
    folder: Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    resume: bool = False,
    minutes: float | None = None,
    say_every: float = 30.0,
) -> Path:
    """Trains to the end, or goes on where a run in this folder stopped; returns the model's folder.

    Args:
        training: from a recipe.
        folder: the run's folder: checkpoints, metrics.jsonl, previews, tensorboard, model.
        resume: go on from the newest whole checkpoint in the folder.
        minutes: stop after so long, as if interrupted; schedules do not see it.

    Raises:
        Stopped: after a signal or the time limit, once a checkpoint is written.
        UnnoiseError: the folder holds a run already, or nothing to resume.
    """
    store = folder / "checkpoints"
    last = checkpoint.latest(store)
    if last is not None and not resume:
        raise UnnoiseError(f"{folder} holds a training already", "add --resume to go on with it, or name another --out")
    if resume and last is None:
        raise UnnoiseError(f"{folder} has no whole checkpoint to resume", "start without --resume")
    store.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(training.objective, training.data, training.settings, store, device, dtype, training.identity)
    if last is not None:
        trainer.load(last)
    settings, started = training.settings, time.monotonic()
    with stop_flag() as flag, Report(folder, settings.samples, trainer.samples, say_every) as report:
        for warning in trainer.warnings:
            report.say(f"note: {warning}")
        for step in trainer.run():
            report.step(step)
            if minutes is not None and time.monotonic() - started > minutes * 60:
                flag.append("the time limit")
            if flag:
                break
            if crossed(trainer, settings.checkpoint_every):
                trainer.save()
            if settings.preview_every and crossed(trainer, settings.preview_every):
                save_preview(training, trainer, folder)
        path = trainer.save()
        if trainer.samples < settings.samples:
            raise Stopped(
                f"stopped by {flag[0] if flag else 'request'} and saved as {path}", f"unnoise train --resume {folder}"
            )
        save_preview(training, trainer, folder)
        report.table()
    model = folder / "model"
    if not model.exists():
        save_model(model, training.finish(averaged(training, trainer)), training.info, training.texts)
    return model


def crossed(trainer: Trainer, every: int) -> bool:
    """Whether the last step took the count of samples past a multiple of ``every``."""
    return trainer.samples // every > (trainer.samples - trainer.settings.batch) // every
