"""From prompts to one condition: towers read them, and their vectors are laid side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.engine import emphasis
from unnoise.errors import UnnoiseError

KEPT = 4096  # texts whose tokens are remembered


AESTHETIC, NEGATIVE_AESTHETIC = 6.0, 2.5  # Stable Diffusion XL's refiner: the marks of what is and is not wanted
NUMBERS: dict[
    str, Callable[[tuple[int, int], bool], float]
] = {  # of the size (width, height), and of a negative prompt
    "height": lambda size, negative: size[1],
    "width": lambda size, negative: size[0],
    "top": lambda size, negative: 0,  # nothing was cut off
    "left": lambda size, negative: 0,
    "target-height": lambda size, negative: size[1],
    "target-width": lambda size, negative: size[0],
    "aesthetic": lambda size, negative: NEGATIVE_AESTHETIC if negative else AESTHETIC,
}


class Tower(NamedTuple):
    """A text encoder and what turns prompts into its ids."""

    network: nn.Module
    tokenizer: Tokenizer

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next((each.device for each in self.network.parameters()), torch.device("cpu"))

    @property
    def chunks(self) -> int:
        """The rows that a long prompt may be cut into."""
        return int(getattr(getattr(self.network, "config", None), "chunks", 1))

    @property
    def layered(self) -> bool:
        """Whether it can be asked for the output of another layer than its own."""
        return callable(getattr(self.network, "blocks_before", None))


@dataclass(frozen=True)
class Layout:
    """How the vectors of several towers become one condition.

    Attributes:
        tokens: rows of tokens, one after the other along the tokens; each row is made of the towers that it names, side
            by side along the width. Narrower rows are filled up with zeros. SDXL's is (("clip-l", "clip-g"),), SD3's
            (("clip-l", "clip-g"), ("t5",)).
        pooled: the towers whose pooled vectors are laid side by side.
        numbers: what the network is told of the picture, by the names of ``NUMBERS`` and in its order.
        empty: what a negative prompt without words is: "encoded" like any other, or "zeros" for its tokens and its
            pooled vector, as Stable Diffusion XL was trained without a prompt.
    """

    tokens: tuple[tuple[str, ...], ...]
    pooled: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    empty: Literal["encoded", "zeros"] = "encoded"


class Conditioner:
    """Makes one ``Condition`` of prompts by all towers of a model. Each text is parsed and cut into tokens once.

    Args:
        towers: by the names of their parts.
        layout: how their vectors are joined; left out, each tower's tokens follow the last one's, and all pooled
            vectors lie side by side.

    Raises:
        UnnoiseError: there is no tower, or the layout names one that is not there, or a number that is none.
    """

    def __init__(self, towers: Mapping[str, Tower], layout: Layout | None = None) -> None:
        if not towers:
            raise UnnoiseError("the model has no text tower", "give it one")
        self.towers = dict(towers)
        self.layout = layout or Layout(tuple((name,) for name in towers), tuple(towers))
        for name in (*(each for row in self.layout.tokens for each in row), *self.layout.pooled):
            checks.choice("tower", name, *self.towers)
        for name in self.layout.numbers:
            checks.choice("number", name, *NUMBERS)
        checks.choice("empty prompt", self.layout.empty, "encoded", "zeros")
        self._readings: dict[tuple[str, str, bool, bool], emphasis.Reading] = {}

    def read(self, prompt: str, weights: bool = False, typed: bool = False) -> dict[str, emphasis.Reading]:
        """What each tower reads of a prompt: ids, and the weight of each.

        Args:
            weights: whether brackets weigh words.
            typed: take the prompt as it was typed, as the first rules did; else it is cleaned.

        Raises:
            UnnoiseError: the prompt is longer than a tower reads, or no text, or a weight draws nothing.
        """
        readings = {}
        for name, tower in self.towers.items():
            key = (name, checks.text("prompt", prompt), weights, typed)
            if key not in self._readings:
                while len(self._readings) >= KEPT:
                    self._readings.pop(next(iter(self._readings)))
                self._readings[key] = emphasis.read(tower.tokenizer, prompt, weights, typed, tower.chunks)
            readings[name] = self._readings[key]
        return readings

    def check_layer(self, layer: int) -> None:
        """Ensures that the towers have a layer, counted from their ends.

        Raises:
            UnnoiseError: one has no such layer, or none can be asked for another than its own.
        """
        layered: list[Any] = [tower.network for tower in self.towers.values() if tower.layered]
        if not layered:
            raise UnnoiseError("the model's text tower has no layers to choose from", "leave the setting out")
        for network in layered:
            network.blocks_before(layer)

    @torch.inference_mode()
    def __call__(
        self,
        prompts: Sequence[str],
        weights: bool = False,
        typed: bool = False,
        size: tuple[int, int] = (0, 0),
        layer: int | None = None,
        negative: bool = False,
    ) -> Condition:
        """The condition of prompts, one row each; args and errors as of ``read``.

        Args:
            size: (width, height) of the pictures, which some networks are told.
            layer: of the towers that can choose, counted from the end; None for their own.
            negative: whether the prompts are what to steer away from.
        """
        readings = [self.read(prompt, weights, typed) for prompt in prompts]
        conds = {
            name: emphasis.encode(
                tower.network,
                tower.tokenizer,
                [each[name] for each in readings],
                tower.device,
                layer if tower.layered else None,
            )
            for name, tower in self.towers.items()
        }
        cond = next(iter(conds.values())) if len(conds) == 1 else self._joined(conds)
        if negative and self.layout.empty == "zeros":
            cond = without_words(cond, [not any(each.text for each in reading.values()) for reading in readings])
        if self.layout.numbers:
            row = [float(NUMBERS[name](size, negative)) for name in self.layout.numbers]
            device = next(iter(self.towers.values())).device
            cond = replace(cond, numbers=torch.tensor([row] * len(prompts), device=device))
        return cond

    def _joined(self, conds: Mapping[str, Condition]) -> Condition:
        """What the towers read, as the layout has it."""
        home = next(iter(self.towers.values())).device
        conds = {name: cond.to(home, torch.float32) for name, cond in conds.items()}
        rows = [_beside([conds[name] for name in row]) for row in self.layout.tokens]
        widest = max((tokens.shape[2] for tokens, _ in rows), default=0)
        pooled = [vector for name in self.layout.pooled if (vector := conds[name].pooled) is not None]
        masks = [_mask(*row) for row in rows] if any(mask is not None for _, mask in rows) else []
        return Condition(
            tokens=torch.cat([F.pad(tokens, (0, widest - tokens.shape[2])) for tokens, _ in rows], 1) if rows else None,
            token_mask=torch.cat(masks, 1) if masks else None,
            pooled=torch.cat(pooled, 1) if pooled else None,
        )


def without_words(cond: Condition, empty: Sequence[bool]) -> Condition:
    """The condition with zeros for the vectors of the rows whose prompts are empty."""

    def zeroed(value: Tensor | None) -> Tensor | None:
        if value is None:
            return None
        rows = torch.tensor(empty, device=value.device).reshape(-1, *[1] * (value.ndim - 1))
        return torch.where(rows, torch.zeros_like(value), value)

    return replace(cond, tokens=zeroed(cond.tokens), pooled=zeroed(cond.pooled))


def _mask(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """(B, L) bool: the mask, or of tokens without one that all are real."""
    return tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask


def _beside(conds: Sequence[Condition]) -> tuple[Tensor, Tensor | None]:
    """(tokens (B, L, sum of D), mask (B, L)) of towers side by side; a token is real where it is for any of them.

    There is no mask where no tower has one and all have as many tokens.
    """
    tokens, masks = [], []
    for cond in conds:
        if cond.tokens is None:
            raise UnnoiseError("a text tower has no vectors for tokens", "leave it out of the layout's tokens")
        tokens.append(cond.tokens)
    longest = max(each.shape[1] for each in tokens)
    plain = all(cond.token_mask is None for cond in conds) and all(each.shape[1] == longest for each in tokens)
    for each, cond in zip(tokens, conds, strict=True):
        masks.append(F.pad(_mask(each, cond.token_mask), (0, longest - each.shape[1])))
    tokens = [F.pad(each, (0, 0, 0, longest - each.shape[1])) for each in tokens]
    return torch.cat(tokens, 2), None if plain else torch.stack(masks).any(0)
