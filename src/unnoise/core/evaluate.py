"""The one seam between guidances and networks: many asks, of many runs, in few calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser, NetworkInput
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import OWN, Ask, Asks, Evaluate, Parts
from unnoise.core.level import NoiseLevel
from unnoise.errors import UnnoiseError


class Question(NamedTuple):
    """What one run asks at one level.

    Attributes:
        x: (B, C, ...) state.
        here: its level.
        there: the level that the step goes to.
        asks: the calls that its guidance needs, by name.
    """

    x: Tensor
    here: NoiseLevel
    there: NoiseLevel | None
    asks: Asks


class _Item(NamedTuple):
    """One ask of one question, with its rows as the network sees them."""

    question: int
    name: str
    ask: Ask
    network_input: NetworkInput


def answer(networks: Mapping[str, Denoiser], questions: Sequence[Question]) -> list[Parts]:
    """The estimates that all questions ask for, by name, in one call of a network for each kind of rows.

    Rows share a call if they ask the same network, with the same adapters, edits and reads, for states of the same
    shape, and if their conditions have the same fields. Levels, prompts and lengths of prompts may differ from row to
    row. The order of the questions alone decides which rows lie where: first the first ask of each question, then the
    second of each, and on.

    Raises:
        UnnoiseError: an ask names a network that is not there.
    """
    parts: list[dict[str, Estimate]] = [{} for _ in questions]
    groups: dict[object, list[_Item]] = {}
    asks = [(turn, number, name) for number, q in enumerate(questions) for turn, name in enumerate(q.asks)]
    for _, number, name in sorted(asks):
        question = questions[number]
        ask = question.asks[name]
        network_input = network_called(networks, ask.network).enter(question.x, question.here, ask.previous)
        if isinstance(network_input, Estimate):
            parts[number][name] = network_input
            continue
        kind = (ask.network, ask.adapters, ask.edits, ask.read, _joinable(ask.cond), network_input.x.shape[1:])
        groups.setdefault(kind, []).append(_Item(number, name, ask, network_input))
    for items in groups.values():
        denoiser, first = networks[items[0].ask.network], items[0].ask
        conds = [_rows(each.ask.cond, len(each.network_input.x)) for each in items if each.ask.cond is not None]
        output, features = denoiser.call(
            _joined([each.network_input.scaled for each in items]),
            torch.cat([each.network_input.label.expand(len(each.network_input.x)) for each in items]),
            Condition.cat(conds) if conds else None,
            first.edits,
            first.read,
        )
        place = 0
        for each in items:
            rows = slice(place, place := place + len(each.network_input.x))
            own = {site: value[rows] for site, value in features.items()}
            parts[each.question][each.name] = denoiser.leave(output[rows], each.network_input, own)
    return [{name: estimates[name] for name in q.asks} for q, estimates in zip(questions, parts, strict=True)]


def batched(networks: Denoiser | Mapping[str, Denoiser]) -> Evaluate:
    """An ``evaluate`` for a single run: one call for all asks that may share it.

    Args:
        networks: by name; a single denoiser is a run's own.
    """
    named = {OWN: networks} if isinstance(networks, Denoiser) else networks

    def evaluate(x: Tensor, here: NoiseLevel, there: NoiseLevel | None, asks: Asks) -> Parts:
        return answer(named, [Question(x, here, there, asks)])[0]

    return evaluate


def network_called(networks: Mapping[str, Denoiser], name: str) -> Denoiser:
    """The network that a guidance asks by a name.

    Raises:
        UnnoiseError: there is none of that name.
    """
    if name not in networks:
        what = f"the guidance asks a network called {name!r}, and there is only {', '.join(networks)}"
        raise UnnoiseError(what, "choose another guidance, or a model that has one")
    return networks[name]


def _rows(cond: Condition, count: int) -> Condition:
    """The condition with as many rows as the state; one row stands for all."""
    return cond.repeat(count) if cond.count == 1 != count else cond


def _joinable(cond: Condition | None) -> frozenset[str] | None:
    """The fields that conditions must have in common to be joined."""
    if cond is None:
        return None
    return frozenset(
        f.name for f in fields(cond) if f.metadata["join"] in ("pad", "stack") and getattr(cond, f.name) is not None
    )


def _joined(rows: Sequence[Tensor]) -> Tensor:
    """States of several runs, one after the other. Where a network reads earlier estimates, in as many channels again,
    those of a run that has none yet are zeros, which it takes for none."""
    widest = max(each.shape[1] for each in rows)
    return torch.cat([torch.cat([r, r.new_zeros(len(r), widest - r.shape[1], *r.shape[2:])], 1) for r in rows])
