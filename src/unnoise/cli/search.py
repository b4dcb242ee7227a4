"""``unnoise search``: the levels that a model's runs should visit, for a number of steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from unnoise.errors import UnnoiseError

if TYPE_CHECKING:
    from unnoise.core.level import NoiseLevel
    from unnoise.core.path import Path as NoisePath


def search(
    prompts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")] = (),
    model: Path | None = None,
    steps: int = 8,
    cfg_scale: float | None = None,
    guidance: str | None = None,
    grid: int = 64,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Search for the noise levels that a few Euler steps should visit, on a small batch of the model's own runs.

    Args:
        prompts: what is drawn, a picture each; the previews' sixteen prompts if left out.
        model: a model folder or a finished training; the model that comes with unnoise if left out.
        steps: how many, at least 1.
        cfg_scale: as for generate; the model's if left out.
        guidance: as for generate; the model's if left out.
        grid: the levels are chosen from so many, at least as many as steps and at most 200.
        seed: of the first picture; picture i has seed + i.
        device: cpu, cuda or auto.
        dtype: float32, bfloat16, float16 (GPU only) or auto.
        threads: processor threads.
        as_json: print what was found as one line of JSON.
    """
    if not 1 <= steps <= grid <= 200:
        raise UnnoiseError(f"{steps} steps from a grid of {grid}", "ask for 1 step or more, from a grid of at most 200")
    import torch

    from unnoise.core.guidance import batched, bind
    from unnoise.core.noise import NoiseSource
    from unnoise.core.notation import make
    from unnoise.core.sample import sample
    from unnoise.pipelines.load import load_pipeline
    from unnoise.pipelines.text_to_picture import SIZE
    from unnoise.recipes.latent import PREVIEW_PROMPTS
    from unnoise.solvers.euler import Euler
    from unnoise.spacings.kl_optimal import KLOptimal
    from unnoise.study.search import best_levels, costs

    pipeline = load_pipeline(model, device, dtype, threads)
    settings = pipeline.settings(cfg_scale=cfg_scale, guidance=guidance)
    drawn = list(prompts or PREVIEW_PROMPTS)
    shape, path = pipeline.autoencoder.space.shape(SIZE), pipeline.denoiser.path
    fine = KLOptimal().levels(path, grid, shape)
    usual = make("spacings", settings.spacing).levels(path, steps, shape)
    with torch.inference_mode():
        conds = {"cond": pipeline.encode(drawn), "uncond": pipeline.encode([""]).repeat(len(drawn))}
        denoise = bind(settings.steer(), batched(pipeline.denoiser), conds)

        def noise(first: int) -> NoiseSource:
            return NoiseSource(range(first, first + len(drawn)), shape, torch.float32, pipeline.device)

        levels = best_levels(costs(denoise, fine, noise(seed).initial() * fine[0].sigma), steps)
        fresh = noise(seed + len(drawn))  # judged on noise that the search has not seen
        wanted = costs(denoise, fine, fresh.initial() * fine[0].sigma).end

        def off(chosen: Sequence[NoiseLevel]) -> float:
            *_, last = sample(denoise, Euler(), chosen, fresh.initial() * chosen[0].sigma, fresh)
            return float((last.run.x - wanted).pow(2).mean().sqrt())

        errors = {"searched": round(off(levels), 4), settings.spacing: round(off(usual), 4)}
    spacing = typed(path, levels)
    if as_json:
        print(json.dumps({"steps": steps, "spacing": spacing, "errors": errors}))
    else:
        print(f'--steps {steps} --spacing "{spacing}"')
        told = ", ".join(f"{name} {error:g}" for name, error in errors.items())
        print(f"Euler's distance from a run of {grid} steps of Heun, on other noise: {told}")


def typed(path: NoisePath, levels: Sequence[NoiseLevel]) -> str:
    """The levels as a custom spacing, as a person types it: times to five digits; data is understood."""
    times = [float(path.time_of(level)) for level in levels[:-1]]
    return f"custom(times=[{', '.join(f'{t:.5g}' for t in times)}])"
