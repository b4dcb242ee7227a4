"""Arguments as the user means them: ``~`` is a home folder, and text is UTF-8 whatever the locale."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from unnoise.errors import UnnoiseError
from unnoise.files import expanded


def meant(value: Any, name: str) -> Any:
    """The value of an option, and all that lies in it, as the user means it.

    Args:
        value: as it was parsed: a text, a path, another plain value, or a tuple or dataclass of them.
        name: the parameter's, for error messages.

    Raises:
        UnnoiseError: a path in the home of an unknown user, or a text that is not UTF-8.
    """
    if isinstance(value, Path):
        return nameable(expanded(value))
    if isinstance(value, str):
        return text(value, name)
    if type(value) is tuple:
        return tuple(meant(each, name) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        old = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        new = {key: meant(each, f"{name}.{key}") for key, each in old.items()}
        changed = {key: each for key, each in new.items() if each is not old[key] and each != old[key]}
        return replace(value, **changed) if changed else value
    return value


def text(value: str, name: str, encode: Callable[[str], bytes] = os.fsencode) -> str:
    """A text of the command line. Python decodes it by the locale; terminals send UTF-8 whatever that is.

    Raises:
        UnnoiseError: it is text in neither.
    """
    if value.isascii():
        return value
    try:
        return encode(value).decode("utf-8")
    except UnicodeError:
        wrong = [c for c in value if "\ud800" <= c <= "\udfff"]
    if not wrong:
        return value  # in the locale's own encoding
    what = "the prompt" if name == "prompt" else f"--{name.replace('_', '-')}"
    byte = f" (byte 0x{ord(wrong[0]) - 0xDC00:02x})" if "\udc80" <= wrong[0] <= "\udcff" else ""
    raise UnnoiseError(f"{what} is no UTF-8 text{byte}", "type it in UTF-8, or set LC_ALL to your terminal's encoding")


def nameable(path: Path) -> Path:
    """The path of the same bytes where the locale cannot encode its letters, such as one from an older record."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return Path(os.fsdecode(str(path).encode("utf-8", "surrogateescape")))
    return path
