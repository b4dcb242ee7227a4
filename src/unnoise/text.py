"""Captions and prompts: cleaning them, and decoding files of them."""

from __future__ import annotations

import codecs
import re
import unicodedata

from unnoise.errors import UnnoiseError

_HALF = re.compile("[\ud800-\udfff]")
# invisible characters that change how a line is displayed: the controls of UAX 9, and the byte order mark
_INVISIBLE = dict.fromkeys([0xFEFF, 0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
_BLANKS = re.compile("[\\s\0-\x1f\x7f-\x9f\u200b]+")  # the last has no width: a blank of Thai, Khmer and others
_ENDS = " \u200b\u2060"
MARKS = 30  # combining marks on a letter, as in UAX 15's stream-safe text: sorting takes the square of their number
OTHER_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # than of UTF-8


def clean(text: str, what: str = "the prompt") -> str:
    """A caption or a prompt in the one form that models read in training and drawing.

    The result is one line in normal form C: a run of white space or control characters becomes one blank, and the ends
    have none. Direction controls, byte order marks and more than thirty marks on a letter are removed. Everything
    else stays: joiners, soft hyphens, variation selectors, tags, private-use characters, and characters that are newer
    than Python's tables.

    Args:
        what: a name for the text, for the error.

    Raises:
        UnnoiseError: it has lone surrogates, or NULs: it was decoded wrongly.
    """
    if half := _HALF.search(text):
        fault = f"U+{ord(half[0]):04X}, half a character, at place {half.start() + 1}"
        raise UnnoiseError(f"{what} has {fault}", "write it anew in UTF-8")
    text = text.translate(_INVISIBLE).rstrip("\0")
    if "\0" in text:
        raise UnnoiseError(f"{what} has NULs between its letters, as UTF-16 read as UTF-8 has", "save it as UTF-8")
    text = _BLANKS.sub(lambda run: "\u200b" if set(run[0]) == {"\u200b"} else " ", text)
    if not text.isascii():
        text = _readable(unicodedata.normalize("NFC", _readable(text)))  # twice: some marks become two
    return text.strip(_ENDS)


def _readable(text: str) -> str:
    """The text with at most thirty marks on each letter."""
    run, letters = 0, []
    for sign in text:
        run = run + 1 if unicodedata.combining(sign) else 0
        if run <= MARKS:
            letters.append(sign)
    return "".join(letters)


def decode(data: bytes) -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32, without its byte order mark; UTF-32 must have one.

    UTF-16 without a mark is recognised by its NULs: every other byte of Latin letters is NUL; UTF-8 has none.

    Raises:
        UnicodeDecodeError: it is none of them.
    """
    if data.startswith(OTHER_MARKS):
        return data.decode("utf-32" if data.startswith(OTHER_MARKS[:2]) else "utf-16")
    if b"\0" in data and len(data) % 2 == 0:
        for encoding, high, low in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
            if b"\0" in data[high::2] and b"\0" not in data[low::2]:
                return data.decode(encoding)
    return data.decode("utf-8-sig")
