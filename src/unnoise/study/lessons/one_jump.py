"""The one-jump blur: the picture predicted from one noisy state, at many levels; and the errors of each prediction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unnoise.core.level import NoiseLevel
from unnoise.core.noise import normal
from unnoise.core.prediction import Prediction
from unnoise.core.registry import find
from unnoise.errors import UnnoiseError
from unnoise.study.chart import Chart, Series
from unnoise.study.distances import Figure, mean_of
from unnoise.study.film import evenly
from unnoise.study.lab import Lab
from unnoise.study.leaderboard import after, decode, encode
from unnoise.study.page import Lesson, Table, Value, grid
from unnoise.study.spectrum import fineness

TIMES = (1.0, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
PREDICTIONS = ("noise", "data", "v", "flow")
FAULT = 0.01  # of an output's own root mean square
NOTE = (
    "Error: mean square of the predicted latents, in units of what predicting the mean of these pictures would have. "
    "Fineness: power above 6 cycles a width, over that of the real pictures after the autoencoder."
)
OF_FAULTS = (
    "Root mean square error of the picture, over the pictures' own, where an output that is right otherwise is off by "
    f"{FAULT:.0%}: what one jump makes of the same fault in each prediction. A dash: at alpha = 0 the noise is all of "
    "the state, and knowing it says nothing of the picture."
)


def study(lab: Lab) -> Lesson:
    """Adds noise to real pictures, predicts them in one call, and compares with the pictures themselves.

    E[x0 | x] is a mean over all pictures that could lie behind x: it has the least possible squared error, and is
    blurred wherever they differ. Many steps are needed because a mean of pictures is no picture. A prompt that names
    one picture leaves little to blur, so each jump is made with the empty prompt too.
    """
    x0, path = encode(lab.engine.model.autoencoder, lab.real), lab.engine.model.denoiser.path
    jumped(lab, x0, TIMES[0], lab.captions)  # a noise prediction is refused at pure noise, before anything is drawn
    spread = float(x0.double().var(0, unbiased=False).mean())
    ends = {"drawn in all steps": lab.draw().pixels, "real pictures": after(lab.engine.model.autoencoder, lab.real)}
    whole = fineness(ends["real pictures"]).mean()
    error: list[list[Figure]] = [[], []]
    fine: list[list[Figure]] = [[], []]
    pictures: list[list[Tensor]] = [[], []]
    for t in TIMES:
        for which, prompts in enumerate((lab.captions, [""] * len(lab.captions))):
            jump = jumped(lab, x0, t, prompts)
            pictures[which].append(decode(lab.engine.model.autoencoder, jump))
            error[which].append(mean_of((jump - x0).double().pow(2).flatten(1).mean(1) / spread, lab.seed))
            fine[which].append(mean_of(fineness(pictures[which][-1]) / whole, lab.seed))
    last = [mean_of(fineness(pixels) / whole, lab.seed) for pixels in ends.values()]
    rows: list[list[Value]] = [
        [t, float(path.at(t).log_snr), *each] for t, *each in zip(TIMES, *error, *fine, strict=True)
    ]
    rows += [[name, *[None] * 3, figure, None] for name, figure in zip(ends, last, strict=True)]
    kinds = [find("predictions", name)() for name in PREDICTIONS]
    faults: list[list[Value]] = [[t, *(fault(kind, path.at(t), x0) for kind in kinds)] for t in TIMES]
    rows_shown = evenly(len(lab.captions), 3)
    frames = [
        torch.stack([*(each[i] for each in of), *(each[i] for each in ends.values())])
        for i in rows_shown
        for of in pictures
    ]
    return Lesson(
        "One jump",
        [
            f"Fine power, of the real pictures', in one jump from t = 1: {fine[0][0].value:.0%} with the prompt, "
            f"{fine[1][0].value:.0%} without. All steps: {last[0].value:.0%}."
        ],
        [
            Table(
                ["t", "log-SNR", *(f"{f}{of}" for f in ("error", "fineness") for of in ("", ", no prompt"))], rows, NOTE
            ),
            Table(["t", *PREDICTIONS], faults, OF_FAULTS),
        ],
        [curves("Error of one jump", "share of variance", error), curves("Fineness of one jump", "of the real", fine)],
        grid(
            frames,
            [*(f"t = {t:g}" for t in TIMES), "drawn", "real"],
            [f"{lab.captions[i]}{of}" for i in rows_shown for of in ("", " (no prompt)")],
        ),
    )


def curves(title: str, up: str, figures: Sequence[Sequence[Figure]]) -> Chart:
    """The curves with the prompt and without, over t."""
    series = [
        Series(name, list(zip(TIMES, each, strict=True)))
        for name, each in zip(("prompt", "no prompt"), figures, strict=True)
    ]
    return Chart(title, "t, data to noise", up, series)


def jumped(lab: Lab, x0: Tensor, t: float, prompts: Sequence[str]) -> Tensor:
    """(P, C, h, w) the picture predicted in one call, without guidance, from latents noised to time t."""
    level = lab.engine.model.denoiser.path.at(t)

    def key(rows: slice) -> dict[str, object]:
        items, seeds = lab.prompts.items[rows], lab.turns()[rows]
        return {"one jump": t, "set": lab.pictures.sha256, "items": items, "seeds": seeds, "said": prompts[rows]}

    def compute(rows: slice) -> dict[str, Tensor]:
        eps = torch.stack([normal(x0.shape[1:], "one jump", seed) for seed in lab.turns()[rows]]).to(x0)
        where = next(lab.engine.model.denoiser.parameters()).device
        with torch.inference_mode():
            x = level.mix(x0[rows], eps).to(where)
            return {
                "x0": lab.engine.model.denoiser(x, level, cond=lab.engine.model.encode(prompts[rows])).x0.float().cpu()
            }

    return lab.in_batches(len(x0), key, compute)["x0"]


def fault(prediction: Prediction, level: NoiseLevel, x0: Tensor, amount: float = FAULT) -> float | None:
    """Root mean square error of x0, relative to x0, from an output with a relative error of ``amount``.

    None if the prediction cannot be turned into a picture.
    """
    truth, eps, wrong = x0.double(), normal(x0.shape, "fault", 0), normal(x0.shape, "fault", 1)
    try:
        prediction.check(level)
    except UnnoiseError:
        return None
    output = prediction.encode(truth, eps, level)
    output = output + amount * output.pow(2).mean().sqrt() * wrong
    decoded, _ = prediction.decode(output, level.mix(truth, eps), level)
    return float((decoded - truth).pow(2).mean().sqrt() / truth.pow(2).mean().sqrt())
