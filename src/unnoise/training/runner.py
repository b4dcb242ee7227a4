"""A whole training in a folder: start or resume, watch, save, and end with a model."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise import extras
from unnoise.errors import UnnoiseError
from unnoise.files import alone, expanded, explain, json_bytes, sweep, write_whole
from unnoise.kernels.compiled import compile_network
from unnoise.kernels.forked import check_threads
from unnoise.training import checkpoint
from unnoise.training.logs import METRICS
from unnoise.training.plan import Training
from unnoise.training.probe import fastest_dtype
from unnoise.training.report import Report
from unnoise.training.stopping import TIME_LIMIT, Stopped, go_on, stop_flag
from unnoise.training.trainer import Trainer, TrainStep
from unnoise.training.watch import Watcher
from unnoise.weights.model import save_model

RUN, CHECKPOINTS, MODEL = "run.json", "checkpoints", "model"
NO_LOOK = "pictures kept back are not looked at"


def save_preview(training: Training, trainer: Trainer, folder: Path) -> Tensor | None:
    """Draws the preview sheet with the averaged weights; its pictures, or None where the training has none."""
    if training.preview is None:
        return None
    from unnoise.pictures import sheet

    with trainer.averaged() as modules:
        pictures = training.preview(training.finish(modules))
    path, data = folder / "previews" / f"samples-{trainer.samples:08d}.png", io.BytesIO()
    sheet(pictures).save(data, "PNG")
    path.parent.mkdir(exist_ok=True)
    write_whole(path, data.getvalue())
    return pictures


def resumed_from(folder: Path, resume: bool) -> Path | None:
    """The checkpoint that a training in this folder goes on from; None for a new one.

    Raises:
        UnnoiseError: the folder holds a training already, or nothing to resume.
    """
    last = checkpoint.latest(folder / CHECKPOINTS)
    if resume and last is None:
        raise UnnoiseError(f"{folder} has no whole checkpoint to resume", "start without --run.resume")
    if not resume and (last is not None or (folder / MODEL).exists()):
        raise UnnoiseError(
            f"{folder} holds a training already", "add --run.resume to go on with it, or name another --run.out"
        )
    return last


def run(
    training: Training,
    folder: Path,
    device: str = "cpu",
    dtype: torch.dtype | None = torch.float32,
    resume: bool = False,
    minutes: float | None = None,
    say_every: float = 30.0,
    record: Mapping[str, Any] | None = None,
    compiled: bool = False,
) -> Path:
    """Trains to the end, or goes on where a run in this folder stopped; returns the model's folder.

    Args:
        training: from a recipe.
        folder: the run's folder: run.json, checkpoints, metrics.jsonl, tensorboard, previews, model.
        device: "cpu" or "cuda".
        dtype: of the computation; None is the resumed checkpoint's, or for a new training what a timed trial says.
        resume: go on from the newest whole checkpoint in the folder.
        minutes: stop after so long, as if interrupted; schedules do not see it (those see the settings' minutes).
        say_every: seconds between two lines where the output is no terminal.
        record: what run.json says of how to call this training again.
        compiled: compile the networks that are trained.

    Raises:
        Stopped: after a signal or the time limit, once a checkpoint is written.
        Exception: of any kind, where a step fails; a checkpoint of those before it is written first.
        UnnoiseError: the folder holds a run already, or nothing to resume; or the disk is full or cannot be written; or
            nothing can be compiled; or TensorBoard, which a training logs for, is not installed.
    """
    extras.require("tensorboard")
    started, folder = time.monotonic(), expanded(folder)
    check_threads(torch.device(device))
    if compiled:
        compile_trained(training, device)
    try:
        (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        with alone(folder), stop_flag() as flag:
            last = resumed_from(folder, resume)
            sweep(folder)
            trainer = _trainer(training, folder, device, dtype, last)
            if record is not None:
                write_whole(folder / RUN, json_bytes(record))
            until = started + 60 * minutes if minutes is not None else None
            with Report(folder, trainer.expected, trainer.samples, say_every, until=until) as report:
                for note in [*(training.notes if last is None else ()), *trainer.warnings, *_passed_over(folder, last)]:
                    report.say(f"note: {note}")
                if compiled:
                    report.say("note: the network is compiled as its first steps come, which take a minute or two each")
                if last is None:
                    trainer.save()  # a disk that cannot be written is better found now than in an hour
                _loop(training, trainer, report, folder, flag)
            with trainer.averaged() as modules:
                finished = training.finish(modules)
                save_model(folder / MODEL, finished, training.info, training.texts, training.precision, replace=True)
    except OSError as error:
        raise explain(error, folder) from None
    return folder / MODEL


def compile_trained(training: Training, device: str) -> None:
    """Compiles the networks that are trained, those that are called as a whole, in place.

    Raises:
        UnnoiseError: there is none, or no compiler.
    """
    roles = training.objective.to(device).roles().values()
    networks = [role.module for role in roles if role.trained and role.compilable]
    if not networks:
        raise UnnoiseError("this recipe trains no network that is compiled", "leave --run.compile out")
    for network in networks:
        compile_network(network)


def _trainer(training: Training, folder: Path, device: str, dtype: torch.dtype | None, last: Path | None) -> Trainer:
    if dtype is None:
        name = "auto" if last is None else str(checkpoint.verify(last)["machine"].get("dtype"))
        dtype = fastest_dtype(torch.device(device), name)
    trainer = Trainer(
        training.objective, training.data, training.settings, folder / CHECKPOINTS, device, dtype, training.identity
    )
    if last is not None:
        trainer.load(last)
    return trainer


def _passed_over(folder: Path, last: Path | None) -> list[str]:
    newer = [path for path in checkpoint.checkpoints(folder / CHECKPOINTS) if last is None or path > last]
    return [f"{path.name} is damaged or not finite and was passed over" for path in newer]


def _loop(training: Training, trainer: Trainer, report: Report, folder: Path, flag: list[str]) -> None:
    """Trains, saves and shows until the end, a signal or the time limit."""
    settings, watched = training.settings, watcher(training, trainer, report, folder)

    def preview() -> None:
        with report.beside("no preview"):
            pictures = save_preview(training, trainer, folder)
            if pictures is not None and training.copied is not None:
                likeness(report, trainer.samples, training.copied(pictures))

    for step in steps(trainer, report, folder):
        report.total = trainer.expected
        with report.beside("a step is not shown"):
            note_step(report, watched, step)
        if report.until is not None and time.monotonic() > report.until:
            flag.append(TIME_LIMIT)
        if flag:
            break
        if crossed(trainer, settings.checkpoint_every):
            save(trainer, report)
        if settings.preview_every and crossed(trainer, settings.preview_every):
            preview()
    path = save(trainer, report)
    if not trainer.done:
        saved = f"saved as {path}" if path is not None else "not saved, as its numbers are not finite"
        raise Stopped(f"stopped by {flag[0]} and {saved}", f"go on with `{go_on(folder)}`", flag[0])
    if settings.preview_every and not crossed(trainer, settings.preview_every):
        preview()  # else the last step has drawn it
    report.table()


def save(trainer: Trainer, report: Report) -> Path | None:
    """Saves a checkpoint, and what was logged up to it; None where its numbers are not finite, which is reported.

    Raises:
        UnnoiseError: it cannot be written.
    """
    report.flush()
    if trainer.finite():
        return trainer.save()
    with report.beside("nothing is saved"):
        raise UnnoiseError("numbers of the training are not finite", "go on from its last checkpoint")
    return None


def steps(trainer: Trainer, report: Report, folder: Path) -> Iterator[TrainStep]:
    """The steps of the training. Where one fails, what was trained before it is saved, if that is whole."""
    try:
        yield from trainer.run()
    except Exception:
        if trainer.whole:
            with report.beside("nothing more is saved"):
                path = save(trainer, report)
                if path is not None:
                    report.say(f"note: saved as {path}; go on with `{go_on(folder)}`")
        raise


def watcher(training: Training, trainer: Trainer, report: Report, folder: Path) -> Watcher | None:
    """What looks at pictures kept back, with the looks of an earlier part of the training, or else with a first one."""
    if training.kept_back is None or not training.settings.watch_every:
        return None
    rows: list[dict[str, Any]] = []
    if METRICS in report.logs:
        with report.beside("earlier looks at pictures kept back cannot be read"):
            lines = (folder / METRICS).read_text("utf-8").splitlines()
            rows += [json.loads(line) for line in lines if "kept-back/" in line]
    watched = Watcher(trainer, training.kept_back, rows)
    for look in (watched.looks[:1] + watched.looks[-1:]) if watched.looks else ():
        report.watch(look.record())
    if not watched.looks and trainer.step == 0:
        with report.beside(NO_LOOK):
            report.begin(watched.look()[0].record())
    return watched


def note_step(report: Report, watched: Watcher | None, step: TrainStep) -> None:
    """Takes note of a step; where it is time for it, looks at pictures kept back and reports what is wrong."""
    every = watched.trainer.settings.watch_every if watched is not None else 0
    if watched is None or not (crossed(watched.trainer, every) or watched.trainer.done):
        report.step(step)
        return
    look = None
    with report.beside(NO_LOOK):
        look = watched.look()
    report.step(step, look and look[0].record())
    if look and look[1] is not None:
        report.say(f"note: at {step.samples:,} samples {look[1].text}")


def likeness(report: Report, samples: int, figure: tuple[float, float, float, int]) -> None:
    """Reports what a preview shows of memorisation, and warns where chance alone would seldom show so much."""
    share, low, high, count = figure
    report.mark("likeness", share, samples)
    line = (
        f"at {samples:,} samples {count} drawn pictures single out a training picture more than pictures kept back do "
        f"in {share:.0%} of comparisons ({low:.0%} to {high:.0%}; half is no copying)"
    )
    report.say(f"note: {line}: it copies; stop earlier, or add pictures" if low > 0.5 else line)


def crossed(trainer: Trainer, every: int) -> bool:
    """Whether the last step took the count of samples past a multiple of ``every``."""
    return trainer.samples // every > (trainer.samples - trainer.settings.batch) // every
