"""Which text file belongs to which picture: by their names, within one folder tree or one tar."""

from __future__ import annotations

import json
import posixpath
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from unnoise.data.fields import RANK, plain, texts_in
from unnoise.data.intake import MAX_CAPTIONS, LeftOut, Quarantine, captions_in, captions_of, text_of

ENDINGS = (".txt", ".caption", ".cap", ".captions", ".text", ".json")  # of several beside a picture the first is used
# extensions of pictures: a file with one that is no picture is left out by name, files with others are counted
_PROMISED = ".png .apng .jpg .jpeg .jpe .jfif .webp .gif .bmp .tif .tiff .ico .svg .psd .heic .heif .avif .jxl .jp2"
PROMISED = frozenset(_PROMISED.split())
MAX_JSON = 16 * MAX_CAPTIONS  # bytes of one picture's .json, which has more than captions


class Pairs(NamedTuple):
    """``used`` maps pictures to their texts; ``second`` texts of pictures that have a better one; ``lonely`` texts
    without a picture; ``crowded`` pictures of samples with one text for several of them."""

    used: dict[str, str]
    second: list[str]
    lonely: list[str]
    crowded: list[str]


def ending_of(name: str) -> str:
    """The extension of a file's name, with its dot and in lower case; empty if there is none."""
    return posixpath.splitext(name)[1].lower()


def stem_of(name: str) -> str:
    """A name without its extension, with its folders."""
    return posixpath.splitext(name)[0]


def folded(name: str) -> str:
    """A name as file systems see it that ignore case and the two ways to write an accent."""
    return unicodedata.normalize("NFC", name).casefold()


def sample_of(name: str) -> str:
    """WebDataset's key: a name up to the first dot of its last part."""
    folder, last = posixpath.split(name)
    return posixpath.join(folder, last[:1] + last[1:].split(".")[0])


def paired(
    pictures: Sequence[str], texts: Iterable[str], endings: Sequence[str] = ENDINGS, loose: bool = True
) -> Pairs:
    """Pairs text files with pictures.

    A picture ``x/a.b.png`` has the text ``x/a.b.png.txt``, else ``x/a.b.txt``. Then, if ``loose``, the others get a
    text whose name differs only in case or in the spelling of accents; or a text of the picture's WebDataset sample
    (all files that begin with ``x/a.``) whose name adds nothing but the kind of text to the sample.

    Args:
        pictures: names, with ``/`` between folders.
        texts: names of files with one of the endings, in any case.
        endings: with dots, in lower case; of several texts for one picture the first ending wins.
        loose: whether to accept more than equal names.
    """
    ranks = {text: next(at for at, ending in enumerate(endings) if text.lower().endswith(ending)) for text in texts}
    order = sorted(ranks, key=lambda text: (ranks[text], text))
    stems = {text: text[: -len(endings[rank])] for text, rank in ranks.items()}
    used: dict[str, str] = {}
    claimed: set[str] = set()

    def claim(key: Callable[[str], str], alone: bool) -> None:
        by_stem: dict[str, list[str]] = defaultdict(list)
        for text in order:
            if text not in claimed or not alone:
                by_stem[key(stems[text])].append(text)
        bare = {p: dict.fromkeys((key(p), key(stem_of(p)))) for p in pictures if p not in used}
        claims = Counter(stem for stems_of_picture in bare.values() for stem in stems_of_picture)
        for picture, stems_of_picture in bare.items():
            for stem in stems_of_picture:
                if stem in by_stem and (claims[stem] == 1 or not alone):
                    used.setdefault(picture, by_stem[stem][0])
                    claimed.update(by_stem[stem])

    claim(str, alone=False)
    if not loose:
        return Pairs(used, _without(order, claimed, used, True), _without(order, claimed, used, False), [])
    claim(folded, alone=True)
    crowded = []
    samples: dict[str, list[str]] = defaultdict(list)
    for picture in pictures:
        samples[sample_of(picture)].append(picture)
    for text in order:
        sample = sample_of(text)
        mates = samples.get(sample, ())
        if text in claimed or not mates:
            continue
        bare = [picture for picture in mates if picture not in used and _akin(text, picture, sample)]
        full = [picture for picture in mates if picture in used and _akin(text, picture, sample)]
        if len(bare) == 1:
            used[bare[0]] = text
        elif bare:
            crowded += bare
        if bare or full:
            claimed.add(text)
    return Pairs(used, _without(order, claimed, used, True), _without(order, claimed, used, False), crowded)


def _without(order: Sequence[str], claimed: set[str], used: dict[str, str], second: bool) -> list[str]:
    in_use = set(used.values())
    return sorted(text for text in order if text not in in_use and (text in claimed) is second)


def _akin(text: str, picture: str, sample: str) -> bool:
    """Whether a text of a picture's sample is the picture's.

    ``a.txt`` and ``a.caption.txt`` are texts of ``a.x.png``; ``2024.05.01.txt`` is no text of ``2024.05.02.png``.
    """
    text_stem, picture_stem = stem_of(text), stem_of(picture)
    return (
        f"{picture_stem}.".startswith(f"{text_stem}.")
        or f"{text_stem}.".startswith(f"{picture_stem}.")
        or plain(text_stem[len(sample) :]) in RANK
    )


def tell_apart(
    pairs: Pairs, lonely: Sequence[str], pictures: Iterable[str], aside: Quarantine, before: str = ""
) -> None:
    """Counts the ``second`` texts, and reports those without a picture, with ``before`` in front of their names."""
    elsewhere = {posixpath.basename(stem_of(picture)): picture for picture in pictures}
    for text in pairs.second:
        aside.pass_over(before + text)
    for text in lonely:
        if ending_of(text) == ".json":  # it may be any settings or table
            aside.pass_over(before + text)
            continue
        far = elsewhere.get(posixpath.basename(stem_of(text)))
        more = f" beside it; {far} lies in another folder: put them together" if far else " of its name"
        aside.add(before + text, LeftOut("no picture", f"a caption, and no picture{more}"))


def captions_in_file(name: str, data: bytes) -> tuple[str, ...]:
    """The captions in a text file beside a picture: its lines; or, in ``.json``, the field for captions of an object,
    a text, or a list of texts. A ``.json`` without a field for captions has none.

    Raises:
        LeftOut: it is no text, or all captions are empty.
    """
    if ending_of(name) != ".json":
        return captions_in(data)
    if len(data) > MAX_JSON:
        raise LeftOut("bad metadata", f"the .json has more than {MAX_JSON:,} bytes")
    try:
        record = json.loads(text_of(data))
    except (ValueError, RecursionError):
        raise LeftOut("bad metadata", "the .json beside it is no JSON") from None
    texts = texts_in(record) if isinstance(record, dict) else record if isinstance(record, list) else [record]
    if not isinstance(record, dict) and not all(isinstance(text, str) for text in texts):
        return ()
    return captions_of(texts) if texts else ()
