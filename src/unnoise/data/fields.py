"""Which column of a table, or field of a record, holds the captions: one list of the names that tools give it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# the first existing one is used; capitals, blanks, dashes and underscores do not matter
CAPTIONS = (
    "captions", "caption", "text", "texts", "txt", "prompt", "prompts", "description", "descriptions",
    "image_caption", "image_description", "alt_text", "alt", "title", "tags", "tag_string",
)  # fmt: skip
WORDS = ("caption", "prompt", "descri", "text")  # "blip_caption" and "text_en" are captions if there is no better field
TAGS = ("tags", "tagstring")
# texts that do not describe a picture; never its caption, even as the only text
_OTHERS = """
    url link uri path file filename filepath imagepath imageurl imagefile image picture img id uid uuid key hash md5
    sha1 sha256 phash etag license licence author credit source website domain split status errormessage error nsfw
    punsafe language lang locale format mode mimetype mime type ext extension date datetime timestamp createdat
    updatedat exif camera
"""
OTHERS = frozenset(_OTHERS.split())


class Choice(NamedTuple):
    """``name`` of the field with the captions, None if there is none; ``rest`` names of unused texts."""

    name: str | None
    rest: tuple[str, ...]


def plain(name: str) -> str:
    """A field's name without case and punctuation: "Alt Text" and "alt_text" are the same."""
    return re.sub(r"[\W_]", "", name.casefold())


RANK = {plain(name): place for place, name in reversed([*enumerate(CAPTIONS)])}


def says_nothing(name: str) -> bool:
    """Whether a field's name is in ``OTHERS``, or ends like one for addresses."""
    return plain(name) in OTHERS or plain(name).endswith(("url", "uri", "path", "filename", "id", "hash"))


def rank(name: str) -> int | None:
    """The rank of a field's name, 0 the best: ``CAPTIONS``, then names with one of ``WORDS``; None for others."""
    bare = plain(name)
    if bare in RANK or says_nothing(name):
        return RANK.get(bare)
    word = next((place for place, word in enumerate(WORDS) if word in bare), None)
    return None if word is None else len(CAPTIONS) + word


def choose(names: Sequence[str], lone: bool = True) -> Choice:
    """Chooses the field with the captions from the names of all fields that hold text.

    The first by ``rank``; of equal ones, such as two that differ only in case, the one that comes first. If
    none has such a name, and ``lone``, the only text field, unless ``says_nothing``.
    """
    candidates = sorted((name for name in names if rank(name) is not None), key=lambda name: rank(name) or 0)
    others = [name for name in names if rank(name) is None and not says_nothing(name)]
    if candidates:
        return Choice(candidates[0], tuple(candidates[1:]))
    if lone and len(others) == 1:
        return Choice(others[0], ())
    return Choice(None, tuple(others))


def texts_in(record: Mapping[str, Any], lone: bool = False) -> list[object]:
    """The captions in a JSON object, a text or a list of texts; none if every field for them is missing or null."""
    there = {name: value for name, value in record.items() if value is not None}
    present = [field for field, value in there.items() if plain(field) in RANK or isinstance(value, str)]
    name = choose([field for field in present if record[field] not in ("", [])] or present, lone).name
    return [] if name is None else as_captions(name, record[name])


def as_captions(name: str, value: Any) -> list[object]:
    """A field's value as a list of captions; a list of tags becomes one caption."""
    if not isinstance(value, list):
        return [value]
    if plain(name) in TAGS and value and all(isinstance(tag, str) for tag in value):
        return [", ".join(value)]
    return value


def choice_note(choice: Choice) -> str | None:
    """A line on the choice; None if there was no choice."""
    rest = ", ".join(choice.rest)
    if choice.name is None:
        why = f"of its texts {rest} none has a name for it" if rest else "it holds no text for it"
        return f"no column of captions: {why}; call one caption"
    if not rest and choice.name in CAPTIONS:
        return None
    return f"captions are those of the column {choice.name}" + (f", not of {rest}" if rest else "")
