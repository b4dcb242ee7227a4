"""The runs that are alive: all that wait for a network share its next call."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from unnoise.core.evaluate import Question, answer
from unnoise.core.guidance import Parts
from unnoise.engine.drawing import Drawing, End, Life
from unnoise.engine.events import Admitted, Cancelled, Event, Failed, Finished, Stepped
from unnoise.engine.model import Model
from unnoise.engine.request import Request
from unnoise.engine.start import check_sources
from unnoise.errors import UnnoiseError
from unnoise.kernels.forked import check_threads
from unnoise.pictures import to_bytes, to_images


@dataclass
class _Alive:
    """A drawing under way.

    Attributes:
        drawing, life: it, and its generator.
        question: what it waits for.
        row, batch, shared: as in ``Finished``.
        end: what it came to, until that is handed over.
    """

    drawing: Drawing
    life: Life
    question: Question | None = None
    row: int = 0
    batch: int = 1
    shared: bool = False
    end: End | None = None


class Live:
    """Draws requests side by side. They join and leave between steps; each keeps its own levels, noise and memory.

    Which of them share a call of a network is decided by the order in which they were added, never by timing. Whoever
    wants another to wait adds it later.

    Args:
        model: what draws.
        sources: pictures that requests start from, and masks, by their SHA-256.
        room: how many are drawn at a time; the others wait their turn.
    """

    def __init__(self, model: Model, sources: Mapping[str, Image.Image] | None = None, room: int = 16) -> None:
        self.model, self.sources, self.room = model, dict(sources or {}), room
        self._waiting: deque[tuple[int, Request]] = deque()
        self._alive: list[_Alive] = []
        self._dropped: set[int] = set()
        self._remembered: dict[object, object] = {}
        self._added = 0

    def add(self, request: Request) -> int:
        """Takes a request into the queue, and gives its number.

        Raises:
            UnnoiseError: the model cannot draw it.
        """
        request = self.model.check(request)
        check_sources(request, self.sources)
        self._waiting.append((self._added, request))
        self._added += 1
        return self._added - 1

    def cancel(self, number: int) -> None:
        """Drops a request before the next call of a network; its next event is a failure."""
        self._dropped.add(number)

    def __bool__(self) -> bool:
        """Whether anything is left to draw."""
        return bool(self._waiting or self._alive)

    def tick(self) -> list[Event]:
        """Answers what every run waits for, in one call of a network for each kind of rows; returns the events."""
        check_threads(self.model.device)
        events = self._drop()
        with torch.inference_mode():
            events += self._admit()
            waiting = [each for each in self._alive if each.question is not None]
            for each, parts in zip(waiting, self._answers([e.question for e in waiting if e.question]), strict=True):
                events += self._go_on(each, parts)
            for each in [each for each in self._alive if each.question is None and each.end is None]:
                events += self._go_on(each, None)
            events += self._finish()
        if not self._alive and not self._waiting:
            self._remembered.clear()
        return events

    def _drop(self) -> list[Event]:
        """Ends what was cancelled."""
        events: list[Event] = []
        why = Cancelled("the request was cancelled", "send it again to draw it")
        for number, request in [each for each in self._waiting if each[0] in self._dropped]:
            self._waiting.remove((number, request))
            events.append(Failed(number, request, why))
        for each in [each for each in self._alive if each.drawing.number in self._dropped]:
            each.life.close()
            self._alive.remove(each)
            events.append(Failed(each.drawing.number, each.drawing.request, why))
        self._dropped.clear()
        return events

    def _admit(self) -> list[Event]:
        """Begins as many of those that wait as there is room for."""
        events: list[Event] = []
        before, fresh = list(self._alive), []
        while self._waiting and len(self._alive) < self.room:
            number, request = self._waiting.popleft()
            drawing = Drawing(number, request, self.model, self.sources, self._remembered)
            fresh.append(_Alive(drawing, drawing.life()))
            self._alive.append(fresh[-1])
            events.append(Admitted(number, request))
        if fresh:
            _mark(fresh, before)
        for each in fresh:
            events += self._go_on(each, None)
        return events

    def _answers(self, questions: Sequence[Question]) -> list[Parts | UnnoiseError]:
        """The answers to all; where one cannot be answered, why, and the others all the same."""
        try:
            return list(answer(self.model.denoisers, questions))
        except UnnoiseError:
            answers: list[Parts | UnnoiseError] = []
            for question in questions:
                try:
                    answers += answer(self.model.denoisers, [question])
                except UnnoiseError as error:
                    answers.append(error)
            return answers

    def _go_on(self, each: _Alive, parts: Parts | UnnoiseError | None) -> list[Event]:
        """Lets a drawing go on to its next question, to where it waits for another drawing, or to its end."""
        events: list[Event] = []
        number, request = each.drawing.number, each.drawing.request
        each.question = None
        try:
            if isinstance(parts, UnnoiseError):
                raise parts
            while each.question is None:
                output = each.life.send(parts)
                parts = None
                if output is None:
                    break
                if isinstance(output, Stepped):
                    events.append(output)
                else:
                    each.question = output
        except StopIteration as stop:
            each.end = stop.value
        except UnnoiseError as error:
            each.life.close()
            self._alive.remove(each)
            events.append(Failed(number, request, error))
        return events

    def _finish(self) -> list[Event]:
        """Hands over what is done; latents of one shape are decoded together."""
        done = [each for each in self._alive if each.end is not None]
        self._alive = [each for each in self._alive if each.end is None]
        shapes: dict[tuple[int, ...], list[_Alive]] = {}
        pictures: dict[int, Image.Image] = {}
        for each in done:
            assert each.end is not None
            if isinstance(each.end.what, Tensor):
                shapes.setdefault(tuple(each.end.what.shape), []).append(each)
            else:
                pictures[each.drawing.number] = each.end.what
        for group in shapes.values():
            for each, pixels in zip(group, self._decoded(group), strict=True):
                pictures[each.drawing.number] = to_images(to_bytes(pixels))[0]
        return [
            Finished(
                number := each.drawing.number,
                each.drawing.request,
                pictures[number],
                each.end.what if each.end is not None and isinstance(each.end.what, Tensor) else None,
                each.row,
                each.batch,
                each.shared,
            )
            for each in done
        ]

    def _decoded(self, group: Iterable[_Alive]) -> list[Tensor]:
        """(1, 3, H, W) each, with what a mask keeps put back."""
        ends = [each.end for each in group if each.end is not None]
        pictures = self.model.pixels(torch.cat([end.what for end in ends if isinstance(end.what, Tensor)]))
        rows = [pictures[row : row + 1] for row in range(len(pictures))]
        return [row if end.start is None else end.start.put_back(row) for row, end in zip(rows, ends, strict=True)]


def _mark(fresh: Sequence[_Alive], before: Sequence[_Alive]) -> None:
    """Notes who is drawn beside whom: requests that differ in their seeds alone are rows of one batch."""
    first = fresh[0].drawing.request
    if not before and all(_only_seed(first, each.drawing.request, row) for row, each in enumerate(fresh)):
        for row, each in enumerate(fresh):
            each.row, each.batch = row, len(fresh)
        return
    for each in (*before, *fresh):
        each.row, each.batch, each.shared = 0, 1, True


def _only_seed(first: Request, other: Request, row: int) -> bool:
    """Whether a request is another one with the seed that lies so far above."""
    return replace(first, seed=other.seed) == other and other.seed == first.seed + row
