"""Writes pictures: into a folder that is checked before any work, as complete files under unused names."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from unnoise.errors import UnnoiseError
from unnoise.files import explain, new_name


@contextlib.contextmanager
def ready_folder(out: Path) -> Iterator[None]:
    """Creates the folder and ensures that it can be written, before any work; removes folders that stay empty.

    Raises:
        UnnoiseError: it cannot be written.
    """
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    probe = out / f".write-{secrets.token_hex(4)}"
    try:
        try:
            out.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"unnoise")
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
    except FileExistsError:
        raise UnnoiseError(f"{out} is a file, not a folder", "name a folder with --out") from None
    except OSError as error:
        _remove_empty(new)
        raise explain(error, out) from None
    try:
        yield
    finally:
        _remove_empty(new)


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):  # it stops at the first that is not empty
        for folder in folders:
            folder.rmdir()


def save(data: bytes, out: Path, stem: str, suffix: str = ".png") -> Path:
    """Writes one file under a new name, completely or not at all; an existing one is never overwritten.

    Raises:
        UnnoiseError: the disk is full or cannot be written.
    """
    scratch = out / f".partial-{secrets.token_hex(4)}{suffix}"
    try:
        scratch.write_bytes(data)
        while True:
            path = new_name(out, stem, suffix)
            with contextlib.suppress(FileExistsError):
                _name(scratch, path)
                return path
    except OSError as error:
        raise explain(error, out) from None
    finally:
        scratch.unlink(missing_ok=True)


def _name(scratch: Path, path: Path) -> None:
    """Gives a finished file its name, which must be unused: a plain rename would overwrite."""
    try:
        path.hardlink_to(scratch)
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links, such as a memory stick's
        path.touch(exist_ok=False)
        scratch.replace(path)


def slug(text: str) -> str:
    """A prompt as a file name: lower-case letters, digits and dashes, at most 48 of them."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48].strip("-") or "picture"
