"""Solvers of ours beside those of diffusers and k-diffusion: error against calls of the network, and overhead a step.

    python bench/solvers.py mixture  --out docs/images/solvers-mixture.png
    python bench/solvers.py emoji    --out docs/images/solvers-emoji.png
    python bench/solvers.py overhead

Every run of a comparison starts from the same noise at the top of DDPM's linear path (or the default model's own) and
is held against the exact end of its trajectory: on the mixture by an integrator of order 16, on the default model by a
run of 1,000 steps. The error is the root of the mean squared distance, relative to that of the end itself.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.mixture import Mixture
from unnoise.core.noise import NoiseSource
from unnoise.core.notation import make
from unnoise.core.registry import find, index
from unnoise.core.sample import sample

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

COUNTS = (5, 6, 8, 10, 15, 20, 50)
SPACINGS = ("trailing", "linspace", "karras", "log-snr", "align-your-steps", "kl-optimal", "beta", "simple")
PATH = find("paths", "ddpm-linear")()
Evaluate = Callable[[Tensor, NoiseLevel], Estimate]
Row = tuple[str, dict[int, float]]


def mixture(dim: int = 8, parts: int = 12) -> Mixture:
    """A dozen lumps of unlike weight and shape, in eight dimensions."""
    g = torch.Generator().manual_seed(3)
    axes = torch.randn(parts, dim, dim, generator=g, dtype=torch.float64)
    covariances = 0.02 * axes @ axes.mT / dim + 0.003 * torch.eye(dim, dtype=torch.float64)
    weights = torch.rand(parts, generator=g, dtype=torch.float64) + 0.2
    return Mixture(weights / weights.sum(), torch.randn(parts, dim, generator=g, dtype=torch.float64), covariances)


# one run of each library, from x at PATH.at(1) to clean data


def ours(solver: str, spacing: str, steps: int, evaluate: Evaluate, x: Tensor, path: Any = PATH) -> Tensor:
    """The end of a run of ours."""
    levels = make("spacings", spacing).levels(path, steps, x.shape[1:])
    noise = NoiseSource(range(len(x)), x.shape[1:], x.dtype)
    for step in sample(lambda x, here, there: evaluate(x, here), make("solvers", solver), levels, x, noise):
        end = step.run.x
    return end


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


# comparisons


def errors(end: Callable[[int], Tensor | None], truth: Tensor) -> dict[int, float]:
    """{calls: relative error}; those that cannot be run are left out."""
    found = {}
    for count in COUNTS:
        try:
            x = end(count)
        except (ArithmeticError, IndexError, RuntimeError, ValueError):
            continue
        if x is not None and torch.isfinite(x).all():
            found[count] = float(((x - truth) ** 2).mean().sqrt() / (truth**2).mean().sqrt())
    return found


def our_solvers() -> list[tuple[str, int]]:
    """(notation, calls a step) of every solver that draws no noise and takes the steps it is given."""
    entries = index("solvers").values()
    return [
        (entry.name, entry.facts.get("evaluations", 1))
        for entry in entries
        if not entry.facts.get("stochastic") and not entry.facts.get("adaptive")
    ]


def all_of_ours(evaluate: Evaluate, x: Tensor, truth: Tensor, path: Any = PATH) -> list[Row]:
    rows = []
    for solver, cost in our_solvers():
        for spacing in SPACINGS:
            run = lambda n, s=solver, g=spacing, c=cost: ours(s, g, max(1, n // c), evaluate, x, path)  # noqa: E731
            rows.append((f"unnoise {solver}, {spacing}", errors(run, truth)))
    return rows


def compare_on_mixture(rows: int = 256) -> list[Row]:
    """All of ours and all of theirs on the mixture."""
    world, top = mixture(), PATH.at(1.0)
    x = top.mix(
        world.sample(rows, 1), torch.randn(rows, world.dim, generator=torch.Generator().manual_seed(2)).double()
    )
    truth = world.endpoint(x, top, PATH.at(0.0), 1e-10)
    evaluate: Evaluate = lambda x, here: world.estimate(x, here)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = [(name, errors(lambda n, c=call: c(n, evaluate, x), truth)) for name, call in peers().items()]
    return all_of_ours(evaluate, x, truth) + theirs


def compare_on_emoji(count: int = 16, scale: float = 3.0) -> list[Row]:
    """All of ours on the default model, with guidance, against its own run of 1,000 steps."""
    import unnoise
    from unnoise.core.guidance import batched, bind
    from unnoise.guidances.cfg import CFG
    from unnoise.recipes.latent import PREVIEW_PROMPTS

    pipeline = unnoise.load(dtype="float32")
    prompts = list(PREVIEW_PROMPTS[:count])
    path, shape = pipeline.denoiser.path, pipeline.autoencoder.space.shape(128)
    with torch.inference_mode():
        conds = {"cond": pipeline.encode(prompts), "uncond": pipeline.encode([""] * len(prompts))}
        bound = bind(CFG(scale), batched(pipeline.denoiser), conds)
        evaluate: Evaluate = lambda x, here: bound(x, here)  # noqa: E731
        x = NoiseSource(range(len(prompts)), shape).initial() * path.at(1.0).sigma
        truth = ours("dpmpp-2m", "trailing", 1000, evaluate, x, path)
        return all_of_ours(evaluate, x, truth, path)


def overhead(steps: int = 200) -> None:
    """Microseconds a step spends outside of the network, with one that answers at once; pairs in turn, the median."""
    import diffusers

    x = torch.randn(1, 4, 64, 64)
    told = Estimate(x, x)
    schedulers = {
        "euler": lambda: diffusers.EulerDiscreteScheduler(timestep_spacing="trailing"),
        "ddim": lambda: diffusers.DDIMScheduler(timestep_spacing="trailing", clip_sample=False),
        "dpmpp-2m": lambda: diffusers.DPMSolverMultistepScheduler(timestep_spacing="trailing"),
        "unipc": lambda: diffusers.UniPCMultistepScheduler(timestep_spacing="trailing"),
    }

    def of_ours(solver: str) -> float:
        levels, noise = make("spacings", "trailing").levels(PATH, steps, x.shape[1:]), NoiseSource([0], x.shape[1:])
        run = sample(lambda x, here, there: told, make("solvers", solver), levels, x, noise)
        started = time.perf_counter()
        for _ in run:
            pass
        return (time.perf_counter() - started) / steps

    def of_theirs(solver: str) -> float:
        scheduler = schedulers[solver]()
        scheduler.set_timesteps(steps)
        state, started = x, time.perf_counter()
        for t in scheduler.timesteps:
            scheduler.scale_model_input(state, t)
            state = scheduler.step(told.eps, t, state, return_dict=False)[0]
        return (time.perf_counter() - started) / steps

    print("| solver | unnoise, us a step | diffusers, us a step | ratio |\n|---|---|---|---|")
    for solver in schedulers:
        pairs = [(of_ours(solver), of_theirs(solver)) for _ in range(7)][1:]
        mine, other = (sorted(p[i] for p in pairs)[len(pairs) // 2] * 1e6 for i in (0, 1))
        ratio = sorted(a / b for a, b in pairs)[len(pairs) // 2]
        print(f"| `{solver}` | {mine:.0f} | {other:.0f} | {ratio:.2f} |")


# what came out


def table(rows: Sequence[Row], most: int = 12) -> None:
    """The best of ours and of theirs by the mean logarithm of their errors, and how the best fixed choices compare."""

    def rank(row: Row) -> float:
        return (
            sum(math.log(max(e, 1e-12)) for e in row[1].values()) / len(row[1])
            if len(row[1]) == len(COUNTS)
            else math.inf
        )

    mine = sorted((row for row in rows if row[0].startswith("unnoise")), key=rank)
    theirs = sorted((row for row in rows if not row[0].startswith("unnoise")), key=rank)
    print("| calls | " + " | ".join(map(str, COUNTS)) + " |\n|---" * 1 + "|---" * len(COUNTS) + "|")
    for name, found in [*mine[:most], *theirs[:most]]:
        print(f"| {name} | " + " | ".join(f"{found[n]:.2g}" if n in found else "-" for n in COUNTS) + " |")
    if theirs:
        best = {n: min((row[1][n], row[0]) for row in theirs if n in row[1]) for n in COUNTS}
        wins = {row[0]: sum(row[1].get(n, math.inf) <= best[n][0] for n in COUNTS) for row in mine}
        chosen = max(wins, key=lambda name: wins[name])
        print(f"\nbest of theirs at each count: {', '.join(f'{n}: {name} {e:.2g}' for n, (e, name) in best.items())}")
        print(
            f"one fixed choice of ours: {chosen}, no worse than the best of theirs at {wins[chosen]} of {len(COUNTS)}"
        )


def plot(rows: Sequence[Row], out: Path, most: int = 5) -> None:
    """Error against calls, logarithmic both ways, for the best few of each library."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.5))
    for prefix, style in (("unnoise", "-"), ("diffusers", "--"), ("k-diffusion", ":")):
        whole = [row for row in rows if row[0].startswith(prefix) and len(row[1]) == len(COUNTS)]
        for name, found in sorted(whole, key=lambda row: sum(map(math.log, row[1].values())))[:most]:
            axes.plot(list(found), list(found.values()), style, marker="o", markersize=3, label=name)
    axes.set(xscale="log", yscale="log", xlabel="calls of the network", ylabel="relative error of the end")
    axes.set_xticks(COUNTS, [str(n) for n in COUNTS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["mixture", "emoji", "overhead"])
    parser.add_argument("--out", type=Path, help="a PNG file for the plot")
    told = parser.parse_args()
    if told.what == "overhead":
        overhead()
        return
    rows = compare_on_mixture() if told.what == "mixture" else compare_on_emoji()
    table(rows)
    if told.out:
        plot(rows, told.out)


if __name__ == "__main__":
    main()
