"""Schedule files: what they say in our words, and the same from the file that is written of it."""

from __future__ import annotations

from typing import Any

import pytest

from unnoise.errors import UnnoiseError
from unnoise.weights.schedules import read_schedule, written_schedule

TABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CASES: list[tuple[str, dict[str, Any], str, str]] = [  # class, settings, solver, spacing
    ("PNDMScheduler", {"steps_offset": 1}, "plms", "leading(1, end=first)"),
    ("PNDMScheduler", {"steps_offset": 1, "set_alpha_to_one": True}, "plms", "leading(1)"),
    ("DDIMScheduler", {"steps_offset": 1}, "ddim", "leading(1)"),
    ("DDIMScheduler", {"steps_offset": 1, "set_alpha_to_one": False}, "ddim", "leading(1, end=first)"),
    ("DDIMScheduler", {"timestep_spacing": "trailing", "set_alpha_to_one": False}, "ddim", "trailing(end=first)"),
    ("DDIMScheduler", {"timestep_spacing": "trailing"}, "ddim", "trailing"),
    ("DDPMScheduler", {}, "ddpm", "leading(0)"),
    ("EulerDiscreteScheduler", {}, "euler", "linspace"),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}, "euler", "leading(1)"),
    ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}, "euler-a", "trailing"),
    ("DPMSolverMultistepScheduler", {}, "dpmpp-2m", "linspace(cleanest=false)"),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "dpmpp-2m", "karras"),
    (
        "DPMSolverMultistepScheduler",
        {"timestep_spacing": "leading", "steps_offset": 1, "algorithm_type": "sde-dpmsolver++"},
        "dpmpp-2m-sde",
        "leading(1, cleanest=false)",
    ),
    ("DPMSolverMultistepScheduler", {"solver_order": 3}, "dpmpp-3m(published=true)", "linspace(cleanest=false)"),
    ("UniPCMultistepScheduler", {"timestep_spacing": "trailing"}, "unipc", "trailing"),
    ("EulerDiscreteScheduler", {"use_exponential_sigmas": True}, "euler", "log-snr"),
    ("EulerDiscreteScheduler", {"use_beta_sigmas": True}, "euler", "beta-sigma"),
    ("LCMScheduler", {"original_inference_steps": 33, "timestep_spacing": "leading"}, "lcm", "lcm(33)"),
    ("TCDScheduler", {}, "tcd", "lcm(50)"),
]


@pytest.mark.parametrize(("name", "config", "solver", "spacing"), CASES)
def test_what_a_file_says_is_what_is_written(name: str, config: dict[str, Any], solver: str, spacing: str) -> None:
    found = read_schedule({"_class_name": name, **TABLE, **config}, "here")
    assert (found["solver"], found["spacing"]) == (solver, spacing)
    written = written_schedule(found, found)
    assert read_schedule(written, "there") == found
    assert written["_class_name"] == name


def test_a_rule_that_is_not_known_leaves_the_family_s_own() -> None:
    values = {"_class_name": "DPMSolverMultistepScheduler", **TABLE, "algorithm_type": "dpmsolver"}
    assert "solver" not in read_schedule(values, "here")
    assert "spacing" not in read_schedule({"_class_name": "SomeScheduler", **TABLE}, "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "EDMEulerScheduler"}, "EDM's calibration"),
        ({"prediction_type": "flow_prediction"}, "flow calibration"),
        ({"prediction_type": "colour"}, "unknown prediction"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "betas that are not read"),
        ({"timestep_type": "continuous", "sigma_max": 700.0}, "EDM's calibration"),
    ],
)
def test_other_calibrations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnnoiseError, match=message):
        read_schedule({"_class_name": "DDIMScheduler", **TABLE, **change}, "here")
