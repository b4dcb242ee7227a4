"""What diffusers and k-diffusion offer to a run that draws no noise, for the comparisons of solvers.py."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import find

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

PATH = find("paths", "ddpm-linear")()
Evaluate = Callable[[Tensor, NoiseLevel], Estimate]


def of_diffusers(scheduler: Any, steps: int, evaluate: Evaluate, x: Tensor) -> Tensor:
    """The end of a run of a scheduler of diffusers; its indices may lie between two levels."""
    scheduler.set_timesteps(steps)
    x = x.float() * float(scheduler.init_noise_sigma)
    for t in scheduler.timesteps:
        level = PATH.at((float(t) + 1) / 1000)
        told = evaluate(scheduler.scale_model_input(x, t).to(torch.float64), level)
        x = scheduler.step(told.eps.float(), t, x, return_dict=False)[0]
    return x.to(torch.float64)


def of_k_diffusion(sampler: Callable[..., Tensor], sigmas: Tensor, evaluate: Evaluate, x: Tensor) -> Tensor:
    """The end of a run of a sampler of k-diffusion, which computes in x/alpha."""

    def model(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        level = PATH.onto(NoiseLevel(1.0, float(sigma[0])))
        return evaluate(float(level.alpha) * x, level).x0

    top = PATH.at(1.0)
    return sampler(model, x / float(top.alpha), sigmas, disable=True)


def peers() -> dict[str, Callable[[int, Evaluate, Tensor], Tensor | None]]:
    """What both libraries offer without drawing noise, by name; each takes a number of calls of the network."""
    import diffusers

    from oracles.k_diffusion import sampling

    linear = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
    multi = {"final_sigmas_type": "zero"}
    made: dict[str, tuple[Any, dict[str, Any], int]] = {
        "DDIM": (diffusers.DDIMScheduler, {"clip_sample": False}, 1),
        "Euler": (diffusers.EulerDiscreteScheduler, {}, 1),
        "Heun": (diffusers.HeunDiscreteScheduler, {}, 2),
        "LMS": (diffusers.LMSDiscreteScheduler, {}, 1),
        "PNDM": (diffusers.PNDMScheduler, {"skip_prk_steps": True}, 1),
        "DPM++ 2M": (diffusers.DPMSolverMultistepScheduler, multi, 1),
        "DPM++ 3M": (diffusers.DPMSolverMultistepScheduler, {**multi, "solver_order": 3}, 1),
        "UniPC": (diffusers.UniPCMultistepScheduler, multi, 1),
        "UniPC 3": (diffusers.UniPCMultistepScheduler, {**multi, "solver_order": 3}, 1),
        "DEIS": (diffusers.DEISMultistepScheduler, {}, 1),
    }
    grids: dict[str, dict[str, Any]] = {
        "leading": {"timestep_spacing": "leading", "steps_offset": 1},
        "trailing": {"timestep_spacing": "trailing"},
        "linspace": {"timestep_spacing": "linspace"},
        "karras": {"timestep_spacing": "trailing", "use_karras_sigmas": True},
        "exponential": {"timestep_spacing": "trailing", "use_exponential_sigmas": True},
    }
    found: dict[str, Callable[[int, Evaluate, Tensor], Tensor | None]] = {}
    for name, (cls, settings, cost) in made.items():
        for grid, extra in grids.items():
            if any(key not in cls.__init__.__annotations__ for key in extra):
                continue

            def call(
                count: int,
                evaluate: Evaluate,
                x: Tensor,
                cls: Any = cls,
                all_: Any = settings | extra,
                cost: int = cost,
            ) -> Tensor | None:
                steps = (count + cost - 1) // cost
                return of_diffusers(cls(**linear, **all_), steps, evaluate, x)

            found[f"diffusers {name}, {grid}"] = call
    top = PATH.at(1.0)
    high, low = (float(PATH.at(t).sigma_hat) for t in (1.0, 1 / 1000))
    assert math.isclose(high, float(top.sigma) / float(top.alpha))
    samplers = {
        "euler": (sampling.sample_euler, 1), "heun": (sampling.sample_heun, 2), "dpm_2": (sampling.sample_dpm_2, 2),
        "lms": (sampling.sample_lms, 1), "dpmpp_2m": (sampling.sample_dpmpp_2m, 1),
    }  # fmt: skip
    schedules = {
        "karras": lambda n: sampling.get_sigmas_karras(n, low, high),
        "exponential": lambda n: sampling.get_sigmas_exponential(n, low, high),
    }
    for name, (sampler, cost) in samplers.items():
        for grid, sigmas in schedules.items():

            def call_k(
                count: int,
                evaluate: Evaluate,
                x: Tensor,
                sampler: Any = sampler,
                sigmas: Any = sigmas,
                cost: int = cost,
            ) -> Tensor | None:
                return of_k_diffusion(sampler, sigmas((count + cost - 1) // cost).double(), evaluate, x)

            found[f"k-diffusion {name}, {grid}"] = call_k
    return found


# for a network of the flow path that says velocities


def of_diffusers_flow(scheduler: Any, steps: int, evaluate: Evaluate, x: Tensor) -> Tensor:
    """The end of a run of a flow scheduler of diffusers, which tells times in thousandths."""
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        time_ = float(t) / 1000
        told = evaluate(x, NoiseLevel(1 - time_, time_))
        x = scheduler.step(told.eps - told.x0, t, x, return_dict=False)[0]
    return x


def flow_peers() -> dict[str, Callable[[int, Evaluate, Tensor], Tensor]]:
    """What both libraries offer for a network that says velocities, by name; of one call a step."""
    import diffusers

    from oracles.k_diffusion import sampling

    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "final_sigmas_type": "zero"}
    made: dict[str, Callable[[], Any]] = {
        "diffusers flow Euler": diffusers.FlowMatchEulerDiscreteScheduler,
        "diffusers DPM++ 2M, flow": lambda: diffusers.DPMSolverMultistepScheduler(**flow),
        "diffusers UniPC, flow": lambda: diffusers.UniPCMultistepScheduler(**flow),
    }

    def karras(count: int, evaluate: Evaluate, x: Tensor) -> Tensor:
        def model(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
            alpha = 1 / (1 + float(sigma[0]))
            return evaluate(alpha * x, NoiseLevel(alpha, 1 - alpha)).x0

        sigmas = sampling.get_sigmas_karras(count, 0.002, 80.0)
        return sampling.sample_dpmpp_2m(model, 80.0 * x, sigmas, disable=True)

    found = {name: lambda n, e, x, s=make_: of_diffusers_flow(s(), n, e, x) for name, make_ in made.items()}
    return {**found, "k-diffusion dpmpp_2m, karras": karras}
