"""What every study stands on: a model, a judge, prompts, and a memory on disk, so that a study that stops goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from unnoise.core.autoencoder import Autoencoder
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.guidance import Guidance
from unnoise.data.cache import feature_key, load_or_compute
from unnoise.data.store import PictureSet
from unnoise.study.candidates import Candidates
from unnoise.study.judge import CAUGHT, FIRST, Judge, examine, first
from unnoise.study.leaderboard import Prompts

BATCH = 16
Steer = Callable[[int, Any], Guidance]


class Model(Protocol):
    """As much of a model as studies need."""

    denoiser: Denoiser
    autoencoder: Autoencoder

    @property
    def tower(self) -> Any:
        """(network, tokenizer) of its first text tower."""

    def encode(self, prompts: Sequence[str]) -> Condition: ...


class Engine(Protocol):
    """As much of an engine as studies need."""

    @property
    def model(self) -> Model: ...

    def request(self, prompt: str, **changes: Any) -> Any:
        """A dataclass."""

    def draw(self, requests: Iterable[Any]) -> Iterator[Any]: ...

    def pixels(self, requests: Sequence[Any]) -> Tensor: ...


class Drawn(NamedTuple):
    """Pictures and what they cost.

    Attributes:
        pixels: uint8 (P, 3, H, W).
        seconds: (P,) float64; a picture's share of its batch's time, when it was first drawn.
    """

    pixels: Tensor
    seconds: Tensor


class Wanted(NamedTuple):
    """A training that a study wants.

    Attributes:
        name: what the study calls it.
        recipe, options: what a person would type after ``unnoise train``.
        seed: of the training.
    """

    name: str
    recipe: str
    options: tuple[str, ...]
    seed: int


class Trial(NamedTuple):
    """What came of one.

    Attributes:
        engine: the model.
        weights: a hash of it.
        samples: seen.
        seconds: that the optimiser's steps took, all together.
    """

    engine: Engine
    weights: str
    samples: int
    seconds: float


@dataclass(frozen=True)
class Lab:
    """What a study is given.

    Attributes:
        engine: the model.
        weights: a hash of it.
        judge: makes the judge; called where a study needs one, and not before.
        judged_by: gives a hash of the judge, likewise.
        pictures: the set.
        prompts: which of its captions are drawn.
        seed: of the first picture: row i has seed + i, in the k-th turn of several seed + i + k times the rows.
        seeds: pictures a prompt where a study wants several.
        steps: solver steps, None for the model's own.
        memory: a folder that keeps what was drawn, under keys that hash what it depends on; not the code that draws.
        computer: what computes, JSON values: pictures differ in the last bits from one to another, and seconds more.
        watch: is told what is computed and in which batches, gives them one by one, and may tell how far it is.
        train: trains one after the other, each for as many seconds, when its turn comes; what was trained before it
            gives back at once. Of use to studies of trainings alone.
    """

    engine: Engine
    weights: str
    judge: Callable[[], Judge]
    judged_by: Callable[[], str]
    pictures: PictureSet
    prompts: Prompts
    seed: int
    seeds: int
    steps: int | None
    memory: Path
    computer: Mapping[str, Any]
    watch: Callable[[str, Sequence[slice]], Iterable[slice]] = lambda what, batches: batches
    train: Callable[[Sequence[Wanted]], Iterator[Trial]] | None = None

    @cached_property
    def captions(self) -> list[str]:
        """The prompts as text."""
        return [self.pictures.captions[item][0] for item in self.prompts.items]

    @cached_property
    def real(self) -> Tensor:
        """uint8 (P, 3, H, W): the set's own pictures of the prompts."""
        return self.pictures.pictures(self.prompts.items)

    @cached_property
    def eyes(self) -> Judge:
        """The judge itself."""
        return self.judge()

    @property
    def judged(self) -> bool:
        """Whether anything has looked through the judge's eyes."""
        return "eyes" in vars(self)

    @cached_property
    def candidates(self) -> Candidates:
        """Among which captions a picture's own must come first."""
        return Candidates(self.pictures)

    @cached_property
    def vectors(self) -> Tensor:
        """(N, D) the judge's captions of the whole set."""

        def compute() -> dict[str, Tensor]:
            return {"captions": self.eyes.captions([captions[0] for captions in self.pictures.captions])}

        return self.kept({"judge": self.judged_by(), "set": self.pictures.sha256}, compute)["captions"]

    def verdict(self) -> str:
        """What the judge reached on real pictures, in a line."""

        def compute() -> dict[str, Tensor]:
            exam = examine(self.eyes, self.pictures, self.candidates, self.vectors)
            return {"shares": torch.tensor([exam.first, exam.caught], dtype=torch.float64)}

        asked = {"judge": self.judged_by(), "set": self.pictures.sha256, "exam": self.candidates.digest()}
        right, caught = self.kept(asked, compute)["shares"].tolist()
        passed = "passed" if right >= FIRST and caught >= CAUGHT else "FAILED"
        return f"{passed} its exam: {right:.1%} of real pictures, {caught:.1%} of swapped captions"

    def told(self) -> str:
        """The settings that pictures are drawn with unless a study changes them, in a line."""
        return told(self.engine.request("", steps=self.steps))

    def kinds(self) -> str:
        """How many prompts there are of each kind, in a line."""
        return ", ".join(f"{len(self.prompts.rows(kind))} {kind}" for kind in dict.fromkeys(self.prompts.tiers))

    def kept(self, what: Mapping[str, Any], compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Named tensors from the memory, or computed and remembered.

        ``what`` tells them apart, with the weights and the computer.
        """
        key = feature_key("study", {**what, "computer": dict(self.computer)}, self.weights)
        return load_or_compute(self.memory, key, compute)

    def in_batches(
        self,
        count: int,
        what: Callable[[slice], Mapping[str, Any]],
        compute: Callable[[slice], dict[str, Tensor]],
        told: str = "batches",
    ) -> dict[str, Tensor]:
        """``kept`` for ``count`` rows, sixteen at a time, joined: what is asked and what is computed of some rows.

        ``told`` says to who watches what is computed.
        """
        found = []
        batches = [slice(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
        for rows in self.watch(told, batches):
            found.append(self.kept(what(rows), partial(compute, rows)))
        return {name: torch.cat([each[name] for each in found]) for name in found[0]}

    def turns(self, turn: int = 0) -> list[int]:
        """The seeds of all rows in one turn."""
        return [self.seed + row + turn * len(self.prompts.items) for row in range(len(self.prompts.items))]

    def draw(
        self,
        prompts: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        steer: Steer | None = None,
        note: str = "",
        **settings: Any,
    ) -> Drawn:
        """Draws a picture for each row, sixteen at a time, each batch remembered.

        Args:
            prompts: the lab's own if left out.
            seeds: the first turn's if left out.
            steer: makes a guidance for a row, given the request it would have had.
            note: says what ``steer`` does; part of what pictures are remembered by.
            settings: changes to the model's settings.
        """
        texts = list(self.captions if prompts is None else prompts)
        numbers = list(self.turns() if seeds is None else seeds)
        requests = [
            self.engine.request(text, seed=number, **{"steps": self.steps, **settings})
            for text, number in zip(texts, numbers, strict=True)
        ]
        how = told(requests[0])

        def batch(rows: slice) -> dict[str, Tensor]:
            began = time.perf_counter()
            chosen = requests[rows]
            if steer is not None:
                first = range(len(requests))[rows].start
                chosen = [replace(each, guidance=steer(row, each)) for row, each in enumerate(chosen, first)]
            pixels = self.engine.pixels(chosen)
            share = (time.perf_counter() - began) / len(pixels)
            return {"pixels": pixels, "seconds": torch.full((len(pixels),), share, dtype=torch.float64)}

        def key(rows: slice) -> dict[str, Any]:
            return {"prompts": texts[rows], "seeds": numbers[rows], "settings": how, "note": note}

        scale = "" if requests[0].scale is None else f", scale {requests[0].scale:g}"
        what = f"batches of {requests[0].solver}, {requests[0].steps} steps{scale}"
        found = self.in_batches(len(texts), key, batch, what)
        return Drawn(*(found[name] for name in Drawn._fields))

    def right(self, pixels: Tensor) -> Tensor:
        """(P,) float64: 1 where a row's own caption comes first among its candidates, else 0."""
        return first(self.eyes.pictures(pixels), self.vectors, self.prompts.items, self.candidates).double()


def told(request: Any) -> str:
    """How a request is drawn, whatever its prompt and seed, in a line."""
    names = [each.name for each in fields(request) if each.name not in ("prompt", "seed")]
    return ", ".join(f"{name} {value}" for name in names if (value := getattr(request, name)) not in (None, (), ""))
