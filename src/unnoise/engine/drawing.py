"""One request while it is drawn: a generator that asks questions of networks and yields steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import torch
from PIL import Image
from torch import Tensor

from unnoise.core.condition import Condition
from unnoise.core.evaluate import Question
from unnoise.core.guidance import Asks, Bound, Evaluate, Parts, bind
from unnoise.core.inversion import invert
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import BrownianNoise, NoiseSource, TorchNoise, TorchStart
from unnoise.core.sample import Run, Step, check_levels, take
from unnoise.engine.events import Stepped
from unnoise.engine.model import Model
from unnoise.engine.outpaint import Canvas, windows
from unnoise.engine.request import Request
from unnoise.engine.start import Known, Start, begin, levels_from
from unnoise.guidances.cfg import CFG

REMEMBERED = 256  # conditions and starts that requests share
ROUNDS = 8  # of the iteration that inverts a step
NOISES = {"independent": NoiseSource, "brownian": BrownianNoise, "torch": TorchNoise}
T = TypeVar("T")


class End(NamedTuple):
    """What a drawing comes to: latents, (1, C, h, w), and what its run started from; or a picture that grew."""

    what: Tensor | Image.Image
    start: Start | None = None


Life = Generator[Question | Stepped | None, Parts | None, End]  # None: it waits for another drawing of the same start


class _MissingAnswer(Exception):
    """Raised where an answer is not there yet."""

    def __init__(self, question: Question) -> None:
        self.question = question


def suspended(work: Callable[[Evaluate], T]) -> Generator[Question, Parts, T]:
    """Runs a pure function of its ``evaluate``, and waits outside of it for each answer.

    A solver asks in the middle of its step. The step is a pure function of what it is given, so that taking it again
    with the answers so far, up to the first question without one, is as good as having waited there. No thread waits,
    and a drawing that is dropped leaves nothing behind.
    """
    answers: list[Parts] = []
    while True:
        try:
            return work(_replayed(answers))
        except _MissingAnswer as missing:
            question = missing.question
        answers.append((yield question))


def _replayed(answers: list[Parts]) -> Evaluate:
    """An ``evaluate`` that gives these answers, one after the other, and then raises the next question."""
    rest = iter(answers)

    def evaluate(x: Tensor, here: NoiseLevel, there: NoiseLevel | None, asks: Asks) -> Parts:
        parts = next(rest, None)
        if parts is None:
            raise _MissingAnswer(Question(x, here, there, asks))
        return parts

    return evaluate


class Drawing:
    """What a request needs to be drawn by a model: conditions, levels, noise, guidance.

    Args:
        number: which of the requests.
        request: it, complete.
        model: what draws.
        sources: pictures by their SHA-256.
        remembered: what requests share, such as conditions and starts, by keys.
    """

    def __init__(
        self,
        number: int,
        request: Request,
        model: Model,
        sources: Mapping[str, Image.Image],
        remembered: dict[object, object],
    ) -> None:
        self.number, self.request, self.model = number, request, model
        self.sources, self.remembered = sources, remembered
        self.shape = model.shape(request)

    def life(self) -> Life:
        """Draws from the first step to the last: yields questions, is sent their answers, and yields steps."""
        request = self.request
        if (by := request.margins) is not None:
            return (yield from self._grow(Canvas(self._source("start"), by, self._size)))
        start = self._start()
        if start is not None and request.invert is not None:
            start = yield from self._inverted(start)
        return (yield from self._run(request.seed, start))

    @property
    def _size(self) -> tuple[int, int]:
        assert self.request.size is not None  # it is complete
        return self.request.size

    def _source(self, name: str) -> Image.Image:
        """The picture that a field of the request identifies."""
        return self.sources[getattr(self.request, name)]

    def _once(self, key: object, make: Callable[[], T]) -> T:
        if key not in self.remembered:
            while len(self.remembered) >= REMEMBERED:
                self.remembered.pop(next(iter(self.remembered)))
            self.remembered[key] = make()
        return self.remembered[key]  # type: ignore[return-value]

    def _cond(self, prompt: str, negative: bool = False) -> Condition:
        """The condition of a prompt, one row."""
        request, size = self.request, self._size
        key = "cond", prompt, request.weights, request.rules < 2, size, request.clip_skip, negative
        more: dict[str, Any] = {"size": size, "clip_skip": request.clip_skip, "negative": negative}
        return self._once(key, lambda: self.model.encode([prompt], request.weights, request.rules, **more))

    def _start(self) -> Start | None:
        """What the run starts from; None for noise."""
        request = self.request
        if request.start is None:
            return None
        mask = None if request.mask is None else self._source("mask")
        key = "start", request.start, request.mask, self._size, request.strength, request.rules
        strength = request.strength or 1.0
        return self._once(key, lambda: self._begin(self._source("start"), strength, mask))

    def _begin(self, picture: Image.Image, strength: float, mask: Image.Image | None) -> Start:
        """A start, where states are."""
        model = self.model
        start = begin(model.autoencoder, picture, self._size, strength, mask, self.request.rules, model.reads_masks)
        return Start(*(each.to(self.model.device) if isinstance(each, Tensor) else each for each in start))  # type: ignore[arg-type]

    def _concat(self, start: Start | None) -> Tensor | None:
        """(1, 1 + C, h, w) what a network for inpainting reads beside the state: the mask, and what stays.

        Without a mask all is drawn anew. None for other networks.
        """
        if not self.model.reads_masks:
            return None
        if start is None or start.mask is None or start.hidden is None:
            grey = self._once(("grey", self._size), lambda: self.model.grey(self._size))
            return torch.cat([torch.ones_like(grey[:, :1]), grey], dim=1)
        return torch.cat([start.mask.to(start.hidden), start.hidden], dim=1)

    def _levels(self, strength: float) -> list[NoiseLevel]:
        path, steps = self.model.denoiser.path, self.request.steps
        return check_levels(levels_from(self.request.levels_of(), path, steps, strength, self.shape))

    def _spread(self, level: NoiseLevel) -> float:
        """What noise is multiplied by to start from: the level's sigma.

        Other tools start as if the data were noise too, though a little of it is left at the noisiest level of Stable
        Diffusion's path; their seeds ask for the same. By the first two rules they did not.
        """
        alike = self.request.noise == "torch" and self.request.rules >= 3
        return math.hypot(level.alpha, level.sigma) if alike else float(level.sigma)

    def _inverted(self, start: Start) -> Generator[Question | Stepped | None, Parts | None, Start]:
        """The start with the state that it is led back to: found by the first of all that begin there."""
        key = "inverted", replace(self.request, prompt="", negative="", seed=0)
        while not isinstance(entry := self.remembered.get(key), Start):
            if key in self.remembered:
                yield None
                continue
            self.remembered[key] = None  # it is being looked for
            try:
                self.remembered[key] = yield from self._climbed(start)
            finally:
                if self.remembered.get(key) is None:  # it failed, or was cancelled
                    self.remembered.pop(key, None)
        return entry

    def _climbed(self, start: Start) -> Generator[Question, Parts, Start]:
        """The start with the state from which a plain run of Euler with its own words would lead back to it.

        Where a noised start keeps the picture's layout alone, this keeps what the words do not say; drawn with others,
        the picture changes where they do. See ``core.inversion``.
        """
        conds = {"cond": self._cond(self.request.invert or "")}
        x = start.x0.float()
        for pair in reversed(list(pairwise(self._levels(start.strength)))):

            def climb(evaluate: Evaluate, pair: tuple[NoiseLevel, NoiseLevel] = pair, x: Tensor = x) -> Tensor:
                return next(invert(bind(CFG(1.0), evaluate, conds), pair, x, ROUNDS))

            x = yield from suspended(climb)
        return start._replace(state=x)

    def _run(self, seed: int, start: Start | None, first: int = 0, total: int | None = None) -> Life:
        """One run over the levels.

        Args:
            seed: of its noise.
            start: what it starts from.
            first: the number of its first step, of ``total``.
        """
        request, solver = self.request, self.request.method()
        levels = self._levels(start.strength if start else 1.0)
        kind = TorchStart if request.noise == "torch" and request.rules < 3 else NOISES[request.noise]
        noise = kind([seed], self.shape, torch.float32, self.model.device)  # whatever the networks'
        x, steer = noise.initial() * self._spread(levels[0]), request.steer()
        if start is not None:
            noised = levels[0].mix(start.x0.to(x), noise.initial())
            x = x if self.model.reads_masks and start.strength == 1 else noised
            x = x if start.state is None else start.state.to(x)
            if start.mask is not None and not self.model.reads_masks:
                steer = Known(steer, start.x0, start.mask)
        concat = self._concat(start)
        conds: dict[str, Condition | None] = {
            "cond": replace(self._cond(request.prompt), concat=concat),
            "uncond": replace(self._cond(request.negative, negative=True), concat=concat),
        }
        run = Run(x, levels[0], 0, solver.start(levels))
        while run.index < len(levels) - 1:

            def ahead(evaluate: Evaluate, run: Run = run) -> Step:
                return take(Bound(steer, evaluate, conds, request.read), solver, levels, noise, run)

            step: Step = yield from suspended(ahead)
            yield Stepped(self.number, request, first + step.index, total or len(levels) - 1, step, start, self.model)
            run = step.run
        return End(run.x, start)

    def _grow(self, canvas: Canvas) -> Life:
        """Draws the windows of a picture that grows, each with a seed far from those of other pictures."""
        steps, count = self.request.steps, len(list(windows(canvas.by, canvas.size)))
        for window in canvas.windows():
            seed = (self.request.seed + window.number * 0x9E3779B97F4A7C15) % 2**63
            start = self._begin(window.picture, 1.0, window.mask)
            z, _ = yield from self._run(seed, start, window.number * steps, count * steps)
            canvas.fill(window, self.model.decode(z, start)[0])  # type: ignore[arg-type]
        return End(canvas.image)
