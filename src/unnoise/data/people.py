"""Captions of people and of parts of their bodies: who, what they do, their hair, their skin tones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from unnoise.data.attributes import Attributes
from unnoise.data.words import PHRASES, SYNONYMS

ACTIVITY = re.compile(r"(?:\w+ing|mountain biking|in|with|at|on)\b")
NUMBERS = {1: "one", 2: "two", 3: "three"}
PLURALS = {
    "man": "men", "woman": "women", "person": "people", "adult": "adults", "boy": "boys", "girl": "girls",
    "child": "children",
}  # fmt: skip


def toned(bases: Sequence[str], tones: tuple[str, ...]) -> list[str]:
    """Each base with its skin tones in two wordings, the first wording of every base first."""
    if not tones:
        return list(bases)
    if len(set(tones)) > 1:
        both = f"{tones[0]} skin tone and {tones[1]} skin tone"
        return [f"{b}, {both}" for b in bases] + [f"{b}, one {tones[0]} and one {tones[1]}" for b in bases[:1]]
    return (
        [f"{bases[0]}, {tones[0]} skin tone", f"{bases[0]} with {tones[0]} skin"]
        + [f"{b}, {tones[0]} skin tone" for b in bases[1:]]
        + [f"{tones[0]} skin tone {bases[0]}"]
    )


def person_captions(a: Attributes, aliases: Sequence[str]) -> list[str]:
    """One person with a role: a noun ("firefighter"), or what the person does, wears or sits in."""
    person, role = a.person or "", a.role or ""
    doing = bool(ACTIVITY.match(role)) and a.name.startswith(f"{person} ")
    others = [b for b in aliases if b != a.name]
    synonym = SYNONYMS.get(role)
    if doing:
        phrases = [PHRASES.get(role, role)] + ([synonym] if synonym else [])
        if not a.tones:
            return [a.name, *(f"{article(person)} {p}" for p in phrases), *(f"{person} {p}" for p in phrases), *others]
        skin = f"{a.tones[0]} skin"
        return [
            f"{a.name}, {skin} tone",
            *(f"{article(person)} with {skin} {re.sub('^with ', 'and ', p)}" for p in phrases),
            *(f"{person} {p}, {skin} tone" for p in phrases),
            *(f"{b}, {skin} tone" for b in others),
            *_skinned(a.name, a.tones[0]),
        ]
    bases = [a.name]
    if role and a.name == f"{person} {role}":
        gender = {"man": "male", "woman": "female"}.get(person)
        bases += [f"{gender} {role}"] if gender else []
    if synonym:
        prefix = "" if a.name == role else f"{person} "
        bases.append(synonym if ACTIVITY.match(synonym) and not prefix else f"{prefix}{synonym}")
        bases = [b if not ACTIVITY.match(b) else f"{person} {b}" for b in bases]
    if not a.tones:
        return [*bases, article(a.name), *others]
    skin = f"{a.tones[0]} skin"
    return [
        f"{a.name}, {skin} tone",
        f"{article(a.name)} with {skin}",
        *(f"{b}, {skin} tone" for b in [*bases[1:], *others]),
        *_skinned(a.name, a.tones[0]),
    ]


def _skinned(name: str, tone: str) -> list[str]:
    """ "dark-skinned woman", but "woman with medium-light skin tone": people do not say "medium-light-skinned"."""
    return [f"{tone}-skinned {name}"] if tone in ("light", "dark") else [f"{name} with {tone} skin tone"]


def hair_captions(a: Attributes) -> list[str]:
    """A person described by the hair: "man, dark skin tone, red hair", "a man with dark skin and red hair"."""
    person, hair = a.person or "", a.hair or ""
    adjective = {"bald": "bald", "beard": "bearded", "curly": "curly-haired"}.get(hair, f"{hair}-haired")
    noun = {"bald": "bald", "beard": "beard"}.get(hair, f"{hair} hair")
    having = {"bald": "a bald head", "beard": "a beard"}.get(hair, f"{hair} hair")
    if not a.tones:
        return [
            f"{person}, {noun}",
            f"{article(person)} with {having}",
            f"{adjective} {person}",
            f"{person} with {having}",
        ]
    skin = f"{a.tones[0]} skin"
    return [
        f"{person}, {skin} tone, {noun}",
        f"{article(person)} with {skin} and {having}",
        f"{adjective} {person}, {skin} tone",
        f"{article(f'{adjective} {person}')} with {skin}",
    ]


def couple_captions(a: Attributes) -> list[str]:
    """Two people: who they are, what they do, and one skin tone for both or one for each."""
    first, second = (a.person or "").split(" and ")
    who = f"{first} and {second}" if first != second else f"two {PLURALS[first]}"
    role = a.role or ""
    if "heart" in role:
        bases = [f"couple with heart, {who}", f"{who} in love", f"{who} with a heart between them"]
        if first == second == "person":
            bases = ["couple with heart", *bases]
        doing = "in love"
    else:
        doing = "kissing" if "kiss" in role else role
        bases = [f"{who} {doing}"]
        if first == second and first != "person":
            bases.append(f"{PLURALS[first]} {doing}")
        if first == second == "person":
            bases.append(f"couple {doing}")
    if len(set(a.tones)) < 2:
        return toned(bases, a.tones)
    skins = [f"{p} with {t} skin" for p, t in zip((first, second), a.tones, strict=True)]
    return [f"{bases[0]}, {a.tones[0]} skin tone and {a.tones[1]} skin tone", f"{skins[0]} and {skins[1]} {doing}"] + [
        f"{b}, {a.tones[0]} skin tone and {a.tones[1]} skin tone" for b in bases[1:]
    ]


def family_captions(people: Sequence[str]) -> list[str]:
    """A family described by its members: "family: man, woman, girl", "a family with a man, a woman and a girl"."""
    people = ["adult" if p == "person" else p for p in people]
    counts = Counter(people)
    some = [f"{NUMBERS[n]} {PLURALS[p]}" if n > 1 else article(p) for p, n in counts.items()]
    members = " and ".join(filter(None, [", ".join(some[:-1]), some[-1]]))
    bare = " and ".join(filter(None, [", ".join(people[:-1]), people[-1]]))
    return [f"family: {', '.join(people)}", f"a family with {members}", f"family of {bare}", f"{members}, family"]


def article(noun: str) -> str:
    """The noun after "a" or "an"; a plural as it is."""
    if noun in PLURALS.values():
        return noun
    vowel = noun[:1].lower() in "aeiou" and not noun.lower().startswith(("uni", "one", "euro", "ewe"))
    return f"an {noun}" if vowel or noun.lower().startswith("x-ray") else f"a {noun}"
