"""Solvers of ours beside those of diffusers and k-diffusion: error against calls of the network, and overhead a step.

    python bench/solvers.py mixture  --out docs/images/solvers-mixture.png
    python bench/solvers.py emoji    --out docs/images/solvers-emoji.png
    python bench/solvers.py overhead

Every run of a comparison starts from the same noise at the top of DDPM's linear path (or the default model's own) and
is held against the end of its trajectory: on the mixture the exact one, by an integrator of order 16; on the default
model, with guidance, that of a run of 1,000 steps, which is held against one of half as many. Errors are root mean
square distances, relative to that of all ends from 0. Two figures are made of them: that of all pictures together,
which one picture decides if it turns into another shape of the same thing, and the geometric mean over pictures.

On the default model a few solvers are compared, in about twenty minutes of two cores. What was measured is kept in a
folder, so that a run that is stopped goes on where it was: the long run from its last hundred steps, the others from
their last number. The folder is named after the weights and what was asked of them, figures also after the code.
"""

from __future__ import annotations

import argparse
import hashlib
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
from safetensors.torch import load_file
from torch import Tensor

from unnoise.core.estimate import Estimate
from unnoise.core.mixture import Mixture
from unnoise.core.noise import NoiseSource
from unnoise.core.notation import make
from unnoise.core.registry import index
from unnoise.core.sample import Run, sample
from unnoise.files import save_tensors

COUNTS = (5, 6, 8, 10, 15, 20, 50)
SPACINGS = ("trailing", "linspace", "karras", "log-snr", "align-your-steps", "kl-optimal", "beta", "simple")
Row = tuple[str, dict[int, list[float]]]  # name, errors of each picture by number of calls
Figure = Callable[[Sequence[float]], float]


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


def together(errors: Sequence[float]) -> float:
    """The error of all pictures at once."""
    return math.sqrt(sum(e * e for e in errors) / len(errors))


def typical(errors: Sequence[float]) -> float:
    """The geometric mean."""
    return math.exp(sum(math.log(max(e, 1e-12)) for e in errors) / len(errors))


FIGURES: dict[str, Figure] = {"all pictures together": together, "geometric mean over pictures": typical}


def errors(
    end: Callable[[int], Tensor | None], truth: Tensor, counts: Sequence[int] = COUNTS
) -> dict[int, list[float]]:
    """{calls: relative error of each row}; those that cannot be run are left out."""
    found = {}
    for count in counts:
        try:
            x = end(count)
        except (ArithmeticError, IndexError, RuntimeError, ValueError):
            continue
        if x is not None and torch.isfinite(x).all():
            off = ((x - truth) ** 2).flatten(1).mean(1).sqrt() / (truth**2).mean().sqrt()
            found[count] = off.tolist()
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

OURS = (  # "own" is the spacing that the model comes with
    "dpmpp-2m, own", "unipc, own", "dpmpp-2m, trailing", "dpmpp-2m, beta", "unipc, trailing", "unipc, beta",
    "dpmpp-3m, trailing", "deis, trailing", "ipndm, trailing",
)  # fmt: skip


def long_run(steps: int, evaluate: Evaluate, x: Tensor, path: Any, kept: Path) -> Tensor:
    """The end of so many steps of dpmpp-2m; every hundredth is kept, and a run that was stopped goes on there."""
    file = kept / f"{steps}-steps.safetensors"
    levels, noise = make("spacings", "trailing").levels(path, steps, x.shape[1:]), NoiseSource([0], ())
    run: Run | None = None
    if file.exists():
        found = load_file(file)
        x, done = found["x"], int(found["done"])
        run = Run(x, levels[done], done, (found["before"], float(levels[done - 1].log_snr)))
    for step in sample(lambda x, here, there: evaluate(x, here), make("solvers", "dpmpp-2m"), levels, x, noise, run):
        x = step.run.x
        if step.run.index % 100 == 0 or step.run.index == steps:
            before = step.run.solver[0] if step.run.solver else x  # what was predicted a step earlier
            save_tensors(file, {"x": x, "before": before, "done": torch.tensor(step.run.index)})
            print(f"{step.run.index} of {steps} steps", file=sys.stderr, flush=True)
    return x


def code() -> str:
    """Tells what draws, ours and theirs, from what drew before: figures of another version are not found.

    The network is not among it, and the long run that all are held against is kept across versions.
    """
    import diffusers

    import unnoise

    rooms = ("core", "guidances", "paths", "predictions", "solvers", "spacings")
    files = [Path(__file__), Path(__file__).with_name("peers.py")]
    files += [file for room in rooms for file in sorted(Path(unnoise.__file__).with_name(room).glob("*.py"))]
    texts = [diffusers.__version__, *(file.read_text("utf-8") for file in files)]
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:12]


def compare_on_emoji(pictures: int, scale: float, reference: int, counts: Sequence[int], folder: Path) -> list[Row]:
    """Some of ours and of theirs on the default model, with guidance, against its own run of many steps."""
    import unnoise
    from unnoise.core.evaluate import batched
    from unnoise.core.guidance import bind
    from unnoise.engine.metadata import weights_sha256
    from unnoise.guidances.cfg import CFG
    from unnoise.recipes.latent import PREVIEW_PROMPTS

    engine = unnoise.load(dtype="float32")
    prompts = list(PREVIEW_PROMPTS[:pictures])
    path, shape = engine.model.denoiser.path, engine.model.space.shape(engine.model.size)
    asked = json.dumps([weights_sha256(engine.model.record), prompts, scale, reference])
    kept = folder / hashlib.sha256(asked.encode()).hexdigest()[:12]
    kept.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        conds = {"cond": engine.model.encode(prompts), "uncond": engine.model.encode([""] * len(prompts))}
        bound = bind(CFG(scale), batched(engine.model.denoiser), conds)
        evaluate: Evaluate = lambda x, here: bound(x, here)  # noqa: E731
        x = NoiseSource(range(len(prompts)), shape).initial() * path.at(1.0).sigma
        truth, half = (long_run(n, evaluate, x, path, kept) for n in (reference, reference // 2))
        apart = float((half - truth).pow(2).mean().sqrt() / truth.pow(2).mean().sqrt())
        print(f"{reference} steps and {reference // 2} end {apart:.2g} apart, relative", flush=True)
        runs: dict[str, Callable[[int, Evaluate, Tensor], Tensor]] = {}
        files: dict[str, str] = {}
        for name in OURS:
            solver, spacing = name.split(", ")
            grid = engine.request("").spacing if spacing == "own" else spacing
            files[f"unnoise {name}"] = f"unnoise {solver}, {grid}"  # a model may come with another one day
            runs[f"unnoise {name}"] = lambda n, e, x, s=solver, g=grid: ours(s, g, n, e, x, path)
        rows = []
        for name, end in (runs | flow_peers()).items():
            file = kept / f"{files.get(name, name).replace(' ', '-')}-{code()}.json"
            found = {int(n): e for n, e in json.loads(file.read_text()).items()} if file.exists() else {}
            for count in counts:
                if count not in found:
                    found |= errors(lambda n, end=end: end(n, evaluate, x), truth, [count])
                    file.write_text(json.dumps(found))
            told = {n: f"{together(found[n]):.4f}" for n in counts if n in found}
            print(name, told, file=sys.stderr, flush=True)
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


def table(rows: Sequence[Row], counts: Sequence[int], figure: Figure = together, most: int = 12) -> None:
    """The best of ours and of theirs by the mean logarithm of a figure, and how the best fixed choices compare."""
    made = {name: {n: figure(found[n]) for n in counts if n in found} for name, found in rows}

    def rank(name: str) -> float:
        found = made[name]
        return typical(list(found.values())) if len(found) == len(counts) else math.inf

    mine = sorted((name for name in made if name.startswith("unnoise")), key=rank)
    theirs = sorted((name for name in made if not name.startswith("unnoise")), key=rank)
    print("| calls | " + " | ".join(map(str, counts)) + " |\n|---" * 1 + "|---" * len(counts) + "|")
    for name in [*mine[:most], *theirs[:most]]:
        told = (f"{made[name][n]:.2g}" if n in made[name] else "-" for n in counts)
        print(f"| {name} | " + " | ".join(told) + " |")
    if theirs:
        best = {n: min((made[name][n], name) for name in theirs if n in made[name]) for n in counts}
        wins = {name: [n for n in counts if made[name].get(n, math.inf) <= best[n][0]] for name in mine}
        chosen = max(wins, key=lambda name: len(wins[name]))
        print(f"\nbest of theirs at each count: {', '.join(f'{n}: {name} {e:.2g}' for n, (e, name) in best.items())}")
        where = f"{len(wins[chosen])} of {len(counts)} ({', '.join(map(str, wins[chosen]))})"
        print(f"one fixed choice of ours: {chosen}, no worse than the best of theirs at {where}")


def plot(rows: Sequence[Row], counts: Sequence[int], out: Path, figures: dict[str, Figure], most: int = 5) -> None:
    """Figures by name against calls, logarithmic both ways, for the best few of each library."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawn, panels = plt.subplots(1, len(figures), figsize=(1.5 + 6 * len(figures), 5.5), sharey=True, squeeze=False)
    shown = []
    for prefix, style in (("unnoise", "-"), ("diffusers", "--"), ("k-diffusion", ":")):
        whole = [row for row in rows if row[0].startswith(prefix) and len(row[1]) == len(counts)]
        best = sorted(whole, key=lambda row: typical([together(row[1][n]) for n in counts]))[:most]
        shown += [(name, found, style) for name, found in best]
    for axes, (title, figure) in zip(panels[0], figures.items(), strict=True):
        for name, found, style in shown:
            axes.plot(counts, [figure(found[n]) for n in counts], style, marker="o", markersize=3, label=name)
        axes.set(xscale="log", yscale="log", xlabel="calls of the network", title=title)
        axes.set_xticks(counts, [str(n) for n in counts])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("relative error of the end")
    panels[0][0].legend(fontsize=7)
    drawn.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["mixture", "emoji", "overhead"])
    parser.add_argument("--out", type=Path, help="a PNG file for the plot")
    parser.add_argument("--pictures", type=int, default=16, help="of the default model")
    parser.add_argument("--scale", type=float, default=3.0, help="of its guidance; docs/benchmarks.md has 3")
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
    some = list(FIGURES)[: 1 if told.what == "mixture" else 2]  # of 256 states none decides
    figures = {name: FIGURES[name] for name in some}
    for name, figure in figures.items():
        print(f"{name}\n")
        table(rows, counts, figure)
        print()
    if told.out:
        plot(rows, counts, told.out, figures)


if __name__ == "__main__":
    main()
