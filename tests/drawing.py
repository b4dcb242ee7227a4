"""Drawing for tests: floats and states of many requests, by the one loop that draws; records of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unnoise.engine.engine import Engine, finished, sound, sources_of
from unnoise.engine.events import Finished, Stepped
from unnoise.engine.metadata import Record, record_of


def requests_of(
    engine: Engine, prompts: Sequence[str], seeds: Sequence[int], negative: str = "", **changes: Any
) -> Any:
    """A request for each prompt and seed."""
    pairs = zip(prompts, seeds, strict=True)
    return [engine.request(prompt, seed=seed, negative=negative, **changes) for prompt, seed in pairs]


def latents_of(
    engine: Engine, prompts: Sequence[str], seeds: Sequence[int], negative: str = "", **changes: Any
) -> Tensor:
    """(N, C, h, w) states at the end of requests that were drawn side by side."""
    done = finished(engine.draw(requests_of(engine, prompts, seeds, negative, **changes)))
    return torch.cat([each.latents for each in done if each.latents is not None])


def record(engine: Engine, prompt: str = "red apple", **changes: Any) -> Record:
    """The record of a picture that was drawn alone, without drawing it."""
    request = engine.request(prompt, **{"seed": 7} | changes)
    return record_of(engine.model, Finished(0, request, Image.new("RGB", (8, 8)), None, 0, 1, False))


def draw(
    engine: Engine,
    prompts: Sequence[str],
    seeds: Sequence[int],
    negative: str = "",
    start: Image.Image | None = None,
    mask: Image.Image | None = None,
    **changes: Any,
) -> Tensor:
    """(N, 3, H, W) float pictures in about [-1, 1], drawn side by side."""
    sources, own = sources_of(start, mask)
    done = finished(engine.draw(requests_of(engine, prompts, seeds, negative, **changes, **own), sources))
    latents = [each.latents for each in done if each.latents is not None]
    with torch.inference_mode():
        return engine.model.pixels(torch.cat(latents)).float().cpu()


def steps_of(
    engine: Engine,
    prompt: str,
    seed: int,
    start: Image.Image | None = None,
    mask: Image.Image | None = None,
    **changes: Any,
) -> list[Stepped]:
    """The steps of one request."""
    sources, own = sources_of(start, mask)
    events = engine.draw([engine.request(prompt, seed=seed, **changes, **own)], sources)
    return [each for each in sound(events) if isinstance(each, Stepped)]
