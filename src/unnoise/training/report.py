"""The progress of a training: a line on the screen, JSON lines and TensorBoard. None of it can end it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from unnoise.core.objective import Loss
from unnoise.errors import UnnoiseError, one_line
from unnoise.notes import console
from unnoise.training.logs import METRICS, Board, Log, Metrics
from unnoise.training.trainer import TrainStep

LEVELS = (-math.inf, -2.0, -0.7, 0.7, 2.0, math.inf)  # edges of the log-SNR bins in charts, from noise to data


def by_level(loss: Loss) -> dict[str, float]:
    """The mean unweighted loss in each bin of log-SNR that has samples."""
    if loss.log_snr is None or loss.per_sample is None:
        return {}
    bins = {}
    for low, high in zip(LEVELS, LEVELS[1:], strict=False):
        inside = (loss.log_snr >= low) & (loss.log_snr < high)
        if inside.any():
            bins[f"{low:g}..{high:g}"] = float(loss.per_sample[inside].mean())
    return bins


def reason(error: Exception) -> str:
    """Why something failed, in one line."""
    if isinstance(error, UnnoiseError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return one_line(error.strerror + (f" ({error.filename})" if error.filename else ""))
    return one_line(f"{type(error).__name__} {error}")


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = int(max(0.0, seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Report:
    """Writes ``metrics.jsonl`` and TensorBoard files into a run's folder and keeps a progress line with an ETA.

    A step stands in them once, however often the training was killed and resumed. What fails is reported once, and the
    training goes on without.

    Args:
        folder: the run's folder.
        total: samples when done; a training by time estimates it anew after each step.
        start: samples done before.
        every: seconds between two lines where the output is no terminal.
        until: when the training will be stopped, by ``time.monotonic``, if it will.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        start: int,
        every: float = 30.0,
        tensorboard: bool = True,
        until: float | None = None,
    ) -> None:
        self.total, self.start, self.every, self.until = total, start, every, until
        self.console = console()
        self.live = self.console.is_terminal
        self.failed: set[str] = set()
        self.logs: dict[str, Log] = {}
        kinds: dict[str, Callable[[Path, int], Log]] = {METRICS: Metrics}
        kinds |= {"TensorBoard's file": Board} if tensorboard else {}
        for name, kind in kinds.items():
            with self.beside(f"{name} is not written"):
                self.logs[name] = kind(folder, start)
        self.began = self.shown_at = time.monotonic()
        self.busy = 0.0
        self.steps = 0
        self.smooth: float | None = None
        self.levels: dict[str, float] = {}
        self.looks: list[Mapping[str, Any]] = []  # the first at pictures kept back, and the last
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(None),
            TextColumn("{task.percentage:5.1f} %  {task.fields[text]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.live,
        )
        self.task = self.progress.add_task("training", total=total, completed=start, text="")

    def __enter__(self) -> Report:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
        self._log(lambda log: log.close())

    def watch(self, look: Mapping[str, Any]) -> None:
        """Shows a look at pictures kept back (``Look.record``) from now on, beside the first one."""
        self.looks = [*self.looks[:1], look]

    def begin(self, look: Mapping[str, Any]) -> None:
        """Takes note of the look before the first step."""
        self.watch(look)
        self._write({"step": 0, "samples": 0, **look}, 0, look.keys())

    def step(self, step: TrainStep, look: Mapping[str, Any] | None = None) -> None:
        """Takes note of one step, and of a look at pictures kept back after it."""
        self.busy += step.seconds
        self.steps += 1
        row: dict[str, Any] = {"step": step.step, "samples": step.samples, "rate": step.rate}
        row |= {"gradient_norm": step.gradient_norm, "seconds": round(step.seconds, 4), "skipped": step.skipped}
        for name, loss in step.losses.items():
            row[name] = float(loss.total)
            row |= {f"{name}/{key}": float(value) for key, value in loss.metrics.items()}
            for key, value in by_level(loss).items():
                row[f"{name}/log-snr {key}"] = value
                self.levels[key] = 0.95 * self.levels.get(key, value) + 0.05 * value
            if torch.isfinite(loss.total):
                keep = min(0.98, self.steps / (self.steps + 1))
                self.smooth = keep * (self.smooth or float(loss.total)) + (1 - keep) * float(loss.total)
        if look is not None:
            self.watch(look)
        names = row.keys() - {"seconds"} if step.step % 10 == 0 else set()
        self._write({**row, **(look or {})}, step.samples, {*names, *(look or {})})
        self._show(step, row)

    def _write(self, row: Mapping[str, Any], samples: int, names: Collection[str]) -> None:
        """A line of the metrics; those figures that are in ``names`` on the board too."""
        self._log(lambda log: log.row(row, samples, names))

    def _show(self, step: TrainStep, row: dict[str, Any]) -> None:
        speed = (step.samples - self.start) / max(self.busy, 1e-9)
        ahead = (self.total - step.samples) / max(speed, 1e-9)
        stop = math.inf if self.until is None else self.until - time.monotonic()
        whole = ahead <= stop
        ends = f"ETA {clock(ahead)}" if whole else f"stops in {clock(stop)}"
        extra = "".join(f"  {k.split('/')[-1]} {v:.3g}" for k, v in row.items() if "/" in k and "log-snr" not in k)
        if self.looks:
            first, last = (look["kept-back/loss"] for look in (self.looks[0], self.looks[-1]))
            extra += f"  kept back {last:.4f} (at first {first:.4f})"
        text = f"loss {self.smooth or math.nan:.4f}{extra}  {speed:.1f} pictures/s  {ends}"
        self.progress.update(self.task, completed=step.samples, total=self.total, text=text)
        if not self.live and (time.monotonic() - self.shown_at > self.every or step.samples >= self.total):
            self.shown_at = time.monotonic()
            self.flush()
            self.say(f"{step.samples} {f'of {self.total} ' if whole else ''}samples  {text}")

    def say(self, text: str) -> None:
        """A line of its own, above the progress line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def mark(self, name: str, value: float, samples: int) -> None:
        """A figure for the board alone."""
        self._log(lambda log: log.mark(name, value, samples))

    def flush(self) -> None:
        """Hands everything to the disk, as a checkpoint is about to be."""
        self._log(lambda log: log.flush())

    def _log(self, act: Callable[[Log], None]) -> None:
        """Has each log do something; one that fails is let go."""
        for name in list(self.logs):
            with self.beside(f"{name} is not written any more"):
                act(self.logs[name])
                continue
            del self.logs[name]

    @contextmanager
    def beside(self, what: str) -> Iterator[None]:
        """Work beside the training: a failure is reported once, and the training goes on."""
        try:
            yield
        except Exception as error:
            if what not in self.failed:
                self.failed.add(what)
                self.say(f"note: {what}: {reason(error)}")

    def table(self) -> None:
        """The loss by noise level, at the end."""
        columns = {"loss": self.levels}
        for name, look in zip(("kept back, first", "kept back, last"), self.looks, strict=False):
            columns[name] = {key.removeprefix("kept-back/log-snr "): value for key, value in look.items()}
        if self.levels:
            table = Table("log-SNR (noise to data)", *columns, title="Loss by noise level")
            for low, high in zip(LEVELS, LEVELS[1:], strict=False):
                key = f"{low:g}..{high:g}"
                if any(key in column for column in columns.values()):
                    figures = (f"{column[key]:.4f}" if key in column else "" for column in columns.values())
                    table.add_row(f"{low:g} to {high:g}", *figures)
            self.console.print(table)
