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
# endings that promise a picture: what bears one and is none is left out by name, what bears another is counted
_PROMISED = ".png .apng .jpg .jpeg .jpe .jfif .webp .gif .bmp .tif .tiff .ico .svg .psd .heic .heif .avif .jxl .jp2"
PROMISED = frozenset(_PROMISED.split())
MAX_JSON = 16 * MAX_CAPTIONS  # bytes of one picture's .json, which has more than captions


class Pairs(NamedTuple):
    """``used`` the text of each picture that has one; ``second`` texts that came second to another of their picture;
    ``lonely`` those of no picture; ``crowded`` the pictures of a sample with one text for several of them."""

    used: dict[str, str]
    second: list[str]
    lonely: list[str]
    crowded: list[str]


def ending_of(name: str) -> str:
    """The ending of a file's name, with its dot and in small letters; empty where there is none."""
    return posixpath.splitext(name)[1].lower()


def stem_of(name: str) -> str:
    """A name without its ending, its folders kept."""
    return posixpath.splitext(name)[0]


def folded(name: str) -> str:
    """A name as file systems see it that tell neither capitals apart nor the two ways to write an accent."""
    return unicodedata.normalize("NFC", name).casefold()


def sample_of(name: str) -> str:
    """WebDataset's key: a name up to the first dot of its last part."""
    folder, last = posixpath.split(name)
    return posixpath.join(folder, last[:1] + last[1:].split(".")[0])


def paired(
    pictures: Sequence[str], texts: Iterable[str], endings: Sequence[str] = ENDINGS, loose: bool = True
) -> Pairs:
    """Pairs text files with pictures.

    A picture ``x/a.b.png`` has the text ``x/a.b.png.txt``, else ``x/a.b.txt``. For what is left then, if ``loose``: the
    text whose name differs in capitals or in the spelling of accents alone; and the text of the picture's WebDataset
    sample, all that begins with ``x/a.``, if its name says no more than the sample or the kind of text.

    Args:
        pictures: names, with ``/`` between folders.
        texts: names of files with one of the endings, in whatever case.
        endings: with dots, in small letters; of several texts for one picture the first ending wins.
        loose: whether to look further than equal names.
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
        wanted = Counter(stem for wants in bare.values() for stem in wants)
        for picture, wants in bare.items():
            for stem in wants:
                if stem in by_stem and (wanted[stem] == 1 or not alone):
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
    taken = set(used.values())
    return sorted(text for text in order if text not in taken and (text in claimed) is second)


def _akin(text: str, picture: str, sample: str) -> bool:
    """Whether a text of a picture's sample is the picture's.

    As ``a.txt`` and ``a.caption.txt`` are of ``a.x.png``, and ``2024.05.01.txt`` is not of ``2024.05.02.png``.
    """
    told, shown = stem_of(text), stem_of(picture)
    return (
        f"{shown}.".startswith(f"{told}.") or f"{told}.".startswith(f"{shown}.") or plain(told[len(sample) :]) in RANK
    )


def tell_apart(
    pairs: Pairs, lonely: Sequence[str], pictures: Iterable[str], aside: Quarantine, before: str = ""
) -> None:
    """Counts the texts that came second, and names those of no picture; their names begin with ``before``."""
    elsewhere = {posixpath.basename(stem_of(picture)): picture for picture in pictures}
    for text in pairs.second:
        aside.pass_over(before + text)
    for text in lonely:
        if ending_of(text) == ".json":  # any settings or tables are called so
            aside.pass_over(before + text)
            continue
        far = elsewhere.get(posixpath.basename(stem_of(text)))
        more = f" beside it; {far} lies in another folder: put them together" if far else " of its name"
        aside.add(before + text, LeftOut("no picture", f"a caption, and no picture{more}"))


def said_in(name: str, data: bytes) -> tuple[str, ...]:
    """The captions in a text file beside a picture: its lines, or what an object in ``.json`` has for them,
    or a ``.json`` that is a text or a list of texts.

    Raises:
        LeftOut: it is no text, or what stands there says nothing; a .json without a field for captions is none of them.
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
