"""The wrong captions among which a judge must find the right one: a pure function of the picture set, with a revision.

It is a function and not a file: a file would fit only one set, and each user's computer draws the set with its own
font. Hashes reveal any change: a test pins the hash of a small set's list, and every report shows that of its own.
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
    """A number below 2^64 derived by SHA-256 from the key: the same on every computer, with any version of torch."""
    text = "/".join(str(part) for part in ("unnoise candidates", REVISION, *key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def nouns(caption: str) -> frozenset[str]:
    """The words of a caption that name a thing or a role: without persons, skin tones and small words."""
    return frozenset(re.findall(r"[\w'-]+", caption.lower())) - SMALL


class Candidates:
    """The captions that are wrong for each picture, the hardest first.

    ``HARD`` captions come in turn from three kinds: the same thing in another tone, the same person and tone in another
    role, and a shared noun; within a kind first those that share most words, ties by hash. ``RANDOM`` more come from
    the whole set, and as many as the kinds lack. A small set gives all it has. Pictures with the same pixels, captions
    that are also captions of the picture, and repeated captions are excluded.

    Args:
        pictures: the set; captions are enough, attributes are needed for the first two kinds.
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
        """The keys that others must share with a picture to be of each kind: tone, role, noun."""
        attributes = self.pictures.attributes[item]
        name, person, tones = attributes.get("name"), attributes.get("person"), tuple(attributes.get("tones") or ())
        return (
            [("name", name)] if name else [],
            [("tone", person, tones)] if person or tones else [],
            [("noun", word) for word in sorted(self._nouns[item])],
        )

    def hardest(self, item: int, count: int = HARD) -> list[int]:
        """The pictures most easily confused with this one: at most ``count``, fewer in a set without relatives."""
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
        random = (self._sorted[draw(self.pictures.ids[item], "random", k) % size] for k in range(8 * (HARD + RANDOM)))
        everyone = itertools.chain(self.hardest(item), random, self._sorted)
        return list(itertools.islice(self._foils(item, everyone), HARD + RANDOM))

    def _foils(self, item: int, others: Iterator[int]) -> Iterator[int]:
        """The others whose captions are wrong for the picture, each caption once."""
        used = set(self._own[self.pictures.identical[item]])
        for other in others:
            same = self.pictures.identical[other] == self.pictures.identical[item]
            if not same and self.canonical[other] and self.canonical[other] not in used:
                used.add(self.canonical[other])
                yield other

    def is_own(self, item: int, caption: str) -> bool:
        """Whether a caption is one of the picture's, or of one with the same pixels."""
        return caption.lower() in self._own[self.pictures.identical[item]]

    def digest(self, items: Sequence[int] | None = None) -> str:
        """SHA-256 (hex) of the whole list, or of that of some pictures, for reports and for the test that pins it."""
        rows = range(len(self.pictures)) if items is None else items
        record = sorted((self.pictures.ids[i], [self.pictures.ids[j] for j in self.of(i)]) for i in rows)
        return hashlib.sha256(json.dumps([REVISION, record]).encode()).hexdigest()


_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")
_TONES = tuple(sorted(TONES.values(), key=len, reverse=True))  # "medium-light" before "light"
# attribute, interchangeable words, a pattern for the text before them, a pattern for the text after them
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

    Attributes are tone, person, hair, colour and side. SHA-256 chooses the replacement.
    """
    results = []
    for attribute, words, before, after in _GROUPS:
        for match in re.finditer(rf"{before}(?:{'|'.join(words)}){after}", caption):
            others = [word for word in words if word != match[0]]
            other = others[draw(caption, match.start()) % len(others)]
            results.append((attribute, caption[: match.start()] + other + caption[match.end() :]))
    return results
