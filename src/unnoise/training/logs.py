"""The figures of a training on disk: a line of JSON a step, and TensorBoard's file of the same."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from unnoise import extras
from unnoise.files import new_name, write_whole

METRICS, BOARD = "metrics.jsonl", "tensorboard"


class Log(Protocol):
    """Where figures go. Anything may raise: a disk is full, a folder deleted."""

    def row(self, row: Mapping[str, Any], samples: int, names: Collection[str]) -> None:
        """Takes the figures of a step; those in ``names`` go on a board."""

    def mark(self, name: str, value: float, samples: int) -> None:
        """Takes a figure that is for a board alone."""

    def flush(self) -> None:
        """Hands everything to the disk."""

    def close(self) -> None:
        """The end."""


class Metrics:
    """A line a step in ``metrics.jsonl``; a step stands there once, however often the training was resumed."""

    def __init__(self, folder: Path, start: int) -> None:
        self.path = folder / METRICS
        forget(self.path, start)
        self.file = self.path.open("a", encoding="utf-8")

    def row(self, row: Mapping[str, Any], samples: int, names: Collection[str]) -> None:
        self.file.write(json.dumps({key: _finite(value) for key, value in row.items()}) + "\n")

    def mark(self, name: str, value: float, samples: int) -> None:
        """Figures that belong to no step have files of their own; a line here is a step."""

    def flush(self) -> None:
        self.file.flush()
        still_there(self.path)

    def close(self) -> None:
        self.file.close()


class Board:
    """TensorBoard's file, written in place: its own writer has a thread, whose failures could not be handled."""

    def __init__(self, folder: Path, start: int) -> None:
        events = extras.load("tensorboard.compat.proto.event_pb2")
        writer = extras.load("tensorboard.summary.writer.record_writer")
        (folder / BOARD).mkdir(exist_ok=True)
        self.path = new_name(folder / BOARD, f"events.out.tfevents.{int(time.time()):010d}", "")
        self.file = writer.RecordWriter(self.path.open("xb"))
        self._write(file_version="brain.Event:2")
        if start:  # what was shown after the checkpoint that is gone on from is taken back
            self._write(step=start + 1, session_log=events.SessionLog(status=events.SessionLog.START))

    def _write(self, **event: Any) -> None:
        event_of = extras.load("tensorboard.compat.proto.event_pb2").Event
        self.file.write(event_of(wall_time=time.time(), **event).SerializeToString())

    def row(self, row: Mapping[str, Any], samples: int, names: Collection[str]) -> None:
        for key, value in row.items():
            if isinstance(value, float) and math.isfinite(value) and key in names:
                self.mark(key, value, samples)

    def mark(self, name: str, value: float, samples: int) -> None:
        summary = extras.load("tensorboard.compat.proto.summary_pb2").Summary
        self._write(step=samples, summary=summary(value=[summary.Value(tag=name, simple_value=value)]))

    def flush(self) -> None:
        self.file.flush()
        still_there(self.path)

    def close(self) -> None:
        self.file.close()


def still_there(path: Path) -> None:
    """Ensures that a file that is being written has not been deleted.

    Raises:
        FileNotFoundError: it has; what is written goes nowhere.
    """
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def forget(path: Path, samples: int) -> None:
    """Takes the lines after so many samples out of a metrics file: a resumed training writes them again."""
    if not path.exists():
        return
    data = path.read_bytes()
    lines = []
    for line in data.splitlines(keepends=True):
        try:
            if int(json.loads(line)["samples"]) > samples or not line.endswith(b"\n"):
                break
        except (ValueError, KeyError, TypeError):  # torn by a kill
            break
        lines.append(line)
    if len(lines) < len(data.splitlines()):
        write_whole(path, b"".join(lines))


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
