"""Trainings of equal seconds: each by ``unnoise train`` itself, with a length in minutes; none is made twice."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unnoise.cli.train import train
from unnoise.core import registry
from unnoise.engine.load import choose_device, load_engine
from unnoise.engine.metadata import weights_sha256
from unnoise.errors import UnnoiseError
from unnoise.notes import say
from unnoise.study.lab import Trial, TrialPlan
from unnoise.training import checkpoint
from unnoise.training.identity import machine
from unnoise.training.report import clock
from unnoise.training.runner import CHECKPOINTS, MODEL
from unnoise.training.stopping import Stopped

COOLDOWN = 0.4  # last part of the time, over which the rate falls
QUIET = ("--train.preview-every", "0", "--train.watch-every", "0")


class Trials:
    """Makes the trainings of a study, each for so many minutes of optimiser steps.

    The first of all finds the precision, for every training. Each lies in a folder of its own: a study that was stopped
    goes on where it was, in the middle of a training too.

    Args:
        options: for every recipe that has them, "data" among them.
        what: what else, JSON values, tells these trainings from others of the same options: hashes of what they read.
        minutes: for each.
        out: where all lie.

    Raises:
        UnnoiseError: the minutes are no time.
    """

    def __init__(self, options: Mapping[str, Path], what: Mapping[str, Any], minutes: float, out: Path) -> None:
        if not 0 < minutes <= 10_000:
            raise UnnoiseError(f"{minutes:g} minutes are no time to train", "ask for more than 0, at most 10,000")
        self.options, self.what, self.out = options, dict(what), out
        self.minutes = float(minutes)  # 10 and 10.0 are one length, and one folder

    def __call__(self, plans: Sequence[TrialPlan]) -> Iterator[Trial]:
        """Runs the trainings in turn, and announces each, with how long the remaining ones will take.

        Raises:
            Stopped: by a signal, after saving.
            UnnoiseError: an earlier training was of another kind, or on another computer.
        """
        missing = [each for each in plans if not self.finished(each)]
        began, trained = time.monotonic(), dict[Path, tuple[Path, dict[str, Any]]]()
        for each in plans:
            if each not in missing:
                self.match(each, trained)  # before anything more is trained
        for each in plans:
            if each in missing:
                self.same_computer(trained)
                place = missing.index(each)
                seconds = (time.monotonic() - began) / place if place else 60 * self.minutes
                remainder = clock(seconds * (len(missing) - place))
                number = f"training {plans.index(each) + 1} of {len(plans)}"
                say(f"{number}: {each.name}, seed {each.seed}; about {remainder} until all are done")
                try:
                    with contextlib.redirect_stdout(sys.stderr):
                        self.train(each)
                except Stopped as stopped:  # the hint of `train` would leave the study's time out
                    raise Stopped(stopped.what, "give the same command again, and it goes on", stopped.by) from None
                self.match(each, trained)
            yield self.result(each)

    def arm(self, each: TrialPlan) -> Path:
        """The folder of all seeds of a training."""
        what = [each.recipe, each.options, self.minutes, COOLDOWN, self.what]
        return self.out / f"{each.recipe}-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]}"

    def folder(self, each: TrialPlan) -> Path:
        """The run's folder of a training."""
        return self.arm(each) / f"seed-{each.seed}"

    def finished(self, each: TrialPlan) -> bool:
        """Whether it has been trained to its end."""
        return (self.folder(each) / MODEL).is_dir()

    def manifest(self, each: TrialPlan) -> dict[str, Any]:
        """The manifest of a training's last checkpoint.

        Raises:
            UnnoiseError: it has none.
        """
        last = checkpoint.latest(self.folder(each) / CHECKPOINTS)
        if last is None:
            raise UnnoiseError(f"{self.folder(each)} has no whole checkpoint", "delete it, and it is trained again")
        return checkpoint.verify(last)

    def match(self, each: TrialPlan, trained: dict[Path, tuple[Path, dict[str, Any]]]) -> None:
        """Ensures that a training can be compared with earlier ones, and adds it to them.

        Args:
            each: was trained on the computer that the others were trained on, and like other seeds of its arm.
            trained: by ``out`` the first of all, by an arm's folder the first of that arm: its folder, and how it was
                trained.

        Raises:
            UnnoiseError: it was not.
        """
        folder = self.folder(each)
        manifest = self.manifest(each)
        identity = dict(manifest["identity"])
        recipe = {**identity.pop("settings"), **identity, "seed": 0}
        for place, kind in ((self.out, dict(manifest["machine"])), (self.arm(each), recipe)):
            first, its = trained.setdefault(place, (folder, kind))
            for name in sorted({*kind, *its}):
                if kind.get(name) != its.get(name):
                    raise UnnoiseError(
                        f"{folder} and {first} were trained with another {name}",
                        "delete the one that is not as you want it, and it is trained again",
                    )

    def same_computer(self, trained: Mapping[Path, tuple[Path, Mapping[str, Any]]]) -> None:
        """Ensures that this is the computer that earlier trainings had, before another takes its minutes.

        Raises:
            UnnoiseError: it is not.
        """
        first, its = trained.get(self.out, (self.out, {}))
        for name, here in machine(choose_device("auto")).items():
            if its.get(name, here) != here:
                raise UnnoiseError(
                    f"{first} was trained with another {name}: {its[name]}, here {here}",
                    "go on where it was trained and as it was, or name another --memory",
                )

    def train(self, each: TrialPlan) -> None:
        """Trains to the end, from where it was stopped if it was.

        Raises:
            Stopped: by a signal, after saving.
        """
        folder = self.folder(each)
        if checkpoint.latest(folder / CHECKPOINTS) is not None:
            train(["--resume", str(folder)])
            return
        parameters = inspect.signature(registry.find("recipes", each.recipe)).parameters
        shared = [
            word for name, path in self.options.items() if name in parameters for word in (f"--{name}", str(path))
        ]
        length = ["--train.minutes", str(self.minutes), "--train.cooldown", str(COOLDOWN)]
        own = ["--train.seed", str(each.seed), "--run.out", str(folder), "--run.dtype", self.dtype()]
        train([each.recipe, *shared, *length, *QUIET, *each.options, *own])

    def dtype(self) -> str:
        """The precision of the trainings that lie here already; "auto" where there is none, to try what is fastest."""
        for folder in sorted(self.out.glob(f"*/seed-*/{CHECKPOINTS}")):
            last = checkpoint.latest(folder)
            if last is not None:
                return str(checkpoint.verify(last)["machine"]["dtype"])
        return "auto"

    def result(self, each: TrialPlan) -> Trial:
        """The result of a finished training."""
        manifest, engine = self.manifest(each), load_engine(self.folder(each), dtype="float32")
        return Trial(engine, weights_sha256(engine.model.record), int(manifest["samples"]), float(manifest["seconds"]))
