"""Chooses the captions that a study draws, by a rule, so that nobody can pick those with good pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from unnoise.data.store import PictureSet
from unnoise.errors import UnnoiseError
from unnoise.study.leaderboard import Prompts

REVISION = 1
SHARES = {"plain": 0.55, "toned": 0.15, "tier1": 0.15, "tier2": 0.15}
HUNDRED = Path(__file__).with_name("hundred.json")


def order(id: str) -> bytes:
    """The sort key of a picture: SHA-256 of its id, independent of the set's own order."""
    return hashlib.sha256(f"unnoise prompts {REVISION}/{id}".encode()).digest()


def kinds(pictures: PictureSet, part: str) -> dict[str, list[int]]:
    """The captioned pictures of each kind in their order, one of each group of equal pictures.

    ``plain`` are trained things without skin tones, persons or flags, ``toned`` trained pictures with skin tones;
    ``tier1`` and ``tier2`` are held out (see ``data.splits``).
    """
    trained = pictures.select("denoiser")
    attributes = pictures.attributes
    groups = {
        "plain": [i for i in trained if not any(attributes[i].get(key) for key in ("tones", "person", "flag"))],
        "toned": [i for i in trained if attributes[i].get("tones")],
        **{tier: pictures.held_out(tier, part) for tier in ("tier1", "tier2")},
    }
    lines = {}
    for kind, items in groups.items():
        unique: dict[int, int] = {}
        for item in sorted((i for i in items if pictures.captions[i][0]), key=lambda i: order(pictures.ids[i])):
            unique.setdefault(pictures.identical[item], item)
        lines[kind] = list(unique.values())
    return lines


def choose(pictures: PictureSet, part: str, count: int, shares: Mapping[str, float] = SHARES) -> Prompts:
    """About ``count`` pictures, the first of each kind by its share; a kind with too few gives all it has.

    Raises:
        UnnoiseError: there are fewer than two.
    """
    line = kinds(pictures, part)
    rows = [(item, kind) for kind, share in shares.items() for item in line[kind][: max(1, round(share * count))]]
    if len(rows) < 2:
        raise UnnoiseError(f"{pictures.path} has {len(rows)} pictures to ask for", "name a set with more captions")
    return Prompts([item for item, _ in rows], [kind for _, kind in rows])


class Entry(NamedTuple):
    """One of the hundred: a prompt and its kind."""

    prompt: str
    kind: str


def mixed(pictures: PictureSet, part: str, count: int) -> list[Entry]:
    """The prompts of ``choose`` in an order that does not depend on their kind."""
    prompts = choose(pictures, part, count)
    rows = sorted(
        zip(prompts.items, prompts.tiers, strict=True), key=lambda row: order(f"mixed {pictures.ids[row[0]]}")
    )
    return [Entry(pictures.captions[item][0], kind) for item, kind in rows]


def hundred() -> list[Entry]:
    """The fixed hundred for a person to name: ``mixed`` of the emoji set's part ``test``, kept in a file."""
    return [Entry(**row) for row in json.loads(HUNDRED.read_text("utf-8"))]
