"""How long our training takes to what diffusers' published one reaches, its learning rate tuned over three values.

    python bench/time_to_quality.py --judge runs/emoji-judge --out docs/images/time-to-quality.png

Both sides train the same network from the same first weights on the same latents, from the same text tower, in the same
batches, for the same seconds: ours is the recipe ``emoji-flow`` as it ships, or tuned by options as theirs is by its
learning rate (``--ours="--mean 0 --std 1.8"``), theirs is told in published.py. A run of ours of half the length, with
its own schedule, says whether half the time is enough. The clock counts optimiser steps, with the making of their
batches; it stands while anything is measured, saved or drawn. Each run is a process of its own, one after the other.

After every eighth of the time the averaged weights are measured: the mean squared error of the noise that they predict,
at ten log-SNR, on the same held-out pictures with the same noise. After an eighth, a quarter, a half and all of it they
draw pictures of trained prompts: ours as the recipe's models draw, theirs with diffusers' DPM++ 2M at its own defaults,
with as many steps and the same guidance. A judge compares these with the real ones (KD-local, as ``unnoise eval`` has
it).

Everything is kept in a folder, so that a bench that is stopped goes on from the last eighth; pictures are judged at the
end, and a judge may be named later.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import signal
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from harness import machine
from reached import Line, Looks, report
from safetensors.torch import load_file
from sides import Model, Ours, Side, Theirs

from unnoise.cli.main import parse
from unnoise.data.store import PictureSet, open_set
from unnoise.engine.engine import ROOM, Engine
from unnoise.engine.load import default_model, load_engine
from unnoise.engine.metadata import weights_sha256
from unnoise.errors import UnnoiseError
from unnoise.files import json_bytes, save_tensors, write_whole
from unnoise.recipes.emoji_flow import emoji_flow
from unnoise.study.distances import Figure
from unnoise.study.leaderboard import Prompts, choose_prompts
from unnoise.study.measure import noise_error
from unnoise.training.identity import machine as computer
from unnoise.training.plan import Training
from unnoise.training.report import clock
from unnoise.weights.record import read_record

PARTS = 8  # of a run; after each it is saved and measured
DRAWN = (1, 2, 4, 8)
LOG_SNRS = tuple(round(-2.5 + 2 / 3 * k, 2) for k in range(10))  # inside of Stable Diffusion's path: -2.68 to 3.53


@dataclass(frozen=True)
class Told:
    """What the bench was asked for; see the options."""

    data: Path
    judge: Path | None
    seconds: float
    rates: tuple[float, ...]
    pictures: int
    held: int
    threads: int
    keep: Path
    out: Path | None
    ours: str = ""


class Entry(NamedTuple):
    """A run: its name, how long it trains, the peer's learning rate (None is ours), after which parts it draws."""

    name: str
    seconds: float
    rate: float | None
    drawn: tuple[int, ...]

    @property
    def folder(self) -> str:
        return self.name.replace(" ", "-").replace(",", "")


def entries(told: Told) -> list[Entry]:
    """All runs, in their order."""
    theirs = [Entry(f"diffusers {rate:g}", told.seconds, rate, DRAWN) for rate in told.rates]
    half = Entry("unnoise, half", told.seconds / 2, None, (PARTS,))
    return [*theirs, half, Entry("unnoise", told.seconds, None, DRAWN)]


def record_of(told: Told, entry: Entry) -> dict[str, Any]:
    """What is known of a run: seconds trained and passed, the last state's name, and what was measured so far."""
    file = told.keep / entry.folder / "record.json"
    if file.exists():
        return dict(json.loads(file.read_text("utf-8")))
    return {"spent": 0.0, "passed": 0.0, "state": None, "setting": None, "parts": []}


def held_out(pictures: PictureSet, count: int) -> list[int]:
    """Pictures that nobody trains on, of both held-out tiers of the part validation, evenly spread."""
    every = [item for tier in ("tier1", "tier2") for item in pictures.held_out(tier, "validation")]
    if not every:
        raise UnnoiseError(f"{pictures.path} has no held-out pictures", "name a set with a held-out split")
    count = min(count, len(every))
    return [every[place * len(every) // count] for place in range(count)]


def asked(pictures: PictureSet, count: int) -> Prompts:
    """The trained prompts that are drawn, evenly spread over the set."""
    chosen = choose_prompts(pictures, "validation", count)
    rows = chosen.rows("trained")
    return Prompts([chosen.items[row] for row in rows], ["trained"] * len(rows))


def our_training(told: Told) -> Training:
    """The recipe with the options that the bench was given for it.

    Raises:
        UnnoiseError: an option that does not exist, or a value that is wrong.
    """
    return parse(emoji_flow, [*shlex.split(told.ours), "--data", str(told.data)], "--ours")  # type: ignore[no-any-return]


def shipped(told: Told) -> Training:
    """The recipe as it comes, of which theirs takes network, batches and first weights."""
    return emoji_flow(data=told.data)


def made(told: Told, entry: Entry, record: dict[str, Any], pictures: PictureSet, given: Engine) -> Side:
    """The side of a run, as it was when it was last saved; what a side computes in is found once for all its runs."""
    folder = told.keep / entry.folder
    kin = [each for each in entries(told) if (each.rate is None) == (entry.rate is None)]
    setting = next((found for each in kin if (found := record_of(told, each)["setting"])), "")
    side: Side
    if entry.rate is None:
        side = Ours(our_training(told), entry.seconds, folder, setting)
    else:
        side = Theirs(shipped(told), pictures, given, entry.rate, setting)
    record["setting"] = side.setting
    if record["state"]:
        side.load(folder, record["state"])
    return side


def measured(model: Model, told: Told, pictures: PictureSet, given: Engine) -> list[float]:
    """The error of the predicted noise at each of ``LOG_SNRS``, whatever the notation."""
    items = held_out(pictures, told.held)
    whole = given.model
    found = noise_error(
        model.denoiser, model.text, whole.autoencoder, whole.tower.tokenizer, pictures, items, log_snrs=LOG_SNRS
    )
    return [found[level] for level in LOG_SNRS]


def left(told: Told, entry: Entry, spent: float, passed: float) -> tuple[float, float]:
    """Seconds until this run, and until all runs are done, at the pace of the clock on the wall so far."""
    records = {each: record_of(told, each) for each in entries(told)}
    trained = {each: spent if each == entry else record["spent"] for each, record in records.items()}
    wall = sum(passed if each == entry else record["passed"] for each, record in records.items())
    pace = wall / max(sum(trained.values()), 1e-9)
    ahead = {each: max(0.0, each.seconds - trained[each]) for each in records}
    return pace * ahead[entry], pace * sum(ahead.values())


def contest(told: Told, entry: Entry) -> None:
    """One run from where it was to its end, in a process of its own."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(told.threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the bench, and this process with it
    bench = multiprocessing.parent_process()
    folder, record = told.keep / entry.folder, record_of(told, entry)
    folder.mkdir(parents=True, exist_ok=True)
    pictures, given = open_set(told.data), load_engine(None, "cpu", "float32")
    side = made(told, entry, record, pictures, given)
    prompts = [pictures.captions[item][0] for item in asked(pictures, told.pictures).items]
    spent, earlier, began, said = record["spent"], record["passed"], time.perf_counter(), 0.0
    for part in range(len(record["parts"]) + 1, PARTS + 1):
        while spent < entry.seconds * part / PARTS:
            if bench is not None and not bench.is_alive():
                sys.exit("the bench was killed, and so ends this run of it")
            started = time.perf_counter()
            loss = side.step(spent)
            now = time.perf_counter()
            spent, passed = spent + now - started, earlier + now - began
            if now - said > 30:
                own, every = left(told, entry, spent, passed)
                print(
                    f"{entry.name}: {spent:.0f} of {entry.seconds:.0f} s, {side.steps} steps, loss {loss:.4f}, "
                    f"{clock(own)} to the end of this run, {clock(every)} of all",
                    file=sys.stderr,
                    flush=True,
                )
                said = now
        state, model = side.save(folder), side.model()
        if part in entry.drawn:
            starts = range(0, len(prompts), ROOM)
            rows = [model.draw(few := prompts[i : i + ROOM], range(i, i + len(few))) for i in starts]
            save_tensors(folder / f"drawn-{part}.safetensors", {"latents": torch.cat(rows)})
        record["parts"].append(
            {"seconds": spent, "steps": side.steps, "errors": measured(model, told, pictures, given)}
        )
        record |= {"state": state, "spent": spent, "passed": earlier + time.perf_counter() - began}
        write_whole(folder / "record.json", json_bytes(record))


def judged(told: Told) -> Looks | None:
    """The eyes that pictures are judged with, if a judge was named."""
    if told.judge is None:
        return None
    pictures = open_set(told.data)
    real = pictures.pictures(asked(pictures, told.pictures).items)
    return Looks(told.judge, told.keep / "looks", load_engine(None, "cpu", "float32"), real)


def line(told: Told, entry: Entry, looks: Looks | None) -> Line:
    """What a finished run came to; its pictures are judged here."""
    record, distances, pixels = record_of(told, entry), dict[float, Figure](), None
    parts = record["parts"]
    for part in entry.drawn if looks is not None else ():
        latents = load_file(told.keep / entry.folder / f"drawn-{part}.safetensors")["latents"]
        distances[parts[part - 1]["seconds"]], pixels = looks.distance(latents)  # type: ignore[union-attr]
    seconds, errors = [part["seconds"] for part in parts], [part["errors"] for part in parts]
    return Line(entry.name, record["setting"], parts[-1]["steps"], seconds, errors, distances, pixels)


def alike(ours: Training, plain: Training) -> None:
    """Ensures that the options for our side leave as they are what both sides share.

    Raises:
        UnnoiseError: one of them does not.
    """
    for name in ("network", "given", "tokenizer", "drop", "batch", "seed"):
        mine, its = (
            getattr(each.settings, name) if hasattr(each.settings, name) else each.identity[name]
            for each in (ours, plain)
        )
        if mine != its:
            raise UnnoiseError(f"--ours changes the {name}, which both sides share", "leave that option out")


def agreed(told: Told) -> None:
    """Ensures that the bench can be run, and that what is kept in its folder was asked for alike, on the same computer.

    Raises:
        UnnoiseError: it cannot, or was not.
    """
    if not told.seconds > 0 or told.pictures < 2 or told.held < 1:
        raise UnnoiseError("there would be nothing to compare", "ask for seconds, two pictures and a held-out one")
    what = {"seconds": told.seconds, "pictures": told.pictures, "held": told.held, "set": open_set(told.data).sha256}
    what |= computer(torch.device("cpu")) | ({"ours": told.ours} if told.ours else {})
    what["model"] = weights_sha256(read_record(default_model()))  # both sides' text tower and autoencoder
    alike(our_training(told), shipped(told))  # refused before anything is trained
    file = told.keep / "asked.json"
    if file.exists() and (before := json.loads(file.read_text("utf-8"))) != what:
        names = [name for name in {**before, **what} if before.get(name) != what.get(name)]
        raise UnnoiseError(f"{told.keep} holds a bench with another {', '.join(names)}", "name another --keep")
    told.keep.mkdir(parents=True, exist_ok=True)
    write_whole(file, json_bytes(what))


def options() -> Told:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/emoji"), help="the picture set")
    parser.add_argument("--judge", type=Path, help="a folder trained by emoji-judge; without one nothing is judged")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of training, for each run but the half one")
    parser.add_argument("--rates", type=float, nargs="+", default=(1e-5, 1e-4, 1e-3), help="the peer's learning rates")
    parser.add_argument("--pictures", type=int, default=128, help="prompts that are drawn, at least 2")
    parser.add_argument("--held", type=int, default=96, help="held-out pictures that the noise is predicted for")
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    parser.add_argument("--keep", type=Path, default=Path("runs/bench-time-to-quality"), help="where it is kept")
    parser.add_argument("--out", type=Path, help="a PNG file for the plot; a sheet of pictures comes beside it")
    parser.add_argument("--ours", default="", help="options for our recipe, as after `unnoise train emoji-flow`")
    told = vars(parser.parse_args())
    return Told(**told | {"rates": tuple(told["rates"])})


def main() -> None:
    told = options()
    torch.set_num_threads(told.threads)
    try:
        agreed(told)
        looks = judged(told)  # refused before hours of training
        for number, entry in enumerate(entries(told), 1):
            if len(record_of(told, entry)["parts"]) == PARTS:
                continue
            print(f"run {number} of {len(entries(told))}: {entry.name}", file=sys.stderr, flush=True)
            process = multiprocessing.get_context("spawn").Process(target=contest, args=(told, entry), daemon=True)
            process.start()
            process.join()
            if process.exitcode:
                raise UnnoiseError(f"{entry.name} was stopped", "give the same command again, and it goes on")
        print(machine())
        report([line(told, entry, looks) for entry in entries(told)], LOG_SNRS, looks, told.out)
    except UnnoiseError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on with the last eighth that was finished")


if __name__ == "__main__":
    main()
