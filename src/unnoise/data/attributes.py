"""Attributes of a picture from the code points of its emoji sequence: person, role, skin tones, hair, flag, family."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


TONES = {"1f3fb": "light", "1f3fc": "medium-light", "1f3fd": "medium", "1f3fe": "medium-dark", "1f3ff": "dark"}
HAIR = {"1f9b0": "red", "1f9b1": "curly", "1f9b3": "white", "1f9b2": "bald", "1f471": "blond", "1f9d4": "beard"}
PEOPLE = {
    "1f468": "man", "1f469": "woman", "1f9d1": "person", "1f466": "boy", "1f467": "girl", "1f9d2": "child",
    "1f474": "old man", "1f475": "old woman", "1f9d3": "older person", "1f476": "baby", "1f47c": "baby",
    "1f385": "man", "1f936": "woman", "1f934": "man", "1f478": "woman", "1f57a": "man", "1f483": "woman",
    "1f930": "woman", "1fac3": "man", "1f931": "woman", "1f9d5": "woman", "1f93a": "person", "1fac2": "people",
    "1f46b": "woman and man", "1f46c": "man and man", "1f46d": "woman and woman",
    "1f48f": "person and person", "1f491": "person and person", "1f46f": "people", "1f93c": "people",
    "1f9de": "person", "1f9df": "person",
}  # fmt: skip
SIGNS = {"2640": "woman", "2642": "man"}
# bases that take a gender sign; without merpeople (1f9dc), whose three names share no word
SIGNED = _codes(
    "1f46e 1f470 1f471 1f473 1f477 1f481 1f482 1f486 1f487 1f575 1f645 1f646 1f647 1f64b 1f64d 1f64e 1f6a3 1f6b4 1f6b5 "
    "1f6b6 1f3c3 1f3c4 1f3ca 1f3cb 1f3cc 26f9 1f926 1f935 1f937 1f938 1f939 1f93d 1f93e 1f9b8 1f9b9 1f9cd 1f9ce 1f9cf "
    "1f9d4 1f9d6 1f9d7 1f9d8 1f9d9 1f9da 1f9db 1f9dd 1f9de 1f9df"
)
# toned pictures that show a part of the body and no person
BODY = _codes(
    "1f44b 1f91a 1f590 270b 1f596 1faf1 1faf2 1faf3 1faf4 1faf7 1faf8 1faf9 1fafa 1f44c 1f90c 1f90f 270c 1f91e 1faf0 "
    "1f91f 1f918 1f919 1f448 1f449 1f446 1f595 1f447 261d 1faf5 1f44d 1f44e 270a 1f44a 1f91b 1f91c 1f44f 1f64c 1faf6 "
    "1f450 1f932 1f91d 1f64f 270d 1f485 1f933 1f4aa 1f9b5 1f9b6 1f442 1f9bb 1f443"
)
# two tones are encoded with two people, the untoned picture with one code point: both are one family
COUPLES = {
    "1f469-200d-1f91d-200d-1f468": "1f46b",
    "1f468-200d-1f91d-200d-1f468": "1f46c",
    "1f469-200d-1f91d-200d-1f469": "1f46d",
    "1faf1-200d-1faf2": "1f91d",
    "1f9d1-200d-2764-200d-1f48b-200d-1f9d1": "1f48f",
    "1f9d1-200d-2764-200d-1f9d1": "1f491",
    "1f9d1-200d-1f430-200d-1f9d1": "1f46f",
    "1f468-200d-1f430-200d-1f468": "1f46f-200d-2642",
    "1f469-200d-1f430-200d-1f469": "1f46f-200d-2640",
    "1f9d1-200d-1faef-200d-1f9d1": "1f93c",
    "1f468-200d-1faef-200d-1f468": "1f93c-200d-2642",
    "1f469-200d-1faef-200d-1f469": "1f93c-200d-2640",
}
PERSON_WORD = re.compile(r"^(?:(?:wo)?m[ae]n|person|people|girl|boy)\b ?|\b(?:(?:wo)?man|person)$")


@dataclass(frozen=True)
class Attributes:
    """The structured side of a caption; None or empty where a picture has none.

    ``emoji`` the sequence itself; ``name`` its short name without tone; ``person`` ``"woman"``, ``"man and man"``;
    ``role`` ``"firefighter"``, ``"running"``; ``tones`` one per person, from left to right; ``hair``; ``flag`` the
    country or region.
    """

    emoji: str
    name: str
    person: str | None
    role: str | None
    tones: tuple[str, ...]
    hair: str | None
    flag: str | None

    def record(self) -> dict[str, object]:
        """As a plain dictionary with lists, for Parquet."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def family_of(code: str) -> str:
    """The code points without skin tones and variation selectors, the same for all tones of one thing."""
    bare = "-".join(c for c in code.split("-") if c not in TONES and c != "fe0f")
    return COUPLES.get(bare, bare)


def concept_of(code: str) -> str | None:
    """The family without its person: ``woman firefighter`` and ``firefighter`` share it; None without a role.

    Only where Unicode encodes man, woman and person in the same way, so that the words of the role are shared too.
    """
    parts = family_of(code).split("-")
    if len(parts) == 1 and parts[0] not in SIGNED:
        return None
    people = [c for c in parts if c in ("1f468", "1f469", "1f9d1")]
    signs = [c for c in parts if c in SIGNS]
    if len(people) + len(signs) > 1 or not (signs or people or parts[0] in SIGNED):
        return None
    if people:
        return "-".join("1f9d1" if c in people else c for c in parts)
    return "-".join(
        c for i, c in enumerate(parts) if c not in SIGNS and parts[i + 1 : i + 2] not in (["2640"], ["2642"])
    )


def attributes_of(sequence: str, name: str) -> Attributes:
    """Attributes of a sequence whose short name without tone is ``name`` (words, not underscores)."""
    parts = [f"{ord(c):x}" for c in sequence]
    tones = tuple(TONES[p] for p in parts if p in TONES)
    flag = _flag(parts, name)
    person = _person(parts, bool(tones))
    hair = next((HAIR[p] for p in parts if p in HAIR), None)
    if person is not None and " and " in person and len(tones) == 1:
        tones *= 2  # one modifier on a couple tones both
    role = None
    if person is not None:
        role = None if hair or name in PEOPLE.values() else _role(name, person)
    return Attributes(sequence, name, person, role, tones, hair, flag)


def _role(name: str, person: str) -> str | None:
    """What the person is or does: the name without the person's word."""
    if name.startswith("family"):
        return "family"
    if " and " in person:  # "kiss woman man", "women holding hands"
        return next(r for r in ("kiss", "couple with heart", "holding hands") if r in name or r == "holding hands")
    return PERSON_WORD.sub("", name).strip() or None


def _person(parts: list[str], toned: bool) -> str | None:
    persons = [PEOPLE[p] for p in parts if p in PEOPLE]
    sign = next((SIGNS[p] for p in parts[1:] if p in SIGNS), None)
    if parts[0] in BODY:
        return None
    if sign is not None:
        return {"man": "men", "woman": "women"}[sign] if parts[0] in ("1f46f", "1f93c") else sign
    if persons:
        return " and ".join(persons)
    return "person" if toned or parts[0] in SIGNED else None


def _flag(parts: list[str], name: str) -> str | None:
    regional = len(parts) == 2 and all(0x1F1E6 <= int(p, 16) <= 0x1F1FF for p in parts)
    subdivision = parts[0] == "1f3f4" and parts[-1] == "e007f"
    return name if regional or subdivision else None
