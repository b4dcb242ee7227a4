"""Captions that a person would type, from the names and aliases of emoji, Unicode's names and measured colours.

The first caption of a picture is its canonical one. Captions keep the capitals of proper names; the tokenizer lowers
them. A caption that would fit two different pictures is used for neither, unless it is the canonical one of one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from unnoise import extras
from unnoise.data.attributes import Attributes, family_of
from unnoise.data.people import article, couple_captions, family_captions, hair_captions, person_captions, toned
from unnoise.data.render import code_points
from unnoise.data.words import COLOURED, COUNTRIES, DROPPED, KEYS, UNCOUNTED, WITH_THE

MAX_WORDS, MAX_CAPTIONS = 16, 8
TONE = re.compile(r",? (?:medium-light|medium-dark|light|medium|dark) skin tone")


def plain_name(sequence: str) -> str:
    """The short name in words, without skin tones: ``"woman firefighter"``, ``"man red hair"``, ``"Norway"``."""
    return TONE.sub("", _words(extras.load("emoji").EMOJI_DATA[sequence]["en"]))


def captions_of(
    attributes: Sequence[Attributes], colours: Sequence[str | None], pixels: Sequence[str]
) -> list[list[str]]:
    """The captions of each picture, the canonical one first; no two differ only in case.

    Args:
        attributes: of each picture.
        colours: the measured colour word of each, or None.
        pixels: a key of each picture's pixels: equal pictures may share a caption.
    """
    aliases = _aliases()
    candidates = [
        _captions(a, c, aliases[family_of(code_points(a.emoji))]) for a, c in zip(attributes, colours, strict=True)
    ]
    owners: dict[str, set[str]] = defaultdict(set)
    canonical: dict[str, int] = {}
    for index, captions in enumerate(candidates):
        canonical.setdefault(captions[0].lower(), index)
        for caption in captions:
            owners[caption.lower()].add(pixels[index])
    result = []
    for index, captions in enumerate(candidates):
        own = {captions[0].lower(): captions[0]}
        for caption in captions[1:]:
            key = caption.lower()
            mine = len(owners[key]) == 1 and canonical.get(key, index) == index
            if mine and len(caption.split()) <= MAX_WORDS:
                own.setdefault(key, caption)
        result.append(list(own.values())[:MAX_CAPTIONS])
    return result


def _captions(a: Attributes, colour: str | None, aliases: Sequence[str]) -> list[str]:
    """All candidates for one picture."""
    if a.flag:
        return _flag(a.flag, aliases)
    if a.role == "family" and a.person:
        return family_captions(a.person.split(" and "))
    if a.person and " and " in a.person:
        return couple_captions(a)
    if a.person and a.hair:
        return hair_captions(a)
    if a.person:
        return person_captions(a, aliases)
    if a.tones:
        return toned([a.name, *aliases], a.tones)
    return _thing(a, colour, aliases)


def _flag(name: str, aliases: Sequence[str]) -> list[str]:
    """ "flag of Norway", "Norway flag", "Norway", and the other names of a country."""
    parenthesis = re.search(r"^(.*?) ?\(.*?\) ?(.*)$", name)
    short = " ".join(parenthesis.groups()).strip() if parenthesis else name
    short = short.replace(" SAR China", "").replace("&", "and")
    others = [name, *COUNTRIES.get(short, ())]
    others += [x.removeprefix("flag for ").replace("&", "and") for x in aliases if x.startswith("flag for ")]
    others += [short.replace("St.", "Saint")] if "St." in short else []
    plain = unicodedata.normalize("NFKD", short)
    others += ["".join(c for c in plain if not unicodedata.combining(c))]
    names = list(dict.fromkeys([short, *others]))
    names = [n for n in names if "(" not in n and "&" not in n]
    the = [f"the {n}" if n in WITH_THE or re.search(r"Republic|Lands$|^[^&]* Islands$", n) else n for n in names]
    the = [n.removeprefix("the ") if " and McDonald" in n else n for n in the]
    return [f"flag of {the[0]}", f"{names[0]} flag", *(f"flag of {n}" for n in the[1:]), names[0]] + [
        f"{n} flag" for n in names[1:]
    ]


def _thing(a: Attributes, colour: str | None, aliases: Sequence[str]) -> list[str]:
    """Animals, objects, faces, signs: the name, the colour if people would mention it, aliases, Unicode's name."""
    name = a.name
    if name.startswith("keycap "):
        sign = name.removeprefix("keycap ")
        number = [f"number {sign}", f"number {KEYS.get(sign, sign)}"] if sign.isdigit() else []
        return [name, f"{sign} key", f"keycap {KEYS.get(sign, sign)}", *number]
    if re.fullmatch(r"\w+ o'clock|\w+-thirty", name):
        hour = name.removesuffix("-thirty")
        half = [f"clock showing half past {hour}"] if hour != name else []
        return [f"clock showing {name}", name, f"clock at {name.replace('-', ' ')}", *half]
    if match := re.fullmatch(r"(\w+) button \((.*)\)", name):
        return [f"{match[1]} button, {match[2]}", f"{match[1]} button", f"{match[2]} {match[1]}"]
    captions = [name] + ([name.replace("grey", "gray")] if "grey" in name else [])
    if colour and name in COLOURED:
        captions += [f"{colour} {name}"] + ([f"gray {name}"] if colour == "grey" else [])
    if _countable(name):
        captions.append(article(f"{colour} {name}" if colour and name in COLOURED else name))
    captions += [x for x in aliases if _honest(x, name)]
    unicode_name = _unicode_name(a.emoji)
    if unicode_name and _honest(unicode_name, name):
        captions.append(unicode_name)
    return captions


def _honest(alias: str, name: str) -> bool:
    """Whether an alias may replace the name: words, not too many, no colour that the name does not have.

    Unicode's "black" and "white" mean filled and outlined and do not describe the picture's colours.
    """
    words = alias.lower().split()
    strange = {"black", "white", "heavy", "negative", "squared", "circled", "cjk", "katakana", "ideograph", "lower"}
    return (
        alias.lower() not in DROPPED
        and len(words) <= 8
        and not (strange & set(words)) - set(name.lower().split())
        and not re.search(r"\d|_|^arrow ", alias)
        and _bare(alias) != _bare(name)
    )


def _countable(name: str) -> bool:
    """Whether "a" or "an" may stand before the name; in doubt not."""
    words = name.lower().split()
    return (
        name == name.lower()
        and re.fullmatch(r"[a-z' -]+", name) is not None
        and not (words[-1].endswith("s") and not words[-1].endswith(("ss", "us")))
        and not UNCOUNTED & {words[0], words[-1]}
        and words[0] not in ("no", "non-potable", "left", "see-no-evil")
        and words[-1] not in ("button", "done", "symbol", "off", "up", "down", "right")
    )


def _aliases() -> dict[str, list[str]]:
    """Family -> aliases of its untoned picture, in words."""
    emoji = extras.load("emoji")
    aliases: dict[str, list[str]] = defaultdict(list)
    for sequence, record in sorted(emoji.EMOJI_DATA.items()):
        name = _words(record["en"])
        if TONE.search(name) or record["status"] != emoji.STATUS["fully_qualified"]:
            continue
        for alias in record.get("alias", []):
            words = _words(alias)
            flag = words.startswith("flag for ")
            if flag or _honest(words, name):
                aliases[family_of(code_points(sequence))].append(words)
    return aliases


def _unicode_name(sequence: str) -> str | None:
    bare = sequence.replace("\ufe0f", "")
    return unicodedata.name(bare, "").lower() or None if len(bare) == 1 else None


def _words(name: str) -> str:
    return name.strip(":").replace("_", " ").replace("’", "'")


def _bare(words: str) -> str:
    """Only the letters, so that "t-shirt" and "tshirt" are equal."""
    return re.sub(r"[\W_]", "", words.lower())
