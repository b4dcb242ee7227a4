"""What a second of training buys: pixels or latents, U-Net or transformer, text tower, prediction, in equal seconds.

One baseline and four arms, each of which differs from it in one thing. All except `noise` predict the picture: pixels
folded 8 x 8 require it (Li and He 2025, arXiv 2511.13720), and the baseline then differs from the pixels only in the
space. All are trained by the squared error of the velocity (`velocity-weight`) and drawn from the same noise, with the
same solver on the same levels. These start below pure noise, where predicted noise holds no picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from unnoise.core.level import NoiseLevel
from unnoise.errors import UnnoiseError
from unnoise.study.chart import Chart, Series
from unnoise.study.distances import Figure, kernel_of
from unnoise.study.film import evenly
from unnoise.study.lab import Lab, Model, Trial, TrialPlan
from unnoise.study.leaderboard import features
from unnoise.study.measure import noise_error
from unnoise.study.page import Lesson, Table, Value, grid
from unnoise.study.spectrum import fineness

BASELINE = "baseline"
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {  # name: (recipe, options)
    BASELINE: ("emoji-flow", ("--prediction", "data")),
    "pixels": ("emoji-pixels", ()),
    "transformer": ("emoji-dit", ("--prediction", "data")),
    "frozen text": ("emoji-flow", ("--prediction", "data", "--text-rate", "0")),
    "noise": ("emoji-flow", ("--prediction", "noise")),
}
SETTINGS: dict[str, Any] = {"solver": "dpmpp-2m", "spacing": "karras(sigma_max=80)", "cfg_scale": 3.0}
LOG_SNRS = tuple(place - 4.5 for place in range(10))
MAX_ITEMS = 64  # pictures kept back, at most
OF_ARMS = (
    "In brackets the lowest and the highest of the seeds of training, before them their mean. Own caption first: among "
    "its candidates, under the judge. Less: that, less the baseline's of the same seed. KD-local: kernel distance to "
    "the real pictures of the prompts. Both judge pictures, and so compare spaces too."
)
OF_ERRORS = (
    "Mean squared error of the predicted noise on pictures kept back, with their captions; 1 is knowing nothing, and a "
    "predicted picture near the data, where its fault is divided by sigma, may do worse. It compares trainings in one "
    "space. It does not compare spaces: the same log-SNR hides more of a picture in latents, where it has 48 times "
    "fewer numbers, and a pixel's neighbours tell what it was."
)
OF_JUMPS = (
    "Of the pictures that one call of the network makes of the starting noise, without guidance, and of those drawn in "
    "all steps. Fineness: power above 6 cycles a width, over that of the real pictures; a blur lacks it, and noise has "
    "too much. A picture that is predicted comes out as a mean of all that it could be. Predicted noise leaves what it "
    "is wrong by in the picture, 80 times as large."
)
OF_COSTS = (
    "Bytes: of a state in float32, what a training reads and a run carries. GFLOP: of one call of the network for one "
    "picture, and of the way back to pixels, a multiplication and an addition counted as two; "
    "fused attention's own products, about a twentieth of a call, are not counted on a processor."
)


class Result(NamedTuple):
    """The figures of one training.

    Attributes:
        samples, seconds: samples seen, and time of the training.
        own, far: share of prompts whose own caption came first; KD-local.
        errors: of the noise, by ``LOG_SNRS``.
        jump, pixels: uint8 (P, 3, H, W), drawn in one call without guidance, and in all steps with it.
        space: the space of the model's states.
        cost: by column.
    """

    samples: int
    seconds: float
    own: float
    far: float
    errors: list[float]
    jump: Tensor
    pixels: Tensor
    space: str
    cost: dict[str, Value]


def study(lab: Lab) -> Lesson:
    """Trains each arm with each seed, measures each when it is trained, and draws one row of pictures an arm.

    Raises:
        UnnoiseError: the set has no held-out pictures, or the lab cannot train.
    """
    if lab.train is None:
        raise UnnoiseError("this study trains, and its lab cannot", "use `unnoise study arms`")
    real = features(lab.eyes, lab.real)  # a missing judge is reported before anything is trained
    items = held_out_items(lab)
    plans = [
        TrialPlan(name, recipe, options, lab.seed + turn)
        for turn in range(lab.seeds)
        for name, (recipe, options) in ARMS.items()
    ]
    results: dict[str, list[Result]] = {name: [] for name in ARMS}
    for each, trial in zip(plans, lab.train(plans), strict=True):
        results[each.name].append(measure(lab, trial, real, items))
    spaces: dict[str, list[str]] = {}
    for name, seeds in results.items():
        spaces.setdefault(seeds[0].space, []).append(name)
    rows: list[list[Value]] = [row(name, results) for name in results]
    costs: list[list[Value]] = [[name, *seeds[0].cost.values()] for name, seeds in results.items()]
    jumps: list[list[Value]] = [[name, *jumped(lab, seeds)] for name, seeds in results.items()]
    columns = evenly(len(lab.captions), 8)
    return Lesson(
        "What a second buys",
        [*(sentence(name, results) for name in results if name != BASELINE), how(lab)],
        [
            Table(["arm", "samples", "seconds", "samples/s", "own caption first", "less", "KD-local"], rows, OF_ARMS),
            Table(["arm", "fineness, one call", "fineness, all steps", "own first, one call"], jumps, OF_JUMPS),
            Table(["arm", *results[BASELINE][0].cost], costs, OF_COSTS),
            *(errors(names, results, OF_ERRORS if number == 0 else "") for number, names in enumerate(spaces.values())),
        ],
        [
            beside(spaces[results[BASELINE][0].space], results),
            *(curves(space, spaces[space], results) for space in spaces),
        ],
        grid(
            [pixels[columns] for seeds in results.values() for pixels in (seeds[0].jump, seeds[0].pixels)],
            [lab.captions[i] for i in columns],
            [f"{name}, seed {lab.seed}, {how}" for name in results for how in ("one call", "all steps")],
        ),
        settings=", ".join(f"{name} {value}" for name, value in {"steps": steps(lab), **SETTINGS}.items()),
        seeds=lab.seeds,
    )


def held_out_items(lab: Lab) -> list[int]:
    """The pictures on which the error of the noise is measured, spread over the held-out pictures for validation.

    Raises:
        UnnoiseError: there are none.
    """
    items = sorted(lab.pictures.held_out("tier1", "validation") + lab.pictures.held_out("tier2", "validation"))
    if not items:
        raise UnnoiseError(f"{lab.pictures.path} has no held-out pictures", "name a set with a held-out split")
    return [items[place] for place in evenly(len(items), MAX_ITEMS)]


def steps(lab: Lab) -> int:
    """Solver steps of every arm: the lab's, or its model's own."""
    return int(lab.engine.request("", steps=lab.steps).steps)


def measure(lab: Lab, trial: Trial, real: Tensor, items: Sequence[int]) -> Result:
    """The figures of a trained model; slow ones are stored in the memory."""
    own = replace(lab, engine=trial.engine, weights=trial.weights)
    jump = own.draw(**{**SETTINGS, "steps": 1, "cfg_scale": 1.0}).pixels
    pixels = own.draw(**{"steps": steps(lab), **SETTINGS}).pixels
    key = {"noise error": LOG_SNRS, "set": lab.pictures.sha256, "items": list(items)}
    errors = own.recall(key, partial(_errors, own, items))["errors"]
    return Result(
        trial.samples,
        trial.seconds,
        float(lab.right(pixels).mean()),
        kernel_of(features(lab.eyes, pixels), real, lab.seed).value,
        errors.tolist(),
        jump,
        pixels,
        str(getattr(trial.engine.model.autoencoder, "name", "unnamed")),
        cost(trial.engine.model, lab.captions[0], lab.real.shape[-1]),
    )


def _errors(lab: Lab, items: Sequence[int]) -> dict[str, Tensor]:
    model = lab.engine.model
    parts = (model.denoiser, model.tower.network, model.autoencoder, model.tower.tokenizer)
    errors = noise_error(*parts, lab.pictures, items, LOG_SNRS)
    return {"errors": torch.tensor([errors[level] for level in LOG_SNRS], dtype=torch.float64)}


@torch.inference_mode()
def cost(model: Model, caption: str, size: int) -> dict[str, Value]:
    """The cost of one picture of ``size`` pixels: its state, the network's weights, one call, and the way to pixels."""
    weights = next(model.denoiser.parameters())
    x = torch.zeros(1, *model.autoencoder.space.shape(size), device=weights.device)
    cond = model.encode([caption])
    with FlopCounterMode(display=False) as call:
        x0 = model.denoiser(x, NoiseLevel(0.6, 0.8), cond=cond).x0
    with FlopCounterMode(display=False) as back:
        model.autoencoder.decode(x0.to(weights.dtype))
    return {
        "state": " x ".join(str(side) for side in x.shape[1:]),
        "bytes": 4 * x.numel(),
        "weights": sum(each.numel() for each in model.denoiser.parameters()),
        "GFLOP a call": call.get_total_flops() / 1e9,
        "GFLOP to pixels": back.get_total_flops() / 1e9,
    }


def over_seeds(values: Sequence[float]) -> Figure:
    """The mean, with the lowest and the highest in the interval's place."""
    return Figure(sum(values) / len(values), min(values), max(values), len(values))


def jumped(lab: Lab, seeds: Sequence[Result]) -> list[Figure]:
    """The figures of an arm in the second table."""
    whole = float(fineness(lab.real).mean())
    return [
        over_seeds([float(fineness(each.jump).mean()) / whole for each in seeds]),
        over_seeds([float(fineness(each.pixels).mean()) / whole for each in seeds]),
        over_seeds([float(lab.right(each.jump).mean()) for each in seeds]),
    ]


def less(name: str, results: Mapping[str, Sequence[Result]]) -> list[float]:
    """By seed, the share of prompts whose own caption came first, minus the baseline's."""
    return [mine.own - theirs.own for mine, theirs in zip(results[name], results[BASELINE], strict=True)]


def row(name: str, results: Mapping[str, Sequence[Result]]) -> list[Value]:
    """A line of the first table."""
    seeds = results[name]
    return [
        name,
        round(over_seeds([each.samples for each in seeds]).value),
        over_seeds([each.seconds for each in seeds]),
        over_seeds([each.samples / each.seconds for each in seeds]),
        over_seeds([each.own for each in seeds]),
        None if name == BASELINE else over_seeds(less(name, results)),
        over_seeds([each.far for each in seeds]),
    ]


def sentence(name: str, results: Mapping[str, Sequence[Result]]) -> str:
    """The difference of an arm from the baseline, and whether its seeds agree."""
    apart = less(name, results)
    mean, low, high, count = over_seeds(apart)
    agreed = "of one sign" if low > 0 or high < 0 else "not of one sign"
    seeds = f"{agreed} in its {count} seeds" if count > 1 else "of a single seed, which tells little"
    return f"{name}: own caption first {mean:+.3f} [{low:+.3f}, {high:+.3f}] beside the baseline, {seeds}."


def how(lab: Lab) -> str:
    """How arms were trained, in two sentences."""
    options = "; ".join(f"{name}: `{' '.join(('train', recipe, *own))}`" for name, (recipe, own) in ARMS.items())
    return (
        f"Trainings: {options}; seeds from {lab.seed} on, autoencoder and text tower from the model above. Each has as "
        "many samples as its time holds at its own pace, found where its rate was about to fall."
    )


def errors(names: Sequence[str], results: Mapping[str, Sequence[Result]], note: str) -> Table:
    """The error of the noise by level, of the arms of one space."""
    rows: list[list[Value]] = [
        [level, *(over_seeds([each.errors[place] for each in results[name]]) for name in names)]
        for place, level in enumerate(LOG_SNRS)
    ]
    return Table(["log-SNR", *(f"error, {name}" for name in names)], rows, note)


def logarithm(figure: Figure) -> Figure:
    """To the base 10, of a figure above 0; errors span five powers of ten."""
    value, low, high = (math.log10(max(each, 1e-12)) for each in figure[:3])
    return Figure(value, low, high, figure.count)


def beside(names: Sequence[str], results: Mapping[str, Sequence[Result]]) -> Chart:
    """The arms' errors over the baseline's of the same seed, by level; for arms of its space."""

    def ratio(name: str, place: int) -> Figure:
        pairs = zip(results[name], results[BASELINE], strict=True)
        return logarithm(over_seeds([mine.errors[place] / theirs.errors[place] for mine, theirs in pairs]))

    series = [Series(name, [(level, ratio(name, k)) for k, level in enumerate(LOG_SNRS)]) for name in names]
    return Chart("Error of the noise beside the baseline's", "log-SNR, noise to data", "log10 of the ratio", series)


def curves(space: str, names: Sequence[str], results: Mapping[str, Sequence[Result]]) -> Chart:
    """The errors of the arms of one space."""

    def error(name: str, place: int) -> Figure:
        return logarithm(over_seeds([each.errors[place] for each in results[name]]))

    series = [Series(name, [(level, error(name, k)) for k, level in enumerate(LOG_SNRS)]) for name in names]
    title = f"Error of the noise, autoencoder {space}"
    return Chart(title, "log-SNR, noise to data", "log10 of the squared error", series)
