"""The record of a model folder, ``model.json``: its parts, what each is, and which files hold it. Without torch."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from os.path import isfile
from pathlib import Path
from typing import Any

from unnoise.errors import UnnoiseError
from unnoise.foreign import EMPTY, PAGE, POINTER, head_of, kind_of, parse_json

FORMAT = 2
MODEL = "model.json"
DEFAULT = Path(__file__).resolve().parent.parent / "models" / "default"  # the model that comes with the package
MODEL_BYTES = 2**20
AGAIN = "copy or train the model again"
PART_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
MAX_NAME = 64  # characters of a part's name, which begins the names of its files
FORMAT_1 = {  # the parts that folders of format 1 had, and of which kind each was
    "autoencoder": "autoencoders", "text": "encoders", "image": "encoders", "pair": "encoders", "denoiser": "networks",
}  # fmt: skip


def read_record(path: Path) -> dict[str, Any]:
    """The record of a model folder in today's format, once each file that it names is found there.

    No file is hashed: ``weights.verify`` does that.

    Returns:
        {"format": 2, "parts": {name: {"kind", "name", "config", "dtype", "shards", ...}}, "files": {name: SHA-256}, and
        what else was recorded}.

    Raises:
        UnnoiseError: no model there, a newer format, a damaged record, or a file that is missing or lies elsewhere.
    """
    damaged = UnnoiseError(f"{path / MODEL} is damaged", AGAIN)
    if not isfile(path / MODEL):
        raise no_model(path)
    kind = kind_of(head_of(path / MODEL))
    if kind is not None and kind.format in (POINTER, PAGE):
        raise UnnoiseError(f"{path / MODEL} is {kind.name}", kind.mend)
    try:
        if (path / MODEL).stat().st_size > MODEL_BYTES:
            raise damaged
        record = parse_json((path / MODEL).read_bytes())
        version, files = record["format"], record["files"]
    except (OSError, LookupError, TypeError, ValueError):
        raise damaged from None
    if type(version) is not int or version < 1 or not isinstance(files, dict):
        raise damaged
    if version > FORMAT:
        raise UnnoiseError(f"{path} has format {version}, this program reads up to {FORMAT}", "update unnoise")
    record = upgraded(record)
    if not isinstance(record.get("parts"), dict):
        raise damaged
    for part, entry in record["parts"].items():
        _check_part(part, entry, files)
    for name in files:
        check_file(path, name)
    named = {name for entry in record["parts"].values() for name in entry["shards"]}
    for name in files:
        if name.endswith(".safetensors") and name not in named:
            raise UnnoiseError(f"{MODEL} names {name} and no part that it holds", AGAIN)
    return record


def upgraded(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of an older format as one of today's.

    Format 1 had five names for parts, each of one kind, and no entry for where the weights of a part lie.
    """
    if record.get("format") != 1:
        return dict(record)
    components = record.get("components")
    shards = {name: None for name in record["files"] if name.endswith(".safetensors")}
    parts: Any = components
    if isinstance(components, dict):
        parts = {
            part: {"kind": FORMAT_1.get(part), **entry, "shards": shards} if isinstance(entry, dict) else entry
            for part, entry in components.items()
        }
    rest = {key: value for key, value in record.items() if key not in ("format", "components")}
    return {"format": FORMAT, "parts": parts, **rest}


def _check_part(part: str, entry: Any, files: Mapping[str, Any]) -> None:
    check_part_name(part)
    shards = entry.get("shards") if isinstance(entry, dict) else None
    if not isinstance(shards, dict) or not all(name in files and name.endswith(".safetensors") for name in shards):
        raise UnnoiseError(f"{MODEL} does not describe a part called {part}, or its files", AGAIN)


def check_part_name(part: str) -> None:
    """Ensures that a part may be called so.

    Raises:
        UnnoiseError: it may not.
    """
    if not isinstance(part, str) or len(part) > MAX_NAME or not PART_NAME.fullmatch(part):
        raise UnnoiseError(
            f"no part of a model can be called {str(part)[:80]!r}",
            f"use small letters and digits, with single dots, dashes or underscores between, at most {MAX_NAME}",
        )


def no_model(path: Path) -> UnnoiseError:
    """Why there is no model of ours at a path: nothing is there, or something else, which is named."""
    hint = f"name a folder that holds {MODEL}, or leave --model out"
    if isfile(path):
        kind = kind_of(head_of(path))
        return UnnoiseError(f"no model at {path}: it is a file{f' ({kind.name})' if kind else ''}, not a folder", hint)
    if isfile(path / "model_index.json"):
        own = f"make one of unnoise of it: `unnoise convert {path} --to unnoise --out FOLDER`"
        return UnnoiseError(f"no model folder of unnoise at {path}: it is one in diffusers' layout", own)
    files = sorted(path.glob("*.safetensors"))
    if files:
        return UnnoiseError(f"no model at {path}: it is a folder with files", f"name one, such as {files[0]}")
    return UnnoiseError(f"no model at {path}", hint)


def check_file(path: Path, name: str) -> Path:
    """The path of a file in a model folder, once it is found there.

    Raises:
        UnnoiseError: it lies elsewhere, is missing, is no regular file, or is a pointer or a page in the file's place.
    """
    file, found = path / name, False
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # links in a loop are a RuntimeError, NUL a ValueError
        if Path(name).name != name or file.resolve().parent != path.resolve():
            raise UnnoiseError(f"{file} lies outside of its model", "copy the model's own files into its folder")
        found = file.is_file()
    if not found:
        raise UnnoiseError(f"{file} is missing", AGAIN)
    kind = kind_of(head_of(file))
    if kind is not None and kind.format in (EMPTY, POINTER, PAGE):
        raise UnnoiseError(f"{file} is {kind.name}", kind.mend)
    return file


def read_file(path: Path, record: Mapping[str, Any], name: str) -> bytes:
    """The bytes of a text file of a model folder, whose hash must be the record's.

    Raises:
        UnnoiseError: the record has no such file, it is not in the folder, or it is missing or damaged.
    """
    if name not in record["files"]:
        raise UnnoiseError(f"{path / name} is missing: {MODEL} does not name it", AGAIN)
    try:
        data = check_file(path, name).read_bytes()
    except OSError as error:
        raise UnnoiseError(f"{path / name} cannot be read ({error.strerror})", "check its rights") from None
    if hashlib.sha256(data).hexdigest() != record["files"][name]:
        raise UnnoiseError(f"{path / name} is damaged: its SHA-256 is not the one in {MODEL}", AGAIN)
    return data
