"""What the numbers of a published denoiser mean, by the evidence there is, and what was assumed without any.

The order of evidence for the prediction: the user's word, the header, a mark among the tensors, a YAML file or a
scheduler's settings beside the weights, the family's usual one; last, for Stable Diffusion 2, a trial of the network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.errors import UnnoiseError
from unnoise.foreign import read
from unnoise.weights.families.family import Family
from unnoise.weights.schedules import read_schedule
from unnoise.weights.sources import Source

LABEL = "modelspec.prediction_type"  # what trainers write into a header
MARK, ZERO_SNR = re.compile(r"(^|\.)v_pred$"), re.compile(r"(^|\.)ztsnr$")
EDM = re.compile(r"(^|\.)(edm_vpred\.sigma_(max|min)|edm_mean|edm_std)$")
YAML = re.compile(r"""^\s*parameterization:\s*["']?(\w+)""", re.M)
MAX_YAML = 2**16
WORDS = {
    "v": "v", "v_prediction": "v", "v-prediction": "v", "velocity": "v",
    "noise": "noise", "eps": "noise", "epsilon": "noise", "x0": "data", "sample": "data", "data": "data",
}  # fmt: skip
STRIDE = 8  # pixels a cell, of all families here
LCM_DEFAULTS = {"steps": 4, "cfg_scale": 8.5, "guidance": "embedded", "solver": "lcm", "spacing": "lcm(50)"}


class Evidence(NamedTuple):
    """What speaks for a calibration.

    Attributes:
        prediction: the user's word; None where there is none.
        source: the denoiser's tensors.
        whole: the single file; None for a folder.
        schedule: the scheduler's settings beside the weights; None where there are none.
        path: of the model.
    """

    prediction: str | None
    source: Source
    whole: Source | None
    schedule: Mapping[str, Any] | None
    path: Path


class Calibration(NamedTuple):
    """What a denoiser's numbers mean, and how it is drawn with.

    Attributes:
        title: of the model, for people.
        path, prediction: in the notation of ``core.notation``.
        defaults: settings of a request.
        assumed: what was taken for granted and why, a line each.
        undecided: whether the prediction is left to a trial.
        evidence: what tells the prediction.
    """

    title: str
    path: str
    prediction: str
    defaults: dict[str, Any]
    assumed: list[str]
    undecided: bool
    evidence: str


def calibrated(family: Family, config: Any, evidence: Evidence) -> Calibration:
    """The calibration of a denoiser of that family and config.

    Raises:
        UnnoiseError: the evidence names a calibration that no family here has.
    """
    names = [*evidence.source.places, *(evidence.whole.places if evidence.whole is not None else ())]
    if mark := next((name for name in names if EDM.search(name)), None):
        raise UnnoiseError(
            f"{evidence.path} is of EDM's calibration ({mark[:60]}), as CosXL and Playground 2.5 are",
            "this program cannot draw with it yet; as plain SDXL its pictures would be wrong",
        )
    schedule = {} if evidence.schedule is None else read_schedule(evidence.schedule, f"{evidence.path}: its scheduler")
    prediction, why = _prediction(family, evidence, schedule, names)
    undecided = prediction is None
    prediction = prediction or "noise"
    path = schedule.get("path", family.path)
    if prediction == "v" and any(ZERO_SNR.search(name) for name in names) and not path.startswith("zero-snr"):
        path = f"zero-snr({path})"  # the mark counts with v alone: nothing else can begin in pure noise
    if prediction == "noise" and path.startswith("zero-snr"):
        what = f"{evidence.path}: its path ends in pure noise, where predicted noise says nothing"
        raise UnnoiseError(what, "say --prediction v if it predicts v")
    defaults: dict[str, Any] = {"size": [size(family, config, prediction, evidence)] * 2, **family.defaults}
    if path.startswith("zero-snr"):
        defaults["spacing"] = "trailing"  # a run must begin in pure noise
    distilled = config.guidance_width > 0
    if distilled:
        defaults |= LCM_DEFAULTS
    defaults |= {name: schedule[name] for name in ("solver", "spacing") if name in schedule}
    use = ", for inpainting" if config.channels_in != config.channels_out else ""
    kind = ", distilled by latent consistency (LCM)" if distilled else ""
    title = f"{family.title}{use}{kind}"
    assumed = [f"prediction: {'found by a trial' if undecided else prediction} ({why})"]
    if family.alike and not distilled:
        assumed.append(family.alike)
    return Calibration(title, path, prediction, defaults, assumed, undecided, why)


def _prediction(
    family: Family, evidence: Evidence, schedule: Mapping[str, str], names: list[str]
) -> tuple[str | None, str]:
    """(prediction, by which evidence); None where only a trial tells."""
    if evidence.prediction is not None:
        word = WORDS.get(evidence.prediction.strip().lower())
        if word is None:
            raise UnnoiseError(f"there is no prediction {evidence.prediction[:40]!r}", "noise, v or data")
        return word, "your word"
    metadata = {**evidence.source.metadata, **(evidence.whole.metadata if evidence.whole is not None else {})}
    if word := WORDS.get(metadata.get(LABEL, "").strip().lower()):
        return word, "the file's header"
    if any(MARK.search(name) for name in names):
        return "v", "a mark in the file"
    yaml = evidence.path.with_suffix(".yaml")
    if evidence.path.is_file() and yaml.is_file():
        match = YAML.search(read(yaml, MAX_YAML).decode("utf-8", "replace"))
        return (WORDS.get(match[1].lower(), "noise") if match else "noise"), f"{yaml.name} beside it"
    if "prediction" in schedule:
        return schedule["prediction"], "the scheduler's settings"
    if family.prediction is not None:
        return family.prediction, "the family's usual one; the file does not say: --prediction v if pictures are noise"
    return None, "the file does not say"


def size(family: Family, config: Any, prediction: str, evidence: Evidence) -> int:
    """Pixels along one axis of the pictures that it was trained on."""
    if evidence.source.config is not None:
        return int(config.size) * STRIDE
    return family.size.get(prediction, family.size[""])
