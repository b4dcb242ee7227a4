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
    "DPMSolverMultistepScheduler": "dpmpp-2m",
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
ENDS_AT_FIRST = ("PNDMScheduler", "DDIMScheduler")  # which stop at the table's first level unless they are told not to
PREDICTIONS = {"epsilon": "noise", "v_prediction": "v", "sample": "data"}
PATHS = {"scaled_linear": "scaled-linear", "linear": "ddpm-linear"}
EDM = "EDM"  # what the classes of another calibration begin with: Playground 2.5, CosXL
AGAIN = "use the model's own file, or a model of another family"


def read_schedule(values: Mapping[str, Any], where: str) -> dict[str, str]:
    """The entries "path", "prediction", "spacing" and "solver" of a ``scheduler_config.json``, as far as it has them.

    Raises:
        UnnoiseError: it is of a calibration that is not known here; to draw as if it were another would be wrong.
    """
    name = str(values.get("_class_name", ""))
    prediction = str(values.get("prediction_type", "epsilon"))
    if name.startswith(EDM) or values.get("sigma_data") is not None or prediction == "flow_prediction":
        kind = "flow" if prediction == "flow_prediction" else "EDM's"
        raise UnnoiseError(f"{where} is of {kind} calibration ({name}), which no family here has", AGAIN)
    if prediction not in PREDICTIONS:
        raise UnnoiseError(f"{where} has the unknown prediction {prediction[:40]!r}", AGAIN)
    schedule = str(values.get("beta_schedule", "linear"))
    if schedule not in PATHS or values.get("trained_betas") is not None:
        raise UnnoiseError(f"{where} has betas that are not read here ({schedule[:40]})", AGAIN)
    start, end = values.get("beta_start", 1e-4), values.get("beta_end", 0.02)
    path = f"{PATHS[schedule]}({start:.10g}, {end:.10g})"
    if values.get("rescale_betas_zero_snr"):
        path = f"zero-snr({path})"
    found = {"path": path, "prediction": PREDICTIONS[prediction]}
    if name in SOLVERS:
        found["solver"] = SOLVERS[name]
    if spacing := _spacing(name, values):
        found["spacing"] = spacing
    return found


def _spacing(name: str, values: Mapping[str, Any]) -> str:
    """The levels that a scheduler visits; "" where that is not known."""
    if name == "LCMScheduler":
        return f"lcm({int(values.get('original_inference_steps', 50))})"
    if values.get("use_karras_sigmas"):
        return "karras"
    kind = str(values.get("timestep_spacing", "leading" if name in ENDS_AT_FIRST else ""))
    if kind == "leading":
        offset = int(values.get("steps_offset", 0))
        short = name in ENDS_AT_FIRST and values.get("set_alpha_to_one", True) is False
        return f"leading({offset}, end=first)" if short and offset else f"leading({offset})"
    return {"trailing": "trailing", "linspace": "linspace"}.get(kind, "")


def written_schedule(denoiser: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A ``scheduler_config.json`` that ``read_schedule`` reads as this denoiser's entry of a record, and defaults."""
    from unnoise.core.notation import make  # what draws, without which headers are read

    text = str(denoiser["path"])
    zero = text.startswith("zero-snr")
    inner = make("paths", text.removeprefix("zero-snr(").removesuffix(")") if zero else text)
    solver = str(defaults.get("solver", "euler"))
    name = next((theirs for theirs, ours in SOLVERS.items() if ours == solver), "EulerDiscreteScheduler")
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
    if kind == "karras":
        values["use_karras_sigmas"] = True
    if name == "LCMScheduler":
        values["original_inference_steps"] = 50
    if name in ENDS_AT_FIRST:
        values |= {"set_alpha_to_one": "end=first" not in spacing, "skip_prk_steps": True}
    return values
