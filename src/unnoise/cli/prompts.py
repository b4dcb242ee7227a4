"""The prompts to draw: the one on the command line, or those of a file, one a line."""

from __future__ import annotations

import errno
import re
import sys
from pathlib import Path
from typing import NamedTuple

from unnoise.errors import UnnoiseError
from unnoise.text import clean, decode

MAX_BYTES, MAX_PROMPTS = 2**20, 1000


class Prompt(NamedTuple):
    """A prompt and where it stands: "the prompt", or "prompts.txt, line 3" and the like, for what is wrong with it."""

    text: str
    where: str = "the prompt"


def read_prompts(prompt: str | None, file: Path | None) -> list[Prompt]:
    """The prompts to draw, in their order; at least one.

    Raises:
        UnnoiseError: there is none, or both a prompt and a file, or a file that cannot be read or has no prompts.
    """
    if prompt is not None and file is not None:
        raise UnnoiseError("there are a prompt and --prompts", "leave one of them out")
    if file is not None:
        return parse(*_read(file))
    if prompt is None:
        raise UnnoiseError("the prompt is missing", "see `unnoise generate --help`")
    return [checked(Prompt(prompt))]


def _read(file: Path) -> tuple[bytes, str]:
    """(bytes, name for errors) of a file, or of the standard input for "-"; of what is too long, a byte too many."""
    if str(file) == "-":
        try:
            return sys.stdin.buffer.read(MAX_BYTES + 1), "the standard input"
        except OSError as error:
            why = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise UnnoiseError(f"the standard input cannot be read ({why})", "name a file of prompts") from None
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1), str(file)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no such name"
        raise UnnoiseError(
            f"the prompts at {file} cannot be read ({why})", "name a text file, or - for a pipe"
        ) from None


def parse(data: bytes, name: str) -> list[Prompt]:
    """The prompts of a text: one a line, cleaned; empty lines and those that begin with # are skipped.

    Raises:
        UnnoiseError: more than 1 MiB or 1,000 prompts, neither UTF-8 nor UTF-16, or no prompt at all.
    """
    if len(data) > MAX_BYTES:
        raise UnnoiseError(f"{name} has more than {MAX_BYTES:,} bytes", "it is no list of prompts, or split it")
    prompts = []
    try:
        whole = decode(data)
    except UnicodeDecodeError as error:
        number = 1 + len(re.findall(rb"\r\n|\r|\n", data[: error.start]))
        raise UnnoiseError(f"{name}, line {number}: no UTF-8 text", "save the file as UTF-8") from None
    for number, line in enumerate(re.split(r"\r\n|\r|\n", whole), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{name}, line {number}"
        if (prompt := checked(Prompt(line, where))).text:
            prompts.append(prompt)
        if len(prompts) > MAX_PROMPTS:
            raise UnnoiseError(f"{where}: more than {MAX_PROMPTS:,} prompts", "split the file")
    if not prompts:
        raise UnnoiseError(f"{name} has no prompts", "write one a line; lines that begin with # are comments")
    return prompts


def checked(prompt: Prompt) -> Prompt:
    """The prompt, cleaned.

    Raises:
        UnnoiseError: it is no text.
    """
    where = "" if prompt.where == "the prompt" else f"{prompt.where}: "
    return prompt._replace(text=clean(prompt.text, f"{where}the prompt"))
