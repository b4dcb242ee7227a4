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
LONG, LONGER = 120, 6  # steps of the runs that a curve is fitted to: so many, and so many times the most that it is for
ROWS = 4  # pictures a batch of a descent: what its gradients keep grows with them
NARROW = 1e-3  # least gap between the times that a descent begins with


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
        prompt: what is drawn, a picture each; the previews' sixteen prompts if left out.
        method: levels: the best of a grid for one number of Euler steps; curve: a curve for any number of steps of
            dpmpp-2m, by gradient descent, in minutes.
        prompts: a file with a prompt on each line, # before comments; - reads the standard input.
        model: a model folder or a finished training; the model that comes with unnoise if left out.
        steps: how many; levels takes one number, 8 if left out; curve those that it is fitted for, 2 to 50.
        cfg_scale: as for generate; the model's if left out.
        guidance: as for generate; the model's if left out.
        spacing: what is compared, and where a curve begins; the model's if left out.
        grid: of levels alone: they are chosen from so many, at least as many as steps and at most 200.
        iterations: of a curve alone, 1 to 10,000.
        seed: of the first picture; picture i has seed + i.
        device: cpu, cuda or auto.
        dtype: float32, bfloat16, float16 (GPU only) or auto; a curve wants float32, its auto.
        threads: processor threads.
        as_json: print what was found as one line of JSON.
    """
    from unnoise.cli.prompts import Prompt, checked, read_prompts
    from unnoise.engine.load import load_engine
    from unnoise.recipes.latent import PREVIEW_PROMPTS
    from unnoise.study.descent import COUNTS

    if prompt and prompts is not None:
        raise UnnoiseError("there are a prompt and --prompts", "leave one of them out")
    checks.whole("--seed", seed, 0, 2**62 - 1)
    chosen = steps or ((8,) if method == "levels" else COUNTS)
    if method == "levels":
        if len(chosen) != 1:
            raise UnnoiseError("levels are searched for one number of steps", "name one, or --method curve")
        if not 1 <= chosen[0] <= grid <= MOST:
            raise UnnoiseError(
                f"{chosen[0]} steps from a grid of {grid}", "ask for 1 step or more, from 200 levels at most"
            )
    elif not all(2 <= n <= 50 for n in chosen) or not 1 <= iterations <= 10_000:
        raise UnnoiseError(
            f"a curve for {', '.join(map(str, chosen))} steps in {iterations} iterations",
            "ask for 2 to 50 steps, and 1 to 10000 iterations",
        )
    told = read_prompts(None, prompts) if prompts is not None else [checked(Prompt(text)) for text in prompt]
    drawn = [each.text for each in told] or list(PREVIEW_PROMPTS)
    if len(drawn) > MOST:
        raise UnnoiseError(f"{len(drawn)} prompts are too many", f"{MOST} at most")
    wanted = "float32" if method == "curve" and dtype == "auto" else dtype
    engine = load_engine(model, device, wanted, threads)
    request = engine.request("", cfg_scale=cfg_scale, guidance=guidance, spacing=spacing)
    runs = Runs(engine.model, request, drawn, seed)
    if method == "levels":
        found, errors = of_levels(runs, chosen[0], grid)
        print(told_levels(chosen[0], grid, found, errors, as_json))
    else:
        found, table = of_curve(runs, chosen, iterations)
        print(told_curve(request.spacing, iterations, found, table, as_json))


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
        conds = {"cond": self.model.encode(prompts), "uncond": self.model.encode([""]).repeat(len(prompts))}
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
        """Where a run ends."""
        from unnoise.core.notation import make
        from unnoise.core.sample import sample

        *_, last = sample(denoise, make("solvers", solver), levels, noise.initial() * levels[0].sigma, noise)
        return last.run.x


def of_levels(runs: Runs, steps: int, grid: int) -> tuple[str, dict[str, float]]:
    """(a custom spacing, errors by spacing): the best levels of a grid for so many Euler steps."""
    import torch

    from unnoise.spacings.kl_optimal import KLOptimal
    from unnoise.study.search import best_levels, costs

    fine = KLOptimal().levels(runs.path, grid, runs.shape)
    usual = runs.levels(runs.request.spacing, steps)
    with torch.inference_mode():
        denoise, fresh = runs.denoise(), runs.noise(fresh=True)
        levels = best_levels(costs(denoise, fine, runs.noise().initial() * fine[0].sigma), steps)
        wanted = costs(denoise, fine, fresh.initial() * fine[0].sigma).end

        def off(chosen: Sequence[NoiseLevel]) -> float:
            return float((runs.end("euler", chosen, denoise, fresh) - wanted).pow(2).mean().sqrt())

        errors = {"searched": round(off(levels), 4), runs.request.spacing: round(off(usual), 4)}
    return typed(runs.path, levels), errors


def of_curve(runs: Runs, counts: Sequence[int], iterations: int) -> tuple[str, dict[int, dict[str, float]]]:
    """(a curve, errors by number of steps and spacing): a curve fitted by descent, judged on fresh noise.

    Once something is fitted it is told, even if what comes after is interrupted or fails.
    """
    import torch

    from unnoise.cli.progress import counted
    from unnoise.study.descent import Batch, descend, errors

    rows = [slice(first, first + ROWS) for first in range(0, len(runs.prompts), ROWS)]
    long = max(LONG, LONGER * max(counts))
    fine, times, found = runs.levels(runs.request.spacing, long), first_times(runs), ""
    runs.model.denoiser.requires_grad_(False)
    bounds: list[Bound] = []

    def ends(what: str, fresh: bool, levels: Sequence[NoiseLevel] = fine) -> list[torch.Tensor]:
        each = zip(rows, bounds, strict=True)
        return [runs.end("dpmpp-2m", levels, bound, runs.noise(r, fresh)) for r, bound in counted(what, list(each))]

    try:
        with torch.no_grad():
            bounds += [runs.denoise(each) for each in rows]  # first of all: a prompt may be too long
            known = ends("long runs", fresh=False)
            others = ends("more long runs", fresh=True)
            starts = [runs.noise(each).initial() * fine[0].sigma for each in rows]
        batches = [Batch(*each) for each in zip(bounds, starts, known, strict=True)]
        for fit in counted("iterations", descend(runs.path, batches, times, counts, iterations, runs.seed), iterations):
            found = curve(fit.times)
        table: dict[int, dict[str, float]] = {}
        with torch.inference_mode():
            for n in counts:
                for name, spacing in (("curve", found), ("before", runs.request.spacing)):
                    short = ends(f"of {n} steps", True, runs.levels(spacing, n))
                    off = errors(torch.cat(short), torch.cat(others))
                    table.setdefault(n, {})[name] = float(f"{off.log().mean().exp():.3g}")
    except (KeyboardInterrupt, MemoryError, RuntimeError, UnnoiseError):
        if found:
            say(f'so far; to go on from here: --method curve --spacing "{found}"')
        raise
    return found, table


def first_times(runs: Runs) -> list[float]:
    """Where a descent begins: a curve's own points, or ten of another spacing, none of them too near to the next.

    Raises:
        UnnoiseError: the spacing starts elsewhere with another number of steps.
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
    """As a person types it: times to four digits, or as many as it takes for them to fall."""
    from unnoise.spacings.curve import falls

    written = [[f"{t:.{digits}g}" for t in times] for digits in range(4, 18)]
    chosen = next((each for each in written if falls([float(t) for t in each])), written[-1])
    return f"curve(times=[{', '.join(chosen)}])"


def typed(path: NoisePath, levels: Sequence[NoiseLevel]) -> str:
    """The levels as a custom spacing, as a person types it: times to five digits; data is understood."""
    times = [float(path.time_of(level)) for level in levels[:-1]]
    return f"custom(times=[{', '.join(f'{t:.5g}' for t in times)}])"


def told_levels(steps: int, grid: int, spacing: str, errors: dict[str, float], as_json: bool) -> str:
    """What is printed of levels."""
    if as_json:
        return json.dumps({"steps": steps, "spacing": spacing, "errors": errors})
    told = ", ".join(f"{name} {error:g}" for name, error in errors.items())
    far = f"Euler's distance from a run of {grid} steps of Heun, on other noise: {told}"
    return f'--steps {steps} --spacing "{spacing}"\n{far}'


def told_curve(before: str, iterations: int, spacing: str, table: dict[int, dict[str, float]], as_json: bool) -> str:
    """What is printed of a curve."""
    if as_json:
        return json.dumps({"iterations": iterations, "spacing": spacing, "before": before, "errors": table})
    lines = [f"{n:>5} {each['curve']:>8g} {each['before']:>8g}" for n, each in table.items()]
    head = f"dpmpp-2m's distance from long runs, relative, geometric mean, on other noise; before: {before}"
    return "\n".join([f'--spacing "{spacing}"', head, "steps    curve   before", *lines])
