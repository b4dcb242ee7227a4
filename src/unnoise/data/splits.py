"""The held-out set: fixed by SHA-256 of the code points, so that it is the same on every computer.

Tier 1 is a person, a role and a skin tone of which other tones are trained; tier 2 is a person and a role in all
tones, of which the role is trained with another person; both are held out of everything. Pictures without a tone
family would be unlearnable if held out, so a few of them are held out of the autoencoder only. The shares are of the
whole Noto set. Only a picture's hash decides, never its neighbours, except for the two guarantees named below.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

SALT = "unnoise emoji 38"  # of forty, the one with the shares nearest to 8, 3 and 2 % and most even
# thresholds on a hash in [0, 1): only some pictures are eligible, so these exceed the shares that they yield
TIER1, TIER2, AUTOENCODER = 0.165, 0.09, 0.05
FACING_RIGHT = "-200d-27a1-fe0f"


@dataclass(frozen=True)
class Member:
    """The properties of a picture that decide its split.

    ``id`` code points; ``family`` the same without tones; ``concept`` the family without its person, None where it
    has no exchangeable person; ``tones`` how many tones it shows; ``identical`` number of its group of equal pictures.
    """

    id: str
    family: str
    concept: str | None
    tones: int
    identical: int


def fraction(text: str, purpose: str) -> float:
    """A number in [0, 1) derived by SHA-256 from the code points, a different one for every purpose.

    "Facing right" is the mirror image of a picture: both share a number, and therefore a side of the split.
    """
    bare = text.replace(FACING_RIGHT, "").replace(FACING_RIGHT.removesuffix("-fe0f"), "")
    digest = hashlib.sha256(f"{SALT}/{purpose}/{bare}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split(members: Sequence[Member]) -> list[tuple[str, str]]:
    """(tier, part) of every picture: tier train, tier1, tier2, autoencoder; part train, validation, test.

    Equal pictures are always trained, so that no held-out picture is also a trained one.
    """
    families: dict[str, list[Member]] = defaultdict(list)
    groups: dict[int, int] = defaultdict(int)
    for m in members:
        families[m.family].append(m)
        groups[m.identical] += 1
    tier2 = _tier2(families, groups)
    result = []
    for m in members:
        family = families[m.family]
        if m.family in tier2:
            result.append(("tier2", _part(m.family)))
        elif groups[m.identical] > 1:
            result.append(("train", "train"))
        elif len(family) == 1:
            is_held_out = fraction(m.id, "autoencoder") < AUTOENCODER
            result.append(("autoencoder", _part(m.id)) if is_held_out else ("train", "train"))
        else:
            is_held_out = m.tones > 0 and m.id != _never_held_out(family) and fraction(m.id, "tier1") < TIER1
            result.append(("tier1", _part(m.id)) if is_held_out else ("train", "train"))
    return result


def _tier2(families: dict[str, list[Member]], groups: dict[int, int]) -> set[str]:
    """Families held out in all tones: at most half of a concept's persons, so that its role is always trained."""
    by_concept: dict[str, list[str]] = defaultdict(list)
    for name, family in families.items():
        toned = len(family) > 1 and max(m.tones for m in family) == 1
        if toned and family[0].concept is not None and all(groups[m.identical] == 1 for m in family):
            by_concept[family[0].concept].append(name)
    names_held_out: set[str] = set()
    for names in by_concept.values():
        names.sort(key=lambda name: fraction(name, "tier2"))
        names_held_out |= {name for name in names[: len(names) // 2] if fraction(name, "tier2") < TIER2}
    return names_held_out


def _never_held_out(family: Sequence[Member]) -> str:
    """The toned picture of a family that tier 1 never takes: the one with the largest hash."""
    return max((m for m in family if m.tones), key=lambda m: fraction(m.id, "tier1"), default=family[0]).id


def _part(text: str) -> str:
    return "validation" if fraction(text, "part") < 0.5 else "test"
