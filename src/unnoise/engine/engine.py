"""The engine: requests in, pictures out, by the one loop that draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unnoise.core import checks
from unnoise.data.square import on_white
from unnoise.engine import masks
from unnoise.engine.events import Event, Failed, Finished, Stepped
from unnoise.engine.live import Live
from unnoise.engine.model import Model
from unnoise.engine.request import RULES, Request
from unnoise.pictures import from_image, pixels_sha256

ROOM = 16  # pictures that are drawn at a time


class Engine:
    """Draws pictures with a model. It holds nothing of any run between calls: threads may share it.

    Args:
        model: what draws.
        room: how many pictures are drawn at a time; the others wait their turn.
    """

    def __init__(self, model: Model, room: int = ROOM) -> None:
        self.model, self.room = checks.instance("model", model, Model, "give a Model"), checks.whole("room", room, 1)

    def request(self, prompt: str, **changes: Any) -> Request:
        """A request with the model's default settings, and those changes that are not None; see ``Request``.

        Raises:
            UnnoiseError: an unknown setting, or one that cannot be drawn with.
        """
        return self.model.request(prompt, **changes)

    def live(self, sources: Mapping[str, Image.Image] | None = None, strict: bool = False) -> Live:
        """Runs that others may join while they are drawn, which is what a server needs; args as in ``draw``."""
        return Live(self.model, sources, 1 if checks.flag("strict", strict) else self.room)

    def draw(
        self,
        requests: Iterable[Request],
        sources: Mapping[str, Image.Image] | None = None,
        strict: bool = False,
    ) -> Iterator[Event]:
        """What happens to all requests, in the order in which it happens: the only loop that draws.

        Each request is ``Admitted``, has a ``Stepped`` for each step, and is ``Finished`` or ``Failed``. They share
        calls of the networks. Libraries add a batch's numbers in another order than one picture's, so that a picture's
        bits depend, by rounding, on what is drawn beside it. Leaving the loop ends all runs.

        Args:
            requests: all of them are checked before the first is begun.
            sources: pictures that requests start from, and masks, by their SHA-256; see ``source``.
            strict: draw one after the other, so that a picture's bits depend on its own request alone.

        Raises:
            UnnoiseError: at once, a request that the model cannot draw.
        """
        live = self.live(sources, strict)
        for request in requests:
            live.add(request)
        return _events(live)

    def pictures(
        self, requests: Sequence[Request], sources: Mapping[str, Image.Image] | None = None, strict: bool = False
    ) -> list[Image.Image]:
        """The pictures of all requests, in their order; args as in ``draw``.

        Raises:
            UnnoiseError: a request cannot be drawn.
        """
        return [each.picture for each in finished(self.draw(requests, sources, strict))]

    def pixels(self, requests: Sequence[Request]) -> Tensor:
        """(N, 3, H, W) uint8: ``pictures`` of one size as a tensor."""
        return torch.stack([from_image(picture) for picture in self.pictures(requests)])

    def generate(
        self,
        prompt: str,
        negative: str = "",
        count: int = 1,
        seed: int = 0,
        *,
        start: Image.Image | None = None,
        mask: Image.Image | None = None,
        strict: bool = False,
        weights: bool = True,
        **changes: Any,
    ) -> list[Image.Image]:
        """Pictures for a prompt; picture i is drawn with seed + i.

        Args:
            prompt: what to draw; brackets weigh words, see ``engine.emphasis``.
            negative: what to steer away from.
            count: how many, 1 to 10,000.
            seed: of the first, 0 to 2^63 - ``count``; the same seed, settings and machine give the same bits.
            start: a picture of any size to start from in place of noise.
            mask: as large as ``start``; what it selects is drawn anew, see ``masks.selection``, the rest stays.
            strict: draw each picture alone: slower, and its bits do not depend on ``count``.
            weights: False takes brackets in the prompts as text.
            changes: further fields of ``Request``, such as steps, cfg_scale, solver, size; None is the model's default.

        Raises:
            UnnoiseError: a setting that cannot be drawn, an unknown name, or a prompt longer than the model reads.
        """
        count = checks.whole("count", count, 1, checks.PICTURES)
        seed = checks.seed("seed", seed, count)
        sources, own = sources_of(start, mask)
        own |= {"negative": checks.text("negative", negative), "weights": checks.flag("weights", weights)}
        first = self.request(prompt, **changes | own)
        return self.pictures([replace(first, seed=seed + i) for i in range(count)], sources, strict)

    def steps(
        self,
        prompt: str,
        negative: str = "",
        seed: int = 0,
        *,
        start: Image.Image | None = None,
        mask: Image.Image | None = None,
        weights: bool = True,
        **changes: Any,
    ) -> Iterator[Stepped]:
        """The steps of one picture, to look at one after the other; args and errors as of ``generate``.

        >>> for step in engine.steps("red apple"):   # doctest: +SKIP
        ...     step.picture.save(f"{step.index}.png")
        """
        sources, own = sources_of(start, mask)
        own |= {"negative": checks.text("negative", negative), "weights": checks.flag("weights", weights)}
        request = self.request(prompt, **changes | own, seed=checks.seed("seed", seed))
        events = self.draw([request], sources)
        return (each for each in sound(events) if isinstance(each, Stepped))


def source(picture: Image.Image) -> tuple[str, Image.Image]:
    """(what identifies it, the picture upright and on white) of a picture to start from.

    Raises:
        UnnoiseError: it is none, or its file is damaged.
    """
    whole = on_white(masks.whole("start", picture))
    return pixels_sha256(whole), whole


def mask_source(mask: Image.Image, rules: int = RULES) -> tuple[str, Image.Image]:
    """(what identifies it, the mask upright).

    Raises:
        UnnoiseError: it is none, or its file is damaged.
    """
    whole = masks.whole("mask", mask)
    return masks.identity(whole, rules), whole


def sources_of(
    start: Image.Image | None, mask: Image.Image | None, rules: int = RULES
) -> tuple[dict[str, Image.Image], dict[str, Any]]:
    """({what identifies it: picture}, {field of a request: what identifies it}) of those that there are."""
    named = {} if start is None else {"start": source(start)}
    named |= {} if mask is None else {"mask": mask_source(mask, rules)}
    return dict(named.values()), {field: key for field, (key, _) in named.items()}


def finished(events: Iterable[Event]) -> list[Finished]:
    """What became of all requests, in their order.

    Raises:
        UnnoiseError: one has failed.
    """
    return sorted((each for each in sound(events) if isinstance(each, Finished)), key=lambda each: each.number)


def _events(live: Live) -> Iterator[Event]:
    while live:
        yield from live.tick()


def sound(events: Iterable[Event]) -> Iterator[Event]:
    """The events, up to a failed request, whose error is raised."""
    for each in events:
        if isinstance(each, Failed):
            raise each.error
        yield each
