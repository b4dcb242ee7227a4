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


class Drawings(NamedTuple):
    """Pictures and what they cost.

    Attributes:
        pixels: uint8 (P, 3, H, W).
        seconds: (P,) float64; a picture's share of its batch's time, when it was first drawn.
    """

    pixels: Tensor
    seconds: Tensor


class TrialPlan(NamedTuple):
    """A training that a study needs.

    Attributes:
        name: the study's name for it.
        recipe, options: the arguments of ``unnoise train``.
        seed: of the training.
    """

    name: str
    recipe: str
    options: tuple[str, ...]
    seed: int


class Trial(NamedTuple):
    """The result of a training.

    Attributes:
        engine: an engine with the trained model.
        weights: a hash of the model.
        samples: number of samples seen.
        seconds: total time of the optimiser's steps.
    """

    engine: Engine
    weights: str
    samples: int
    seconds: float


@dataclass(frozen=True)
class Lab:
    """Everything that a study needs.

    Attributes:
        engine: draws with the model.
        weights: a hash of the model.
        judge: makes the judge; called only when a study needs one.
        judged_by: returns a hash of the judge, also only when needed.
        pictures: the set.
        prompts: those of its captions that are drawn.
        seed: of the first picture: row i has seed + i, in the k-th of several turns seed + i + k times the rows.
        seeds: pictures a prompt in studies that need several.
        steps: solver steps, None for the model's own.
        memory: a folder for drawn pictures, under keys that hash everything they depend on except the code.
        computer: the computer, as JSON values: pictures differ in the last bits between computers, and seconds more.
        watch: gets a label and the batches, yields them one by one, and may print progress.
        train: runs the trainings one after the other, each for the same seconds; a training that is already done is
            returned at once. None in a lab without trainings.
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
    train: Callable[[Sequence[TrialPlan]], Iterator[Trial]] | None = None

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
        """Whether the judge has been used."""
        return "eyes" in vars(self)

    @cached_property
    def candidates(self) -> Candidates:
        """The captions among which a picture's own must come first."""
        return Candidates(self.pictures)

    @cached_property
    def vectors(self) -> Tensor:
        """(N, D) the judge's captions of the whole set."""

        def compute() -> dict[str, Tensor]:
            return {"captions": self.eyes.captions([captions[0] for captions in self.pictures.captions])}

        return self.recall({"judge": self.judged_by(), "set": self.pictures.sha256}, compute)["captions"]

    def verdict(self) -> str:
        """The judge's results on real pictures, in a line."""

        def compute() -> dict[str, Tensor]:
            exam = examine(self.eyes, self.pictures, self.candidates, self.vectors)
            return {"shares": torch.tensor([exam.first, exam.caught], dtype=torch.float64)}

        key = {"judge": self.judged_by(), "set": self.pictures.sha256, "exam": self.candidates.digest()}
        right, swaps = self.recall(key, compute)["shares"].tolist()
        passed = "passed" if right >= FIRST and swaps >= CAUGHT else "FAILED"
        return f"{passed} its exam: {right:.1%} of real pictures, {swaps:.1%} of swapped captions"

    def settings_line(self) -> str:
        """The settings of all drawings that a study does not change, in a line."""
        return settings_line(self.engine.request("", steps=self.steps))

    def kinds(self) -> str:
        """The number of prompts of each kind, in a line."""
        return ", ".join(f"{len(self.prompts.rows(kind))} {kind}" for kind in dict.fromkeys(self.prompts.tiers))

    def recall(self, what: Mapping[str, Any], compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Named tensors from the memory, or else computed and stored there.

        ``what``, the weights and the computer form the key.
        """
        key = feature_key("study", {**what, "computer": dict(self.computer)}, self.weights)
        return load_or_compute(self.memory, key, compute)

    def in_batches(
        self,
        count: int,
        what: Callable[[slice], Mapping[str, Any]],
        compute: Callable[[slice], dict[str, Tensor]],
        label: str = "batches",
    ) -> dict[str, Tensor]:
        """``recall`` for ``count`` rows, sixteen at a time, joined. ``what`` and ``compute`` take a slice of rows.

        ``label`` describes the computation in progress messages.
        """
        parts = []
        batches = [slice(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
        for rows in self.watch(label, batches):
            parts.append(self.recall(what(rows), partial(compute, rows)))
        return {name: torch.cat([each[name] for each in parts]) for name in parts[0]}

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
    ) -> Drawings:
        """Draws a picture for each row, sixteen at a time, each batch remembered.

        Args:
            prompts: by default the lab's own.
            seeds: by default those of the first turn.
            steer: makes a guidance for a row, given the request it would have had.
            note: describes ``steer``; part of the key under which pictures are stored.
            settings: changes to the model's settings.
        """
        texts = list(self.captions if prompts is None else prompts)
        numbers = list(self.turns() if seeds is None else seeds)
        requests = [
            self.engine.request(text, seed=number, **{"steps": self.steps, **settings})
            for text, number in zip(texts, numbers, strict=True)
        ]
        how = settings_line(requests[0])

        def batch(rows: slice) -> dict[str, Tensor]:
            began = time.perf_counter()
            batch_requests = requests[rows]
            if steer is not None:
                first = range(len(requests))[rows].start
                batch_requests = [
                    replace(each, guidance=steer(row, each)) for row, each in enumerate(batch_requests, first)
                ]
            pixels = self.engine.pixels(batch_requests)
            share = (time.perf_counter() - began) / len(pixels)
            return {"pixels": pixels, "seconds": torch.full((len(pixels),), share, dtype=torch.float64)}

        def key(rows: slice) -> dict[str, Any]:
            return {"prompts": texts[rows], "seeds": numbers[rows], "settings": how, "note": note}

        scale = "" if requests[0].scale is None else f", scale {requests[0].scale:g}"
        what = f"batches of {requests[0].solver}, {requests[0].steps} steps{scale}"
        tensors = self.in_batches(len(texts), key, batch, what)
        return Drawings(*(tensors[name] for name in Drawings._fields))

    def right(self, pixels: Tensor) -> Tensor:
        """(P,) float64: 1 where a row's own caption comes first among its candidates, else 0."""
        return first(self.eyes.pictures(pixels), self.vectors, self.prompts.items, self.candidates).double()


def settings_line(request: Any) -> str:
    """How a request is drawn, whatever its prompt and seed, in a line."""
    values = {each.name: getattr(request, each.name) for each in fields(request) if each.name not in ("prompt", "seed")}
    values["size"] = "x".join(map(str, values["size"] or ()))
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, (), ""))
