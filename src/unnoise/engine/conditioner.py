"""From prompts to one condition: towers read them, and their vectors are laid side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.engine import emphasis
from unnoise.errors import UnnoiseError

KEPT = 4096  # texts whose tokens are remembered


class Tower(NamedTuple):
    """A text encoder and what turns prompts into its ids."""

    network: nn.Module
    tokenizer: Tokenizer

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next((each.device for each in self.network.parameters()), torch.device("cpu"))


@dataclass(frozen=True)
class Layout:
    """How the vectors of several towers become one condition.

    Attributes:
        tokens: rows of tokens, one after the other along the tokens; each row is made of the towers that it names, side
            by side along the width. Narrower rows are filled up with zeros. SDXL's is (("clip-l", "clip-g"),), SD3's
            (("clip-l", "clip-g"), ("t5",)).
        pooled: the towers whose pooled vectors are laid side by side.
    """

    tokens: tuple[tuple[str, ...], ...]
    pooled: tuple[str, ...]


class Conditioner:
    """Makes one ``Condition`` of prompts by all towers of a model. Each text is parsed and cut into tokens once.

    Args:
        towers: by the names of their parts.
        layout: how their vectors are joined; left out, each tower's tokens follow the last one's, and all pooled
            vectors lie side by side.

    Raises:
        UnnoiseError: there is no tower, or the layout names one that is not there.
    """

    def __init__(self, towers: Mapping[str, Tower], layout: Layout | None = None) -> None:
        if not towers:
            raise UnnoiseError("the model has no text tower", "give it one")
        self.towers = dict(towers)
        self.layout = layout or Layout(tuple((name,) for name in towers), tuple(towers))
        for name in (*(each for row in self.layout.tokens for each in row), *self.layout.pooled):
            checks.choice("tower", name, *self.towers)
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
                self._readings[key] = emphasis.read(tower.tokenizer, prompt, weights, typed)
            readings[name] = self._readings[key]
        return readings

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[str], weights: bool = False, typed: bool = False) -> Condition:
        """The condition of prompts, one row each; args and errors as of ``read``."""
        readings = [self.read(prompt, weights, typed) for prompt in prompts]
        conds = {
            name: emphasis.encode(tower.network, tower.tokenizer, [each[name] for each in readings], tower.device)
            for name, tower in self.towers.items()
        }
        if len(conds) == 1:
            return next(iter(conds.values()))
        home = next(iter(self.towers.values())).device
        conds = {name: cond.to(home, torch.float32) for name, cond in conds.items()}
        rows = [_beside([conds[name] for name in row]) for row in self.layout.tokens]
        widest = max((tokens.shape[2] for tokens, _ in rows), default=0)
        pooled = [vector for name in self.layout.pooled if (vector := conds[name].pooled) is not None]
        return Condition(
            tokens=torch.cat([F.pad(tokens, (0, widest - tokens.shape[2])) for tokens, _ in rows], 1) if rows else None,
            token_mask=torch.cat([mask for _, mask in rows], 1) if rows else None,
            pooled=torch.cat(pooled, 1) if pooled else None,
        )


def _beside(conds: Sequence[Condition]) -> tuple[Tensor, Tensor]:
    """(tokens (B, L, sum of D), mask (B, L)) of towers side by side; a token is real where it is for any of them."""
    tokens, masks = [], []
    longest = max(cond.tokens.shape[1] for cond in conds if cond.tokens is not None)
    for cond in conds:
        if cond.tokens is None:
            raise UnnoiseError("a text tower has no vectors for tokens", "leave it out of the layout's tokens")
        short = longest - cond.tokens.shape[1]
        mask = cond.tokens.new_ones(cond.tokens.shape[:2], dtype=torch.bool) if cond.token_mask is None else None
        masks.append(F.pad(cond.token_mask if mask is None else mask, (0, short)))  # type: ignore[arg-type]
        tokens.append(F.pad(cond.tokens, (0, 0, 0, short)))
    return torch.cat(tokens, 2), torch.stack(masks).any(0)
