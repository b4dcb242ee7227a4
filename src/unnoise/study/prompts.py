"""Which pictures' captions a study draws: chosen by rule, so that nobody chose the ones that come out well."""

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
    """Where a picture stands in the line: by SHA-256 of its id, whatever the set's own order."""
    return hashlib.sha256(f"unnoise prompts {REVISION}/{id}".encode()).digest()


def kinds(pictures: PictureSet, part: str) -> dict[str, list[int]]:
    """The captioned pictures of each kind in their line, of equal pictures one.

    ``plain`` are trained things without skin tones, persons and flags, ``toned`` trained pictures with skin tones;
    ``tier1`` and ``tier2`` are held out (see ``data.splits``).
    """
    trained = pictures.select("denoiser")
    said = pictures.attributes
    groups = {
        "plain": [i for i in trained if not any(said[i].get(key) for key in ("tones", "person", "flag"))],
        "toned": [i for i in trained if said[i].get("tones")],
        **{tier: pictures.held_out(tier, part) for tier in ("tier1", "tier2")},
    }
    found = {}
    for kind, items in groups.items():
        unique: dict[int, int] = {}
        for item in sorted((i for i in items if pictures.captions[i][0]), key=lambda i: order(pictures.ids[i])):
            unique.setdefault(pictures.identical[item], item)
        found[kind] = list(unique.values())
    return found


def choose(pictures: PictureSet, part: str, count: int, shares: Mapping[str, float] = SHARES) -> Prompts:
    """About ``count`` pictures, the first in line of each kind by its share; a kind that is short gives what it has.

    Raises:
        UnnoiseError: there are fewer than two.
    """
    line = kinds(pictures, part)
    chosen = [(item, kind) for kind, share in shares.items() for item in line[kind][: max(1, round(share * count))]]
    if len(chosen) < 2:
        raise UnnoiseError(f"{pictures.path} has {len(chosen)} pictures to ask for", "name a set with more captions")
    return Prompts([item for item, _ in chosen], [kind for _, kind in chosen])


class Asked(NamedTuple):
    """One of the hundred: what is to be drawn, and of which kind it is."""

    prompt: str
    kind: str


def mixed(pictures: PictureSet, part: str, count: int) -> list[Asked]:
    """The prompts of ``choose`` in an order that tells nothing of their kind."""
    chosen = choose(pictures, part, count)
    rows = sorted(zip(chosen.items, chosen.tiers, strict=True), key=lambda row: order(f"mixed {pictures.ids[row[0]]}"))
    return [Asked(pictures.captions[item][0], kind) for item, kind in rows]


def hundred() -> list[Asked]:
    """The fixed hundred that a person is shown: ``mixed`` of the emoji set's part ``test``, kept in a file."""
    return [Asked(**row) for row in json.loads(HUNDRED.read_text("utf-8"))]
