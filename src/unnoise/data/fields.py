"""Which column of a table, or field of a record, holds the captions: one list of the names that tools give it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# the first that is there is taken; capitals, blanks, dashes and underscores do not count
CAPTIONS = (
    "captions", "caption", "text", "texts", "txt", "prompt", "prompts", "description", "descriptions",
    "image_caption", "image_description", "alt_text", "alt", "title", "tags", "tag_string",
)  # fmt: skip
WORDS = ("caption", "prompt", "descri", "text")  # "blip_caption" and "text_en" are captions if nothing better is there
TAGS = ("tags", "tagstring")
# texts that say nothing of a picture, and are never its caption for being the only text that is there
_OTHERS = """
    url link uri path file filename filepath imagepath imageurl imagefile image picture img id uid uuid key hash md5
    sha1 sha256 phash etag license licence author credit source website domain split status errormessage error nsfw
    punsafe language lang locale format mode mimetype mime type ext extension date datetime timestamp createdat
    updatedat exif camera
"""
OTHERS = frozenset(_OTHERS.split())


class Choice(NamedTuple):
    """``name`` of the field with the captions, None if there is none; ``rest`` of the texts that are not used."""

    name: str | None
    rest: tuple[str, ...]


def plain(name: str) -> str:
    """A field's name without its manner of writing: "Alt Text" and "alt_text" are one."""
    return re.sub(r"[\W_]", "", name.casefold())


RANK = {plain(name): place for place, name in reversed([*enumerate(CAPTIONS)])}


def says_nothing(name: str) -> bool:
    """Whether a field's name is of ``OTHERS``, or ends as one for addresses does."""
    return plain(name) in OTHERS or plain(name).endswith(("url", "uri", "path", "filename", "id", "hash"))


def rank(name: str) -> int | None:
    """How far back a name stands in the order of names of captions: ``CAPTIONS``, then those with a word in them."""
    bare = plain(name)
    if bare in RANK or says_nothing(name):
        return RANK.get(bare)
    word = next((place for place, word in enumerate(WORDS) if word in bare), None)
    return None if word is None else len(CAPTIONS) + word


def choose(names: Sequence[str], lone: bool = True) -> Choice:
    """The field with the captions, of the names of all that hold text.

    The first by ``rank``; of equal ones, such as two that differ in their capitals alone, the one that comes first. If
    none has such a name, and ``lone``, the only text that is there, unless ``says_nothing``.
    """
    known = sorted((name for name in names if rank(name) is not None), key=lambda name: rank(name) or 0)
    others = [name for name in names if rank(name) is None and not says_nothing(name)]
    if known:
        return Choice(known[0], tuple(known[1:]))
    if lone and len(others) == 1:
        return Choice(others[0], ())
    return Choice(None, tuple(others))


def texts_in(record: Mapping[str, Any], lone: bool = False) -> list[object]:
    """The captions in a JSON object, a text or a list of texts; none where every field for them is missing or null."""
    there = [
        name for name, value in record.items() if value is not None and (plain(name) in RANK or isinstance(value, str))
    ]
    chosen = choose([name for name in there if record[name] not in ("", [])] or there, lone).name
    return [] if chosen is None else listed(chosen, record[chosen])


def listed(name: str, value: Any) -> list[object]:
    """The captions that a field's value is: one, or a list of them; a list of tags is one."""
    if not isinstance(value, list):
        return [value]
    if plain(name) in TAGS and value and all(isinstance(tag, str) for tag in value):
        return [", ".join(value)]
    return value


def told_of(choice: Choice) -> str | None:
    """A line on what was chosen; None where there was nothing to choose."""
    rest = ", ".join(choice.rest)
    if choice.name is None:
        why = f"of its texts {rest} none has a name for it" if rest else "it holds no text for it"
        return f"no column of captions: {why}; call one caption"
    if not rest and choice.name in CAPTIONS:
        return None
    return f"captions are those of the column {choice.name}" + (f", not of {rest}" if rest else "")
