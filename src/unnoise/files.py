"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unnoise.errors import UnnoiseError


def sha256(path: Path) -> str:
    """The SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def explain(error: OSError, path: Path) -> UnnoiseError:
    """A fault of the disk, told in one line."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnnoiseError(f"the disk is full, {path} was not written", "free some space or name another folder")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UnnoiseError(f"{path} cannot be written ({error.strerror})", "name a folder that you may write to")
    return UnnoiseError(f"{path} cannot be written ({error.strerror or error})", "check the path and the disk")


def sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A scratch folder that is renamed to ``path`` when the block ends well, and removed when it does not.

    Its files are flushed before the rename and the parent folder after it, so that a power cut leaves the whole folder
    or none. An existing folder is never replaced.

    Raises:
        UnnoiseError: ``path`` exists, or the disk is full or cannot be written.
    """
    path = Path(os.path.abspath(path))
    scratch: Path | None = None
    try:
        if path.exists():
            raise UnnoiseError(f"{path} is there already", "name another folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".partial-{path.name}-", dir=path.parent))
        scratch.chmod(0o755)
        yield scratch
        for each in [*sorted(p for p in scratch.rglob("*") if p.is_file()), scratch]:
            sync(each)
        os.rename(scratch, path)
        scratch = None
        sync(path.parent)
    except OSError as error:
        raise explain(error, path) from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Writes a readable JSON file; keys in the order given."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def new_name(folder: Path, stem: str, suffix: str) -> Path:
    """A path in the folder that does not exist yet: stem.png, stem-2.png, stem-3.png and so on."""
    path, number = folder / f"{stem}{suffix}", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    return path
