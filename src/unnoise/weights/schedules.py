"""What a published model's schedule file says, in our words: path, prediction, levels that are visited, solver."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unnoise.errors import UnnoiseError

# diffusers' class of a scheduler -> our solver; those that are missing leave the family's own
SOLVERS = {
    "PNDMScheduler": "plms",
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler-a",
    "DPMSolverSinglestepScheduler": "dpmpp-2s",
    "HeunDiscreteScheduler": "heun",
    "LMSDiscreteScheduler": "lms",
    "KDPM2DiscreteScheduler": "dpm-2",
    "KDPM2AncestralDiscreteScheduler": "dpm-2-a",
    "UniPCMultistepScheduler": "unipc",
    "DEISMultistepScheduler": "deis",
    "LCMScheduler": "lcm",
    "TCDScheduler": "tcd",
}
MULTISTEP = "DPMSolverMultistepScheduler"
KINDS = {  # (its algorithm_type, its solver_order) -> our solver
    ("dpmsolver++", 1): "ddim",
    ("dpmsolver++", 2): "dpmpp-2m",
    ("dpmsolver++", 3): "dpmpp-3m(published=true)",
    ("sde-dpmsolver++", 1): "euler-a",
    ("sde-dpmsolver++", 2): "dpmpp-2m-sde",
}
ENDS_AT_FIRST = ("PNDMScheduler", "DDIMScheduler")  # which stop at the table's first level unless they are told not to
LEADING = (*ENDS_AT_FIRST, "DDPMScheduler")  # where a file does not say which levels are visited; others: linspace
OWN_LEVELS = ("LCMScheduler", "TCDScheduler")  # those that a student was distilled at
# which put data in the place of the cleanest of n + 1 levels
COUNT_ONE_MORE = (MULTISTEP, "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler")
RAMPS = {"use_karras_sigmas": "karras", "use_exponential_sigmas": "log-snr", "use_beta_sigmas": "beta-sigma"}
PREDICTIONS = {"epsilon": "noise", "v_prediction": "v", "sample": "data"}
PATHS = {"scaled_linear": "scaled-linear", "linear": "ddpm-linear"}
LEVELS = 1000  # of the table of every family here
EDM = "EDM"  # what the classes of another calibration begin with: Playground 2.5, CosXL
AGAIN = "use the model's own file, or a model of another family"


def read_schedule(values: Mapping[str, Any], where: str) -> dict[str, str]:
    """The entries "path", "prediction", "spacing" and "solver" of a ``scheduler_config.json``, as far as it has them.

    Raises:
        UnnoiseError: it is of a calibration that is not known here; to draw as if it were another would be wrong.
    """
    name = str(values.get("_class_name", ""))
    prediction = str(values.get("prediction_type", "epsilon"))
    continuous = values.get("timestep_type", "discrete") != "discrete"  # labels are logarithms, not places of a table
    if name.startswith(EDM) or values.get("sigma_data") is not None or prediction == "flow_prediction" or continuous:
        kind = "flow" if prediction == "flow_prediction" else "EDM's"
        raise UnnoiseError(f"{where} is of {kind} calibration ({name}), which no family here has", AGAIN)
    if prediction not in PREDICTIONS:
        raise UnnoiseError(f"{where} has the unknown prediction {prediction[:40]!r}", AGAIN)
    schedule = str(values.get("beta_schedule", "linear"))
    if schedule not in PATHS or values.get("trained_betas") is not None:
        raise UnnoiseError(f"{where} has betas that are not read here ({schedule[:40]})", AGAIN)
    start, end = values.get("beta_start", 1e-4), values.get("beta_end", 0.02)
    betas = isinstance(start, int | float) and isinstance(end, int | float) and not isinstance(start, bool)
    if not betas or not 0 < start <= end < 1:
        what = f"{where} has beta_start {str(start)[:40]} and beta_end {str(end)[:40]}"
        raise UnnoiseError(what, "0 < beta_start <= beta_end < 1: copy the model again")
    whole(values, "num_train_timesteps", LEVELS, LEVELS, LEVELS, where)
    path = f"{PATHS[schedule]}({start:.10g}, {end:.10g})"
    if values.get("rescale_betas_zero_snr"):
        path = f"zero-snr({path})"
    entries = {"path": path, "prediction": PREDICTIONS[prediction]}
    if solver := _solver(name, values, where):
        entries["solver"] = solver
    if spacing := _spacing(name, values, where):
        entries["spacing"] = spacing
    return entries


def whole(values: Mapping[str, Any], name: str, default: int, low: int, high: int, where: str) -> int:
    """A whole number of a scheduler's settings.

    Raises:
        UnnoiseError: it is none, or out of range.
    """
    value = values.get(name, default)
    if type(value) is not int or not low <= value <= high:
        reach = f"{low} to {high}" if low < high else f"{low}"
        raise UnnoiseError(f"{where} has {name} {str(value)[:40]!r}, out of range: {reach}", AGAIN)
    return value


def _solver(name: str, values: Mapping[str, Any], where: str) -> str:
    """The rule of one step; "" where it is not known."""
    if name == MULTISTEP:
        order = whole(values, "solver_order", 2, 1, 3, where)
        return KINDS.get((str(values.get("algorithm_type", "dpmsolver++")), order), "")
    return SOLVERS.get(name, "")


def _spacing(name: str, values: Mapping[str, Any], where: str) -> str:
    """The levels that a scheduler visits; "" where that is not known."""
    if name in OWN_LEVELS:
        return f"lcm({whole(values, 'original_inference_steps', 50, 1, LEVELS, where)})"
    if ramp := next((ramp for setting, ramp in RAMPS.items() if values.get(setting)), ""):
        return ramp
    usual = "leading" if name in LEADING else "linspace" if name in SOLVERS or name == MULTISTEP else ""
    kind, offset = str(values.get("timestep_spacing", usual)), whole(values, "steps_offset", 0, 0, LEVELS - 1, where)
    short = name in ENDS_AT_FIRST and not values.get("set_alpha_to_one", name != "PNDMScheduler")
    settings = [str(offset)] if kind == "leading" else []
    if short and (kind == "trailing" or (kind == "leading" and offset)):
        settings.append("end=first")
    if name in COUNT_ONE_MORE and kind != "trailing":
        settings.append("cleanest=false")
    text = f"{kind}({', '.join(settings)})" if settings else kind
    return text if kind in ("leading", "trailing", "linspace") else ""


def written_schedule(denoiser: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A ``scheduler_config.json`` that ``read_schedule`` reads as this denoiser's entry of a record, and defaults."""
    from unnoise.core.notation import make  # what draws, without which headers are read

    text = str(denoiser["path"])
    zero = text.startswith("zero-snr")
    inner = make("paths", text.removeprefix("zero-snr(").removesuffix(")") if zero else text)
    solver = str(defaults.get("solver", "euler"))
    name = next((theirs for theirs, ours in SOLVERS.items() if ours == solver), "")
    multistep = None if name else next((kind for kind, ours in KINDS.items() if ours == solver), None)
    name = name or (MULTISTEP if multistep else "EulerDiscreteScheduler")
    spacing = str(defaults.get("spacing", "leading(1)"))
    kind = spacing.partition("(")[0]
    offset = re.search(r"leading\((\d+)", spacing)
    values: dict[str, Any] = {
        "_class_name": name,
        "num_train_timesteps": inner.num_levels,
        "beta_start": inner.beta_start,
        "beta_end": inner.beta_end,
        "beta_schedule": next(theirs for theirs, ours in PATHS.items() if ours == inner.name),
        "prediction_type": next(theirs for theirs, ours in PREDICTIONS.items() if ours == denoiser["prediction"]),
        "timestep_spacing": kind if kind in ("trailing", "linspace") else "leading",
        "steps_offset": int(offset[1]) if offset else 1,
        "rescale_betas_zero_snr": zero,
        "clip_sample": False,
    }
    values |= {setting: True for setting, ramp in RAMPS.items() if ramp == kind}
    if name in OWN_LEVELS:
        original = re.search(r"lcm\((\d+)", spacing)
        values["original_inference_steps"] = int(original[1]) if original else 50
    if name in ENDS_AT_FIRST:
        values |= {"set_alpha_to_one": "end=first" not in spacing, "skip_prk_steps": True}
    if multistep:
        values |= {"algorithm_type": multistep[0], "solver_order": multistep[1]}
    return values
