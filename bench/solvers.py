"""Solvers of ours beside those of diffusers and k-diffusion: error against calls of the network, and overhead a step.

    python bench/solvers.py mixture  --out docs/images/solvers-mixture.png
    python bench/solvers.py emoji    --out docs/images/solvers-emoji.png
    python bench/solvers.py overhead

Every run of a comparison starts from the same noise at the top of DDPM's linear path (or the default model's own) and
is held against the end of its trajectory: on the mixture the exact one, by an integrator of order 16; on the default
model, with guidance, that of a run of 1,000 steps, which is held against one of half as many. The error is the root of
the mean squared distance, relative to that of the end itself.

On the default model a few solvers are compared, in about twenty minutes of two cores. What was measured is kept in a
folder, so that a run that is stopped goes on where it was: the long run from its last hundred steps, the others from
their last number. The folder is named after the model's weights and what was asked of it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peers import PATH, Evaluate, flow_peers, peers
from torch import Tensor

from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.mixture import Mixture
from unnoise.core.noise import NoiseSource
from unnoise.core.notation import make
from unnoise.core.registry import index
from unnoise.core.sample import Run, sample

COUNTS = (5, 6, 8, 10, 15, 20, 50)
SPACINGS = ("trailing", "linspace", "karras", "log-snr", "align-your-steps", "kl-optimal", "beta", "simple")
Row = tuple[str, dict[int, float]]


def mixture(dim: int = 8, parts: int = 12) -> Mixture:
    """A dozen lumps of unlike weight and shape, in eight dimensions."""
    g = torch.Generator().manual_seed(3)
    axes = torch.randn(parts, dim, dim, generator=g, dtype=torch.float64)
    covariances = 0.02 * axes @ axes.mT / dim + 0.003 * torch.eye(dim, dtype=torch.float64)
    weights = torch.rand(parts, generator=g, dtype=torch.float64) + 0.2
    return Mixture(weights / weights.sum(), torch.randn(parts, dim, generator=g, dtype=torch.float64), covariances)


def ours(solver: str, spacing: str, steps: int, evaluate: Evaluate, x: Tensor, path: Any = PATH) -> Tensor:
    """The end of a run of ours."""
    levels = make("spacings", spacing).levels(path, steps, x.shape[1:])
    noise = NoiseSource(range(len(x)), x.shape[1:], x.dtype)
    for step in sample(lambda x, here, there: evaluate(x, here), make("solvers", solver), levels, x, noise):
        end = step.run.x
    return end


# comparisons


def errors(end: Callable[[int], Tensor | None], truth: Tensor, counts: Sequence[int] = COUNTS) -> dict[int, float]:
    """{calls: relative error}; those that cannot be run are left out."""
    found = {}
    for count in counts:
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


# on the default model

OURS = (
    "dpmpp-2m, trailing", "dpmpp-2m, beta", "unipc, trailing", "unipc, beta",
    "dpmpp-3m, trailing", "deis, trailing", "ipndm, trailing",
)  # fmt: skip


def long_run(steps: int, evaluate: Evaluate, x: Tensor, path: Any, kept: Path) -> Tensor:
    """The end of so many steps of dpmpp-2m; every hundredth is kept, and a run that was stopped goes on there."""
    file = kept / f"{steps}-steps.pt"
    levels, noise = make("spacings", "trailing").levels(path, steps, x.shape[1:]), NoiseSource([0], ())
    run: Run | None = None
    if file.exists():
        x_, (alpha, sigma), index_, solver = torch.load(file, weights_only=True)
        run = Run(x_, NoiseLevel(alpha, sigma), index_, solver)
        x = x_
    for step in sample(lambda x, here, there: evaluate(x, here), make("solvers", "dpmpp-2m"), levels, x, noise, run):
        x = step.run.x
        if step.run.index % 100 == 0 or step.run.index == steps:
            torch.save((x, tuple(step.run.here), step.run.index, step.run.solver), file)
            print(f"{step.run.index} of {steps} steps", file=sys.stderr, flush=True)
    return x


def compare_on_emoji(pictures: int, scale: float, reference: int, counts: Sequence[int], folder: Path) -> list[Row]:
    """Some of ours and of theirs on the default model, with guidance, against its own run of many steps."""
    import unnoise
    from unnoise.core.guidance import batched, bind
    from unnoise.guidances.cfg import CFG
    from unnoise.recipes.latent import PREVIEW_PROMPTS

    pipeline = unnoise.load(dtype="float32")
    prompts = list(PREVIEW_PROMPTS[:pictures])
    path, shape = pipeline.denoiser.path, pipeline.autoencoder.space.shape(128)
    weights = sum(float(p.double().abs().sum()) for p in pipeline.denoiser.parameters())
    kept = folder / f"{weights:.6f}-{len(prompts)}-{scale:g}-{reference}"
    kept.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        conds = {"cond": pipeline.encode(prompts), "uncond": pipeline.encode([""] * len(prompts))}
        bound = bind(CFG(scale), batched(pipeline.denoiser), conds)
        evaluate: Evaluate = lambda x, here: bound(x, here)  # noqa: E731
        x = NoiseSource(range(len(prompts)), shape).initial() * path.at(1.0).sigma
        truth, half = (long_run(n, evaluate, x, path, kept) for n in (reference, reference // 2))
        apart = float((half - truth).pow(2).mean().sqrt() / truth.pow(2).mean().sqrt())
        print(f"{reference} steps and {reference // 2} end {apart:.2g} apart, relative", flush=True)
        runs: dict[str, Callable[[int, Evaluate, Tensor], Tensor]] = {}
        for name in OURS:
            solver, spacing = name.rsplit(", ", 1)
            runs[f"unnoise {name}"] = lambda n, e, x, s=solver, g=spacing: ours(s, g, n, e, x, path)
        rows = []
        for name, end in (runs | flow_peers()).items():
            file = kept / f"{name.replace(' ', '-')}.json"
            found = {int(n): e for n, e in json.loads(file.read_text()).items()} if file.exists() else {}
            for count in counts:
                if count not in found:
                    found |= errors(lambda n, end=end: end(n, evaluate, x), truth, [count])
                    file.write_text(json.dumps(found))
            print(name, {n: found.get(n) for n in counts}, file=sys.stderr, flush=True)
            rows.append((name, {n: found[n] for n in counts if n in found}))
    return rows


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


def table(rows: Sequence[Row], counts: Sequence[int], most: int = 12) -> None:
    """The best of ours and of theirs by the mean logarithm of their errors, and how the best fixed choices compare."""

    def rank(row: Row) -> float:
        return (
            sum(math.log(max(e, 1e-12)) for e in row[1].values()) / len(row[1])
            if len(row[1]) == len(counts)
            else math.inf
        )

    mine = sorted((row for row in rows if row[0].startswith("unnoise")), key=rank)
    theirs = sorted((row for row in rows if not row[0].startswith("unnoise")), key=rank)
    print("| calls | " + " | ".join(map(str, counts)) + " |\n|---" * 1 + "|---" * len(counts) + "|")
    for name, found in [*mine[:most], *theirs[:most]]:
        print(f"| {name} | " + " | ".join(f"{found[n]:.2g}" if n in found else "-" for n in counts) + " |")
    if theirs:
        best = {n: min((row[1][n], row[0]) for row in theirs if n in row[1]) for n in counts}
        wins = {row[0]: sum(row[1].get(n, math.inf) <= best[n][0] for n in counts) for row in mine}
        chosen = max(wins, key=lambda name: wins[name])
        print(f"\nbest of theirs at each count: {', '.join(f'{n}: {name} {e:.2g}' for n, (e, name) in best.items())}")
        print(
            f"one fixed choice of ours: {chosen}, no worse than the best of theirs at {wins[chosen]} of {len(counts)}"
        )


def plot(rows: Sequence[Row], counts: Sequence[int], out: Path, most: int = 5) -> None:
    """Error against calls, logarithmic both ways, for the best few of each library."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.5))
    for prefix, style in (("unnoise", "-"), ("diffusers", "--"), ("k-diffusion", ":")):
        whole = [row for row in rows if row[0].startswith(prefix) and len(row[1]) == len(counts)]
        for name, found in sorted(whole, key=lambda row: sum(map(math.log, row[1].values())))[:most]:
            axes.plot(list(found), list(found.values()), style, marker="o", markersize=3, label=name)
    axes.set(xscale="log", yscale="log", xlabel="calls of the network", ylabel="relative error of the end")
    axes.set_xticks(counts, [str(n) for n in counts])
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
    parser.add_argument("--pictures", type=int, default=16, help="of the default model")
    parser.add_argument("--scale", type=float, default=3.0, help="of its guidance")
    parser.add_argument("--reference", type=int, default=1000, help="steps of the run that the others are held against")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="calls, on the default model")
    parser.add_argument("--keep", type=Path, default=Path("runs/bench-solvers"), help="where its figures are kept")
    told = parser.parse_args()
    if told.what == "overhead":
        overhead()
        return
    counts = COUNTS if told.what == "mixture" else tuple(told.counts)
    if told.what == "mixture":
        rows = compare_on_mixture()
    else:
        rows = compare_on_emoji(told.pictures, told.scale, told.reference, counts, told.keep)
    table(rows, counts)
    if told.out:
        plot(rows, counts, told.out)


if __name__ == "__main__":
    main()
