"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.errors import UnnoiseError

if TYPE_CHECKING:
    from torch import Tensor


def expanded(path: Path | str) -> Path:
    """The path, with the home folder in place of a leading ``~`` or ``~user``.

    Shells expand it only at the beginning of a word, and not in ``--out=~/pictures``; Python never does.

    Raises:
        UnnoiseError: there is no such home folder, and no file of that name.
    """
    path = Path(path)
    first = path.parts[0] if path.parts else ""
    if not first.startswith("~"):
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        if os.path.lexists(first):
            return path
        raise UnnoiseError(f"{path} is in an unknown home folder", "write the full path") from None


def sha256(path: Path) -> str:
    """The SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def explain(error: OSError, path: Path) -> UnnoiseError:
    """A disk error in one line."""
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
def new_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """A scratch folder that is renamed to ``path`` if the block succeeds, and removed otherwise.

    Its files are flushed before the rename and the parent folder after it, so that a power cut leaves the complete
    folder or none. An existing folder is an error; with ``replace`` it is moved away last and then deleted.

    Raises:
        UnnoiseError: ``path`` exists, or the disk is full or cannot be written.
    """
    path = Path(os.path.abspath(path))
    scratch: Path | None = None
    try:
        if path.exists() and not replace:
            raise UnnoiseError(f"{path} already exists", "name another folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".partial-{path.name}-", dir=path.parent))
        scratch.chmod(0o755)
        yield scratch
        for each in [*sorted(p for p in scratch.rglob("*") if p.is_file()), scratch]:
            sync(each)
        old = path.with_name(f".partial-{path.name}-{secrets.token_hex(4)}") if path.exists() else None
        if old is not None:
            os.rename(path, old)
        try:
            os.rename(scratch, path)
        except OSError:
            if old is not None:
                os.rename(old, path)
            raise
        scratch = None
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
        sync(path.parent)
    except OSError as error:
        raise explain(error, path) from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def discard(path: Path) -> None:
    """Deletes a folder. It is renamed first, so that a kill in between leaves no part of it under its name."""
    gone = path.with_name(f".partial-{path.name}-{secrets.token_hex(4)}")
    os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Removes the scratch files of killed writers from a folder."""
    for path in folder.glob(".partial-*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _taking_its_name(path: Path) -> Iterator[Path]:
    """A scratch path beside ``path`` that takes its name if the block succeeds, and is removed otherwise."""
    scratch = path.with_name(f".partial-{path.name[:200]}-{secrets.token_hex(4)}")
    try:
        yield scratch
        sync(scratch)
        os.replace(scratch, path)
        sync(path.parent)
    except OSError as error:
        raise explain(error, path) from None
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file completely or not at all; an older one of that name is replaced.

    Raises:
        UnnoiseError: the disk is full or cannot be written; an older file is unchanged.
    """
    with _taking_its_name(path) as scratch:
        scratch.write_bytes(data)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """An empty scratch file beside ``path`` that takes its name if the block succeeds, and is removed otherwise, with
    the folders that were made for it.

    Raises:
        UnnoiseError: ``path`` exists, or the disk is full or cannot be written.
    """
    if os.path.lexists(path):
        raise UnnoiseError(f"{path} already exists", "name another file")
    new = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _taking_its_name(path) as scratch:
            scratch.touch(exist_ok=False)
            yield scratch
        new = []
    except OSError as error:
        raise explain(error, path) from None
    finally:
        with contextlib.suppress(OSError):
            for folder in new:
                folder.rmdir()


def json_bytes(value: Any) -> bytes:
    """Readable JSON; keys in the order given."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")  # undecodable bytes of a name become JSON escapes


def write_json(path: Path, value: Any) -> None:
    """Writes a readable JSON file."""
    path.write_bytes(json_bytes(value))


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors as one safetensors file, with strings in its header; storage that two share is written twice.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(_apart(tensors), path, dict(metadata) if metadata else None)
        path.chmod(0o644)  # the library makes files that only their owner can read
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise (OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))) from None


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as the library writes them; those in order, with a storage of their own, are not copied."""
    apart, places = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in places or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        places.add(storage.data_ptr())
        apart[name] = tensor
    return apart


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Locks a folder for this process; the lock ends with the process, however that ends.

    Raises:
        UnnoiseError: another process has locked it.
    """
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnnoiseError(f"a training is running in {folder}", "wait for it, stop it, or name another") from None
        except OSError:
            pass  # a file system without locks
        yield


def new_name(folder: Path, stem: str, suffix: str) -> Path:
    """A path in the folder that does not exist yet: stem.png, stem-2.png, stem-3.png and so on."""
    path, number = folder / f"{stem}{suffix}", 1
    while os.path.lexists(path):  # a broken link occupies the name too
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    return path
