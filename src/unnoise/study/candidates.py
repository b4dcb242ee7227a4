"""Among which captions a judge must find the right one: a pure function of the picture set, with a revision.

It is a function and not a file: a file would fit one set alone, and the set is drawn on each user's computer with the
font found there. What a change of either would do to the figures is caught by hashes: a test pins that of a small set,
and every report bears that of its own list.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from unnoise.data.attributes import HAIR, TONES
from unnoise.data.store import PictureSet

REVISION = 1
HARD, RANDOM = 25, 25
PEOPLE = ("man", "woman", "person", "men", "women", "people", "boy", "girl", "child")
SMALL = {"a", "an", "and", "at", "for", "in", "of", "on", "or", "the", "to", "two", "with", "skin", "tone"}
SMALL |= {*PEOPLE, *TONES.values()}


def draw(*key: object) -> int:
    """A number below 2^64 that SHA-256 draws from the key: the same on every computer, with any version of torch."""
    text = "/".join(str(part) for part in ("unnoise candidates", REVISION, *key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def nouns(caption: str) -> frozenset[str]:
    """The words of a caption that name a thing or a role: without persons, skin tones and small words."""
    return frozenset(re.findall(r"[\w'-]+", caption.lower())) - SMALL


class Candidates:
    """The captions that are wrong for each picture, the hardest first.

    ``HARD`` come in turn from three kinds: the same thing in another tone, the same person and tone in another role,
    and a shared noun; within a kind those first that share most words, ties by hash. ``RANDOM`` more come from the
    whole set, and what the kinds lack. A small set gives all it has. Never taken is a picture with the same pixels, nor
    one whose caption is also a caption of the picture, nor a caption twice.

    Args:
        pictures: the set; captions alone are enough, attributes make the first two kinds.
    """

    def __init__(self, pictures: PictureSet) -> None:
        self.pictures = pictures
        self.canonical = [captions[0].lower() for captions in pictures.captions]
        self._nouns = [nouns(caption) for caption in self.canonical]
        self._own: dict[int, set[str]] = defaultdict(set)
        for item, captions in enumerate(pictures.captions):
            self._own[pictures.identical[item]] |= {caption.lower() for caption in captions}
        self._members: dict[object, list[int]] = defaultdict(list)
        for item in range(len(pictures)):
            for key in itertools.chain.from_iterable(self._keys(item)):
                self._members[key].append(item)
        self._sorted = sorted(range(len(pictures)), key=lambda item: pictures.ids[item])

    def _keys(self, item: int) -> tuple[list[object], list[object], list[object]]:
        """What others must share with a picture to be of each kind: tone, role, noun."""
        said = self.pictures.attributes[item]
        name, person, tones = said.get("name"), said.get("person"), tuple(said.get("tones") or ())
        return (
            [("name", name)] if name else [],
            [("tone", person, tones)] if person or tones else [],
            [("noun", word) for word in sorted(self._nouns[item])],
        )

    def hardest(self, item: int, count: int = HARD) -> list[int]:
        """The pictures that are most easily taken for this one: at most ``count``, fewer in a set without relatives."""
        words = set(self.canonical[item].split())

        def order(other: int) -> tuple[int, int]:
            shared = len(words & set(self.canonical[other].split()))
            return -shared, draw(self.pictures.ids[item], self.pictures.ids[other])

        kinds = [
            sorted(set(itertools.chain.from_iterable(self._members[key] for key in keys)), key=order)
            for keys in self._keys(item)
        ]
        in_turn = (each for row in itertools.zip_longest(*kinds) for each in row if each is not None)
        return list(itertools.islice(self._foils(item, in_turn), count))

    def of(self, item: int) -> list[int]:
        """Pictures whose canonical captions are wrong for this one: ``HARD + RANDOM``, or all of a smaller set."""
        size = len(self._sorted)
        drawn = (self._sorted[draw(self.pictures.ids[item], "random", k) % size] for k in range(8 * (HARD + RANDOM)))
        everyone = itertools.chain(self.hardest(item), drawn, self._sorted)
        return list(itertools.islice(self._foils(item, everyone), HARD + RANDOM))

    def _foils(self, item: int, others: Iterator[int]) -> Iterator[int]:
        """Those of the others whose captions are wrong for the picture, each caption once."""
        seen = set(self._own[self.pictures.identical[item]])
        for other in others:
            same = self.pictures.identical[other] == self.pictures.identical[item]
            if not same and self.canonical[other] and self.canonical[other] not in seen:
                seen.add(self.canonical[other])
                yield other

    def is_own(self, item: int, caption: str) -> bool:
        """Whether a caption is one of the picture's, or of one with the same pixels."""
        return caption.lower() in self._own[self.pictures.identical[item]]

    def digest(self, items: Sequence[int] | None = None) -> str:
        """SHA-256 (hex) of the whole list, or of that of some pictures: what a report names, and a test pins."""
        chosen = range(len(self.pictures)) if items is None else items
        listed = sorted((self.pictures.ids[i], [self.pictures.ids[j] for j in self.of(i)]) for i in chosen)
        return hashlib.sha256(json.dumps([REVISION, listed]).encode()).hexdigest()


_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")
_TONES = tuple(sorted(TONES.values(), key=len, reverse=True))  # "medium-light" before "light"
# attribute, words that stand for one another, what must not go before them, what must follow or must not
_GROUPS = (
    ("tone", _TONES, r"(?<![\w-])", r"(?=[ -]skin)"),
    ("person", ("man", "woman", "person"), r"(?<![\w-])", r"(?![\w-])"),
    ("person", ("men", "women", "people"), r"(?<![\w-])", r"(?![\w-])"),
    ("person", ("boy", "girl", "child"), r"(?<![\w-])", r"(?![\w-])"),
    (
        "hair",
        tuple(dict.fromkeys(h for h in HAIR.values() if h not in ("bald", "beard"))),
        r"(?<![\w-])",
        r"(?= hair|-haired)",
    ),
    ("colour", _COLOURS, r"(?<![\w-])", r"(?![\w-]| hair)"),
    ("side", ("left", "right"), r"(?<!\w)", r"(?!\w)"),
    ("side", ("up", "down"), r"(?<!\w)", r"(?!\w)"),
)


def swaps(caption: str) -> list[tuple[str, str]]:
    """(attribute, caption) with one attribute's word exchanged for another of its group, once for each such word.

    Attributes are tone, person, hair, colour and side. Which word comes in its place is drawn by SHA-256.
    """
    found = []
    for attribute, words, before, after in _GROUPS:
        for match in re.finditer(rf"{before}(?:{'|'.join(words)}){after}", caption):
            others = [word for word in words if word != match[0]]
            other = others[draw(caption, match.start()) % len(others)]
            found.append((attribute, caption[: match.start()] + other + caption[match.end() :]))
    return found
