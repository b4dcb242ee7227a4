"""Makes captions from a picture's text by kohya's settings: which line, which wordings, which prefix and suffix."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unnoise.data.intake import MAX_RECORD, LeftOut, captions_of, read_file, text_of
from unnoise.errors import UnnoiseError

Records = Mapping[str, list[tuple[tuple[str, ...], Any]]]  # (path in parts, record) by the last part
MAX_WORDINGS = 64  # of one caption, from its {alternatives}


def metadata(path: Path) -> Records:
    """The records of a fine-tuning metadata file, by the last part of the pictures' paths.

    Paths may be written with ``/`` or, as on Windows, with ``\\``; paths of another computer do not exist here.

    Raises:
        UnnoiseError: the file is no such metadata.
    """
    try:
        record = json.loads(text_of(read_file(path, MAX_RECORD)))
    except (ValueError, RecursionError, LeftOut) as error:
        raise UnnoiseError(f"metadata_file {path.name} cannot be read: {error}", "write it anew") from None
    if not isinstance(record, dict):
        raise UnnoiseError(f"metadata_file {path.name} is no JSON object", "write pictures' names with their records")
    records: dict[str, list[tuple[tuple[str, ...], Any]]] = defaultdict(list)
    for key, value in record.items():
        parts = tuple(re.split(r"[/\\]", key))
        records[parts[-1]].append((parts, value))
    return records


def caption_of(records: Records, place: str) -> str:
    """Caption and tags of a picture, with the tags after every line.

    Of several records with the picture's file name, the one whose folder has the name of the picture's is used.

    Raises:
        LeftOut: the metadata have no record of it, or several, or an invalid one.
    """
    *_, folder, name = ("", *place.split("/"))
    matches = records.get(name) or records.get(Path(name).stem) or []
    if len(matches) > 1:
        matches = [(parts, record) for parts, record in matches if parts[-2:-1] == (folder,)]
        if len(matches) != 1:
            raise LeftOut("bad metadata", "the metadata_file has several pictures of its name, in other folders")
    if not matches:
        raise LeftOut("bad metadata", "the metadata_file does not name it")
    record = matches[0][1]
    if not isinstance(record, dict):
        raise LeftOut("bad metadata", "its record is no object")
    caption, tags = record.get("caption"), record.get("tags")
    if not all(text is None or isinstance(text, str) for text in (caption, tags)):
        raise LeftOut("bad metadata", "caption and tags are to be texts")
    if caption is None or not tags:
        return str((tags if caption is None else caption) or "")
    return "\n".join(f"{line}, {tags}" for line in caption.splitlines())


def wordings(caption: str | None, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The captions of a picture: the first line, or with wildcards every line in every wording.

    Raises:
        LeftOut: they are empty, or too many.
    """
    if caption is None:  # no caption: the class tokens take its place
        caption = settings.get("class_tokens")
        if caption is None:
            return ()
    every = settings.get("enable_wildcard", False)
    lines = list(captions_of([*(caption.splitlines() if every else caption.splitlines()[:1])]))
    if every:
        lines = [wording for line in lines for wording in alternatives(line)]
    return captions_of([framed(line, settings) for line in lines])


def alternatives(line: str) -> list[str]:
    """Every wording of "a {red|blue} car"; doubled braces stand for themselves.

    Raises:
        LeftOut: there are more than ``MAX_WORDINGS``.
    """
    text = line.replace("{{", "\0").replace("}}", "\1")
    choices = [part.split("|") if place % 2 else [part] for place, part in enumerate(re.split(r"\{([^{}]+)\}", text))]
    if math.prod(map(len, choices)) > MAX_WORDINGS:
        raise LeftOut("bad caption", f"it has more than {MAX_WORDINGS} wordings")
    return ["".join(each).replace("\0", "{").replace("\1", "}") for each in itertools.product(*choices)]


def framed(line: str, settings: Mapping[str, Any]) -> str:
    """A caption with prefix and suffix, and with its separators as the tokenizer sees them in the end."""
    line = " ".join(filter(None, (settings.get("caption_prefix"), line, settings.get("caption_suffix"))))
    if settings.get("keep_tokens_separator"):
        parts = (part.strip(" ,") for part in line.split(settings["keep_tokens_separator"]))
        line = ", ".join(part for part in parts if part)
    if settings.get("secondary_separator"):
        line = line.replace(settings["secondary_separator"], settings.get("caption_separator", ","))
    return line
