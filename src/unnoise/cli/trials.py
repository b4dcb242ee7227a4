"""Trainings of equal seconds: each by ``unnoise train`` itself, as long as its own pace says; none is made twice."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unnoise.cli.record import read_run
from unnoise.cli.train import train
from unnoise.core import registry
from unnoise.engine.load import choose_device, load_pipeline
from unnoise.engine.metadata import weights_sha256
from unnoise.errors import UnnoiseError
from unnoise.files import json_bytes, write_whole
from unnoise.notes import say
from unnoise.study.lab import Trial, Wanted
from unnoise.training import checkpoint
from unnoise.training.identity import machine
from unnoise.training.logs import forget
from unnoise.training.report import clock
from unnoise.training.runner import CHECKPOINTS, MODEL
from unnoise.training.stopping import TIME_LIMIT, Stopped

PROBE = 0.05  # part of a training's time for which its speed is tried
WARMED = 0.2  # first part of some steps that does not count to their pace
ENDLESS = 10**12  # samples
WARMUP = 0.1  # part of the samples over which the rate rises
COOLDOWN = 0.4  # last part of the samples, over which it falls


class Trials:
    """Trains what a study wants, each for so many minutes.

    A schedule counts samples and must know its end, but not before the rate falls. So each training runs without an end
    for the part of its time in which the rate stands still; its own pace then says how many samples the rest of the
    time holds, and it goes on to that end. How far it missed its time ``Trial.seconds`` tells. A short trial of each
    recipe comes first, for the number that must stand from the start and be that of every seed: the samples over which
    the rate rises. The first trial of all also finds the precision, for every training. Each lies in a folder of its
    own: a study that was stopped goes on where it was, in the middle of a training too.

    Args:
        given: options for every recipe that has them, "data" among them.
        what: what else, JSON values, tells these trainings from others of the same options: hashes of what they read.
        minutes: for each.
        out: where all lie.

    Raises:
        UnnoiseError: the minutes are no time.
    """

    def __init__(self, given: Mapping[str, Path], what: Mapping[str, Any], minutes: float, out: Path) -> None:
        if not 0 < minutes <= 10_000:
            raise UnnoiseError(f"{minutes:g} minutes are no time to train", "ask for more than 0, at most 10,000")
        self.given, self.what, self.out = given, dict(what), out
        self.minutes = float(minutes)  # 10 and 10.0 are one length, and one folder
        self.dtype = "auto"

    def __call__(self, wanted: Sequence[Wanted]) -> Iterator[Trial]:
        """Trains them in turn, and tells before each what it is and how long all that is left will take.

        Raises:
            Stopped: by a signal, after saving.
            UnnoiseError: an earlier training was of another kind, or on another computer.
        """
        missing = [each for each in wanted if not self.finished(each)]
        began, trained = time.monotonic(), dict[Path, tuple[Path, dict[str, Any]]]()
        for each in wanted:
            if self.noted(each).exists():
                self.dtype = self.trial(each)["dtype"]
            if each not in missing:
                self.match(each, trained)  # before anything more is trained
        for each in wanted:
            if each in missing:
                self.same_computer(trained)
                place = missing.index(each)
                taken = (time.monotonic() - began) / place if place else 60 * self.minutes * (1 + PROBE)
                left = clock(taken * (len(missing) - place))
                number = f"training {wanted.index(each) + 1} of {len(wanted)}"
                say(f"{number}: {each.name}, seed {each.seed}; about {left} until all are done")
                try:
                    with contextlib.redirect_stdout(sys.stderr):
                        self.train(each)
                except Stopped as stopped:  # the hint of `train` would leave the study's time out
                    raise Stopped(stopped.what, "give the same command again, and it goes on", stopped.by) from None
                self.match(each, trained)
            yield self.found(each)

    def arm(self, each: Wanted) -> Path:
        """The folder of all seeds of a training."""
        what = [each.recipe, each.options, self.minutes, WARMUP, COOLDOWN, self.what]
        return self.out / f"{each.recipe}-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]}"

    def folder(self, each: Wanted) -> Path:
        """The run's folder of a training."""
        return self.arm(each) / f"seed-{each.seed}"

    def finished(self, each: Wanted) -> bool:
        """Whether it has been trained to its end."""
        return (self.folder(each) / MODEL).is_dir()

    def match(self, each: Wanted, trained: dict[Path, tuple[Path, dict[str, Any]]]) -> None:
        """Sees that a training can be compared with earlier ones, and adds it to them.

        Args:
            each: was trained on the computer that the others were trained on, and like other seeds of its arm.
            trained: by ``out`` the first of all, by an arm's folder the first of that arm: its folder, and how it was
                trained.

        Raises:
            UnnoiseError: it was not.
        """
        folder = self.folder(each)
        last = checkpoint.latest(folder / CHECKPOINTS)
        if last is None:
            raise UnnoiseError(f"{folder} has no whole checkpoint", "delete it, and it is trained again")
        manifest = checkpoint.verify(last)
        identity = dict(manifest["identity"])
        recipe = {**identity.pop("settings"), **identity, "seed": 0, "samples": 0}
        for place, kind in ((self.out, dict(manifest["machine"])), (self.arm(each), recipe)):
            first, its = trained.setdefault(place, (folder, kind))
            for name in sorted({*kind, *its}):
                if kind.get(name) != its.get(name):
                    raise UnnoiseError(
                        f"{folder} and {first} were trained with another {name}",
                        "delete the one that is not as you want it, and it is trained again",
                    )

    def same_computer(self, trained: Mapping[Path, tuple[Path, Mapping[str, Any]]]) -> None:
        """Sees that this is the computer that earlier trainings had, before another takes its minutes.

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

    def train(self, each: Wanted) -> None:
        """Trains to the end, from where it was stopped if it was.

        Raises:
            Stopped: by a signal, after saving.
        """
        folder = self.folder(each)
        if not self.sized(each):
            self.steady(each)
            train(["--resume", str(folder), "--train.samples", str(self.samples(each))])
        else:
            train(["--resume", str(folder)])

    def sized(self, each: Wanted) -> bool:
        """Whether a training has begun and knows its end."""
        folder = self.folder(each)
        if checkpoint.latest(folder / CHECKPOINTS) is None:
            return False
        args = read_run(folder).arguments
        return args.count("--train.samples") > 1  # the first is ENDLESS

    def steady(self, each: Wanted) -> None:
        """Trains until it is time for the rate to fall, from where it was stopped if it was."""
        folder = self.folder(each)
        time_left = (1 - COOLDOWN) * 60 * self.minutes
        last = checkpoint.latest(folder / CHECKPOINTS)
        if last is None:
            found = self.trial(each)
            rises = str(int(min(4000, WARMUP * found["samples"])))
            falls = ["--train.warmup", rises, "--train.cooldown", str(COOLDOWN), "--run.dtype", found["dtype"]]
            self._train(each, folder, time_left, *falls)
            return
        forget(folder / "metrics.jsonl", int(checkpoint.verify(last)["samples"]))  # what a kill cut off is made again
        time_left -= sum(step["seconds"] for step in read_steps(folder))
        if time_left > 0:
            with time_limit():
                train(["--resume", str(folder), "--run.minutes", str(time_left / 60)])

    def samples(self, each: Wanted) -> int:
        """How many samples a training's time holds at its own pace so far, in whole steps."""
        steps = read_steps(self.folder(each))
        time_left = 60 * self.minutes - sum(step["seconds"] for step in steps)
        batch = int(steps[0]["samples"])
        return int(steps[-1]["samples"]) + max(0, round(float(time_left) * pace(steps) / batch)) * batch

    def noted(self, each: Wanted) -> Path:
        """The file that keeps what the short trial of a training told."""
        return self.arm(each) / "trial.json"

    def trial(self, each: Wanted) -> dict[str, Any]:
        """About how many "samples" the minutes hold and the "dtype" in which they do, as found once for all seeds."""
        file = self.noted(each)
        if not file.exists():
            speed, self.dtype = self.probe(each)
            write_whole(file, json_bytes({"samples": round(speed * 60 * self.minutes), "dtype": self.dtype}))
        try:
            return dict(json.loads(file.read_bytes()))
        except (TypeError, ValueError):
            raise UnnoiseError(f"{file} is damaged", "delete it, and the speed is tried again") from None

    def probe(self, each: Wanted) -> tuple[float, str]:
        """(samples a second, dtype) of the training, run for a part of its time and thrown away."""
        folder = self.arm(each) / "probe"
        shutil.rmtree(folder, ignore_errors=True)
        self._train(each, folder, PROBE * 60 * self.minutes, "--run.dtype", self.dtype)
        last = checkpoint.latest(folder / CHECKPOINTS)
        if last is None:
            raise UnnoiseError(
                f"the short trial of {each.name} came to numbers that are not finite", "look at the recipe's rates"
            )
        found = pace(read_steps(folder)), str(checkpoint.verify(last)["machine"]["dtype"])
        shutil.rmtree(folder)
        return found

    def _train(self, each: Wanted, folder: Path, seconds: float, *more: str) -> None:
        """Begins a training without an end, and stops it after so many seconds."""
        known = inspect.signature(registry.find("recipes", each.recipe)).parameters
        given = [word for name, path in self.given.items() if name in known for word in (f"--{name}", str(path))]
        length = ["--train.samples", str(ENDLESS), "--run.minutes", str(seconds / 60)]
        quiet = ["--train.preview-every", "0", "--train.watch-every", "0"]
        own = ["--train.seed", str(each.seed), "--run.out", str(folder)]
        with time_limit():
            train([each.recipe, *given, *length, *quiet, *each.options, *own, *more])

    def found(self, each: Wanted) -> Trial:
        """What a finished training came to."""
        steps = read_steps(self.folder(each))
        engine = load_pipeline(self.folder(each), dtype="float32")
        seconds = sum(step["seconds"] for step in steps)
        return Trial(engine, weights_sha256(engine.record), steps[-1]["samples"], seconds)


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Takes the time limit's stop of a training as its end; any other goes on."""
    try:
        yield
    except Stopped as stopped:
        if stopped.by != TIME_LIMIT:
            raise


def pace(steps: Sequence[Mapping[str, Any]]) -> float:
    """Samples a second of steps that follow one another, the first ones left out."""
    counted = [float(step["seconds"]) for step in steps[int(WARMED * len(steps)) :]]
    return float(steps[0]["samples"]) * len(counted) / sum(counted)


def read_steps(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, one a step.

    Raises:
        UnnoiseError: they are damaged.
    """
    try:
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    except ValueError:
        raise UnnoiseError(
            f"the metrics in {folder} are damaged", "delete that folder, and it is trained again"
        ) from None
