"""Trainings of equal seconds: each by ``unnoise train`` itself, once its speed is known; none is made twice."""

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

from unnoise.cli.train import train
from unnoise.core import registry
from unnoise.errors import UnnoiseError
from unnoise.files import json_bytes, write_whole
from unnoise.pipelines.load import load_pipeline
from unnoise.pipelines.metadata import weights_sha256
from unnoise.study.lab import Trial, Wanted
from unnoise.training import checkpoint
from unnoise.training.report import clock
from unnoise.training.runner import CHECKPOINTS, MODEL, TIME_LIMIT, Stopped

PROBE = 0.05  # part of a training's time for which its speed is tried
WARMED = 0.2  # first part of the probe that does not count
ENDLESS = 10**12  # samples
WARMUP = 0.1  # part of the samples over which the rate rises


class Trials:
    """Trains what a study wants, each for so many minutes.

    A schedule counts samples and must know its end. So each recipe is first run for a twentieth of the time, as
    ``--run.minutes`` stops it; the speed of its steps says how many samples the whole time holds, and the training is
    then of that length and precision, with every seed. How far it missed its time ``Trial.seconds`` tells. Each lies in
    a folder of its own: a study that was stopped goes on where it was, in the middle of a training too.

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

    def __call__(self, wanted: Sequence[Wanted]) -> Iterator[Trial]:
        """Trains them in turn, and tells before each what it is and how long all that is left will take."""
        missing = [each for each in wanted if not self.finished(each)]
        began = time.monotonic()
        for each in wanted:
            if each in missing:
                place = missing.index(each)
                pace = (time.monotonic() - began) / place if place else 60 * self.minutes * (1 + PROBE)
                left = clock(pace * (len(missing) - place))
                number = f"training {wanted.index(each) + 1} of {len(wanted)}"
                print(f"{number}: {each.name}, seed {each.seed}; about {left} until all are done", file=sys.stderr)
                with contextlib.redirect_stdout(sys.stderr):
                    self.train(each)
            yield self.found(each)

    def arm(self, each: Wanted) -> Path:
        """The folder of all seeds of a training."""
        what = [each.recipe, each.options, self.minutes, self.what]
        return self.out / f"{each.recipe}-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]}"

    def folder(self, each: Wanted) -> Path:
        """The run's folder of a training."""
        return self.arm(each) / f"seed-{each.seed}"

    def finished(self, each: Wanted) -> bool:
        """Whether it has been trained to its end."""
        return (self.folder(each) / MODEL).is_dir()

    def train(self, each: Wanted) -> None:
        """Trains to the end, from where it was stopped if it was.

        Raises:
            Stopped: by a signal, after saving.
        """
        folder = self.folder(each)
        if checkpoint.latest(folder / CHECKPOINTS) is not None:
            train(["--resume", str(folder)])
        else:
            length = self.length(each)
            self._train(each, folder, length["samples"], "--run.dtype", length["dtype"])

    def length(self, each: Wanted) -> dict[str, Any]:
        """ "samples" that the minutes hold and the "dtype" in which they do, as found once for all seeds."""
        file = self.arm(each) / "length.json"
        if not file.exists():
            batch, speed, dtype = self.probe(each)
            samples = max(1, round(speed * 60 * self.minutes / batch)) * batch
            write_whole(file, json_bytes({"samples": samples, "samples a second": speed, "dtype": dtype}))
        try:
            return dict(json.loads(file.read_bytes()))
        except (TypeError, ValueError):
            raise UnnoiseError(f"{file} is damaged", "delete it, and the speed is tried again") from None

    def probe(self, each: Wanted) -> tuple[int, float, str]:
        """(samples a step, samples a second, dtype) of the training, run for a part of its time and thrown away."""
        folder = self.arm(each) / "probe"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            self._train(each, folder, ENDLESS, "--run.minutes", str(PROBE * self.minutes))
        except Stopped as stopped:
            if stopped.by != TIME_LIMIT:
                raise
        steps = read_steps(folder)
        last = checkpoint.latest(folder / CHECKPOINTS)
        if last is None:
            raise UnnoiseError(
                f"the short trial of {each.name} came to numbers that are not finite", "look at the recipe's rates"
            )
        dtype = str(checkpoint.verify(last)["machine"]["dtype"])
        shutil.rmtree(folder)
        taken = [step["seconds"] for step in steps]
        counted = taken[int(WARMED * len(taken)) :]
        return steps[0]["samples"], steps[0]["samples"] * len(counted) / sum(counted), dtype

    def _train(self, each: Wanted, folder: Path, samples: int, *more: str) -> None:
        known = inspect.signature(registry.find("recipes", each.recipe)).parameters
        given = [word for name, path in self.given.items() if name in known for word in (f"--{name}", str(path))]
        length = ["--train.samples", str(samples), "--train.warmup", str(int(min(4000, WARMUP * samples)))]
        quiet = ["--train.preview-every", "0", "--train.watch-every", "0"]
        own = ["--train.seed", str(each.seed), "--run.out", str(folder)]
        train([each.recipe, *given, *length, *quiet, *each.options, *own, *more])

    def found(self, each: Wanted) -> Trial:
        """What a finished training came to."""
        steps = read_steps(self.folder(each))
        engine = load_pipeline(self.folder(each), dtype="float32")
        seconds = sum(step["seconds"] for step in steps)
        return Trial(engine, weights_sha256(engine.record), steps[-1]["samples"], seconds)


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
