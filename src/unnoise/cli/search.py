"""``unnoise search``: the levels that a model's runs should visit, for one number of steps or for any."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import tyro

from unnoise.core import checks
from unnoise.errors import UnnoiseError
from unnoise.notes import say

if TYPE_CHECKING:
    import torch

    from unnoise.core.guidance import Bound
    from unnoise.core.level import NoiseLevel
    from unnoise.core.noise import NoiseSource
    from unnoise.core.path import Path as NoisePath
    from unnoise.engine.model import Model
    from unnoise.engine.request import Request

MOST = 200  # levels of a grid, and prompts
LONG, LONGER = 120, 6  # steps of the runs that a curve is fitted to: at least LONG, and LONGER times its largest count
ROWS = 4  # pictures a batch of a descent: the memory for gradients grows with them
NARROW = 1e-3  # smallest gap between the times that a descent begins with


def search(
    prompt: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")] = (),
    method: Literal["levels", "curve"] = "levels",
    prompts: Path | None = None,
    model: Path | None = None,
    steps: tuple[int, ...] = (),
    cfg_scale: float | None = None,
    guidance: str | None = None,
    spacing: str | None = None,
    grid: int = 64,
    iterations: int = 120,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Search for the noise levels that runs of few steps should visit, on a small batch of the model's own runs.

    Args:
        prompt: prompts to draw, a picture each; by default the previews' sixteen prompts.
        method: levels: the best of a grid for one number of Euler steps; curve: a curve for any number of steps of
            dpmpp-2m, by gradient descent, in minutes.
        prompts: a file with a prompt on each line, # before comments; - reads the standard input.
        model: a model folder or a finished training; by default the model that comes with unnoise.
        steps: number of steps; levels takes one number, by default 8; curve several to fit for, 2 to 50.
        cfg_scale: as for generate; by default the model's.
        guidance: as for generate; by default the model's.
        spacing: the spacing to compare with, and the start of a curve; by default the model's.
        grid: for levels: number of levels to choose from, at least as many as steps and at most 200.
        iterations: for curve: number of iterations, 1 to 10,000.
        seed: seed of the first picture; picture i has seed + i.
        device: cpu, cuda or auto.
        dtype: float32, bfloat16, float16 (GPU only) or auto; a curve needs float32, its auto.
        threads: processor threads.
        as_json: print the result as one line of JSON.
    """
    from unnoise.cli.prompts import Prompt, checked, read_prompts
    from unnoise.engine.load import load_engine
    from unnoise.recipes.latent import PREVIEW_PROMPTS
    from unnoise.study.descent import COUNTS

    if prompt and prompts is not None:
        raise UnnoiseError("there are a prompt and --prompts", "leave one of them out")
    checks.whole("--seed", seed, 0, 2**62 - 1)
    counts = steps or ((8,) if method == "levels" else COUNTS)
    if method == "levels":
        if len(counts) != 1:
            raise UnnoiseError("levels are searched for one number of steps", "name one, or --method curve")
        if not 1 <= counts[0] <= grid <= MOST:
            raise UnnoiseError(
                f"{counts[0]} steps from a grid of {grid}", "ask for 1 step or more, from 200 levels at most"
            )
    elif not all(2 <= n <= 50 for n in counts) or not 1 <= iterations <= 10_000:
        raise UnnoiseError(
            f"a curve for {', '.join(map(str, counts))} steps in {iterations} iterations",
            "ask for 2 to 50 steps, and 1 to 10000 iterations",
        )
    lines = read_prompts(None, prompts) if prompts is not None else [checked(Prompt(text)) for text in prompt]
    texts = [each.text for each in lines] or list(PREVIEW_PROMPTS)
    if len(texts) > MOST:
        raise UnnoiseError(f"{len(texts)} prompts are too many", f"{MOST} at most")
    precision = "float32" if method == "curve" and dtype == "auto" else dtype
    engine = load_engine(model, device, precision, threads)
    request = engine.request("", cfg_scale=cfg_scale, guidance=guidance, spacing=spacing)
    runs = Runs(engine.model, request, texts, seed)
    if method == "levels":
        result, errors = of_levels(runs, counts[0], grid)
        print(levels_text(counts[0], grid, result, errors, as_json))
    else:
        result, table = of_curve(runs, counts, iterations)
        print(curve_text(request.spacing, iterations, result, table, as_json))


class Runs(NamedTuple):
    """What is drawn: a model, a request with its settings, prompts, and the seed of the first picture."""

    model: Model
    request: Request
    prompts: Sequence[str]
    seed: int

    @property
    def path(self) -> NoisePath:
        return self.model.denoiser.path

    @property
    def shape(self) -> Sequence[int]:
        return self.model.shape(self.request)

    def denoise(self, rows: slice = slice(None)) -> Bound:
        """Guided, for these of the prompts."""
        from unnoise.core.evaluate import batched
        from unnoise.core.guidance import bind

        prompts = list(self.prompts[rows])
        empty = self.model.encode([""], negative=True).repeat(len(prompts))
        conds = {"cond": self.model.encode(prompts), "uncond": empty}
        return bind(self.request.steer(), batched(self.model.denoiser), conds)

    def noise(self, rows: slice = slice(None), fresh: bool = False) -> NoiseSource:
        """Of these pictures; or fresh, that no search has seen."""
        import torch

        from unnoise.core.noise import NoiseSource

        first = self.seed + (len(self.prompts) if fresh else 0)
        seeds = range(first, first + len(self.prompts))[rows]
        return NoiseSource(seeds, self.shape, torch.float32, self.model.device)

    def levels(self, spacing: str, steps: int) -> list[NoiseLevel]:
        from unnoise.core.notation import make

        return make("spacings", spacing).levels(self.path, steps, self.shape)  # type: ignore[no-any-return]

    def end(self, solver: str, levels: Sequence[NoiseLevel], denoise: Bound, noise: NoiseSource) -> torch.Tensor:
        """The end of a run."""
        from unnoise.core.notation import make
        from unnoise.core.sample import sample

        *_, last = sample(denoise, make("solvers", solver), levels, noise.initial() * levels[0].sigma, noise)
        return last.run.x


def of_levels(runs: Runs, steps: int, grid: int) -> tuple[str, dict[str, float]]:
    """(a custom spacing, errors by spacing): the best levels of a grid for this number of Euler steps."""
    import torch

    from unnoise.spacings.kl_optimal import KLOptimal
    from unnoise.study.search import best_levels, costs

    fine = KLOptimal().levels(runs.path, grid, runs.shape)
    usual = runs.levels(runs.request.spacing, steps)
    with torch.inference_mode():
        denoise, fresh = runs.denoise(), runs.noise(fresh=True)
        levels = best_levels(costs(denoise, fine, runs.noise().initial() * fine[0].sigma), steps)
        ends = costs(denoise, fine, fresh.initial() * fine[0].sigma).end

        def off(candidate: Sequence[NoiseLevel]) -> float:
            return float((runs.end("euler", candidate, denoise, fresh) - ends).pow(2).mean().sqrt())

        errors = {"searched": round(off(levels), 4), runs.request.spacing: round(off(usual), 4)}
    return custom_text(runs.path, levels), errors


def of_curve(runs: Runs, counts: Sequence[int], iterations: int) -> tuple[str, dict[int, dict[str, float]]]:
    """(a curve, errors by number of steps and spacing): a curve fitted by descent, evaluated on fresh noise.

    If it is interrupted or fails after the first iteration, it prints the curve so far.
    """
    import torch

    from unnoise.cli.progress import counted
    from unnoise.study.descent import Batch, descend, errors

    rows = [slice(first, first + ROWS) for first in range(0, len(runs.prompts), ROWS)]
    long = max(LONG, LONGER * max(counts))
    fine, times, fitted = runs.levels(runs.request.spacing, long), first_times(runs), ""
    runs.model.denoiser.requires_grad_(False)
    bounds: list[Bound] = []

    def ends(what: str, fresh: bool, levels: Sequence[NoiseLevel] = fine) -> list[torch.Tensor]:
        each = zip(rows, bounds, strict=True)
        return [runs.end("dpmpp-2m", levels, bound, runs.noise(r, fresh)) for r, bound in counted(what, list(each))]

    try:
        with torch.no_grad():
            bounds += [runs.denoise(each) for each in rows]  # first of all: a prompt may be too long
            targets = ends("long runs", fresh=False)
            others = ends("more long runs", fresh=True)
            starts = [runs.noise(each).initial() * fine[0].sigma for each in rows]
        batches = [Batch(*each) for each in zip(bounds, starts, targets, strict=True)]
        for fit in counted("iterations", descend(runs.path, batches, times, counts, iterations, runs.seed), iterations):
            fitted = curve(fit.times)
        table: dict[int, dict[str, float]] = {}
        with torch.inference_mode():
            for n in counts:
                for name, spacing in (("curve", fitted), ("before", runs.request.spacing)):
                    short = ends(f"of {n} steps", True, runs.levels(spacing, n))
                    off = errors(torch.cat(short), torch.cat(others))
                    table.setdefault(n, {})[name] = float(f"{off.log().mean().exp():.3g}")
    except (KeyboardInterrupt, MemoryError, RuntimeError, UnnoiseError):
        if fitted:
            say(f'so far; to go on from here: --method curve --spacing "{fitted}"')
        raise
    return fitted, table


def first_times(runs: Runs) -> list[float]:
    """The start of a descent: a curve's own points, or ten of another spacing, with a minimal gap between them.

    Raises:
        UnnoiseError: the spacing starts at another level for another number of steps.
    """
    from unnoise.core.notation import make
    from unnoise.spacings.curve import Curve
    from unnoise.study.descent import POINTS

    spacing = make("spacings", runs.request.spacing)
    if isinstance(spacing, Curve) and len(spacing.times) > 1:
        return spacing.times
    start, top = runs.levels(runs.request.spacing, POINTS), runs.levels(runs.request.spacing, LONG)[0]
    if abs(float(start[0].sigma) - float(top.sigma)) > 1e-9:
        raise UnnoiseError(
            f"{runs.request.spacing} begins at another level for another number of steps",
            "name a --spacing that always begins at the noisiest, such as beta",
        )
    low, last = runs.path.t_min, len(start) - 1
    times = [(float(runs.path.time_of(level)) - low) / (1 - low) for level in start[:-1]]
    return [max(t, NARROW * (last - k)) for k, t in enumerate(times)]


def curve(times: Sequence[float]) -> str:
    """A curve in the notation of options: times to four digits, or to as many as are needed for them to fall."""
    from unnoise.spacings.curve import falls

    spellings = [[f"{t:.{digits}g}" for t in times] for digits in range(4, 18)]
    spelling = next((each for each in spellings if falls([float(t) for t in each])), spellings[-1])
    return f"curve(times=[{', '.join(spelling)}])"


def custom_text(path: NoisePath, levels: Sequence[NoiseLevel]) -> str:
    """The levels as a custom spacing in the notation of options: times to five digits, without the final data."""
    times = [float(path.time_of(level)) for level in levels[:-1]]
    return f"custom(times=[{', '.join(f'{t:.5g}' for t in times)}])"


def levels_text(steps: int, grid: int, spacing: str, errors: dict[str, float], as_json: bool) -> str:
    """The text to print for levels."""
    if as_json:
        return json.dumps({"steps": steps, "spacing": spacing, "errors": errors})
    figures = ", ".join(f"{name} {error:g}" for name, error in errors.items())
    far = f"Euler's distance from a run of {grid} steps of Heun, on other noise: {figures}"
    return f'--steps {steps} --spacing "{spacing}"\n{far}'


def curve_text(before: str, iterations: int, spacing: str, table: dict[int, dict[str, float]], as_json: bool) -> str:
    """The text to print for a curve."""
    if as_json:
        return json.dumps({"iterations": iterations, "spacing": spacing, "before": before, "errors": table})
    lines = [f"{n:>5} {each['curve']:>8g} {each['before']:>8g}" for n, each in table.items()]
    head = f"dpmpp-2m's distance from long runs, relative, geometric mean, on other noise; before: {before}"
    return "\n".join([f'--spacing "{spacing}"', head, "steps    curve   before", *lines])
