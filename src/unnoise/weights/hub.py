"""Models by their names on a Hugging Face hub: from its cache on this machine, or fetched, if that is asked for.

Without ``download=True`` no request is made. The cache is the one that other programs share, read by its layout:
``models--OWNER--NAME/refs/BRANCH`` holds a commit, and ``snapshots/COMMIT`` links to the files. Only safetensors, JSON
and text files are fetched, by the library ``huggingface_hub``; pickles are not.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from unnoise import extras
from unnoise.errors import UnnoiseError
from unnoise.files import expanded, explain
from unnoise.foreign import parse_json, read
from unnoise.notes import say, size_text
from unnoise.weights.hub_files import FETCHED, PICKLES, Plan, lacking, main_in, plan
from unnoise.weights.walk import PIPELINE

NAME = re.compile(
    r"(?P<owner>[A-Za-z0-9][\w.-]{0,95})/(?P<name>[A-Za-z0-9][\w.-]{0,95})"
    r"(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*?))?(?:/(?P<file>(?:[\w.+ -]+/)*[\w.+ -]+\.\w+))?",
    re.ASCII,
)
COMMIT = re.compile(r"[0-9a-f]{40}")
TREE_BYTES = 2**24  # of a cached listing of a repository's files
ENDPOINT = "https://huggingface.co"


class HubName(NamedTuple):
    """A repository on a hub, a revision of it, and a file in it; "" is its main branch, and the whole."""

    repository: str
    revision: str = ""
    file: str = ""

    def __str__(self) -> str:
        return self.repository + (f"@{self.revision}" if self.revision else "") + (f"/{self.file}" if self.file else "")


def parse(text: str) -> HubName | None:
    """What ``owner/name``, ``owner/name@revision`` or ``owner/name/file.safetensors`` names; None if it is none."""
    match = NAME.fullmatch(text)
    if match is None or ".." in text or "--" in text or match["name"].lower().endswith((*FETCHED, *PICKLES, ".gguf")):
        return None
    return HubName(f"{match['owner']}/{match['name']}", match["revision"] or "", match["file"] or "")


def cache() -> Path:
    """The folder of the hub's cache: $HF_HUB_CACHE, or ``hub`` in $HF_HOME or ~/.cache/huggingface."""
    if own := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.abspath(os.path.expandvars(expanded(own))))
    base = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.path.abspath(os.path.expandvars(expanded(base)))) / "hub"


def is_offline() -> bool:
    """Whether $HF_HUB_OFFLINE forbids requests."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in ("1", "ON", "YES", "TRUE")


def storage(name: HubName) -> Path:
    """The folder of a repository in the cache."""
    return cache() / f"models--{name.repository.replace('/', '--')}"


def snapshot(name: HubName) -> Path | None:
    """The folder of a revision in the cache, whole or not; None if there is none."""
    folder = storage(name)
    revision = name.revision or "main"
    commit = revision
    if (folder / "refs" / revision).is_file():
        commit = read(folder / "refs" / revision, 100).decode("ascii", "replace").strip()
    place = folder / "snapshots" / commit
    return place if re.fullmatch(r"[0-9a-f]{7,64}", commit) and place.is_dir() else None


def cached(name: HubName) -> Path | None:
    """The file or folder in the cache that a name means; None if it is not there, or not whole.

    Raises:
        UnnoiseError: several files are there, and none is the model.
    """
    folder = snapshot(name)
    if folder is None:
        return None
    if name.file:
        return folder / name.file if (folder / name.file).is_file() else None
    return main_in(folder, str(name))


def locate(name: HubName, download: bool = False) -> Path:
    """The file or folder that a name means, from the cache; if it is not there, fetched into it where that is asked.

    Args:
        name: the name.
        download: whether it may be fetched. A note tells how large it is before the first byte.

    Raises:
        UnnoiseError: it is not in the cache and may not or cannot be fetched, or holds no safetensors.
    """
    if name.file and not name.file.lower().endswith(FETCHED):
        raise UnnoiseError(
            f"{name} is no safetensors file, and nothing else is taken from a hub",
            "name a .safetensors file, or download it yourself and `unnoise convert` it",
        )
    if (path := cached(name)) is not None:
        return path
    where = f"no file, folder or listed model is called {name}, and the hub's cache at {cache()} has none"
    if is_offline():
        raise UnnoiseError(f"{where}, and HF_HUB_OFFLINE is set", "unset it and add --download, or name a path")
    if not download:
        size = known_size(name)
        raise UnnoiseError(where, f"add --download to fetch it{f' ({size})' if size else ''}, or name a path")
    return fetch(name)


def known_size(name: HubName) -> str:
    """How much is missing, if the cache has the list of files that huggingface_hub 2 keeps there; else ""."""
    folder = snapshot(name)
    tree = storage(name) / "trees" / f"{folder.name}.json" if folder is not None else None
    if folder is None or tree is None or not tree.is_file():
        return ""
    try:
        listing = parse_json(read(tree, TREE_BYTES))["files"]
        sizes = {str(file): int(about["size"]) for file, about in listing.items()}
        return size_text(missing(plan(name.repository, name.file, sizes), folder))
    except (UnnoiseError, ValueError, LookupError, TypeError, AttributeError):
        return ""


def missing(todo: Plan, folder: Path) -> int:
    """The bytes of those files of a plan that are not in a folder yet."""
    return sum(size for file, size in todo.files.items() if not (folder / file).exists())


def fetch(name: HubName) -> Path:
    """Fetches what a name means into the cache. Files that are there whole are not fetched again.

    Raises:
        UnnoiseError: huggingface_hub is not installed, the hub cannot be reached or refuses, there are no safetensors,
            or the disk is full.
    """
    hub = library()
    endpoint = os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")
    api = hub.HfApi(endpoint=endpoint, library_name="unnoise")
    try:
        about = api.model_info(name.repository, revision=name.revision or None, files_metadata=True)
        if not COMMIT.fullmatch(about.sha or ""):
            raise UnnoiseError(f"the hub at {endpoint} names no commit of {name}", "check HF_ENDPOINT")
        folder = storage(name) / "snapshots" / about.sha
        todo = plan(name.repository, name.file, {each.rfilename: each.size or 0 for each in about.siblings or []})
        announce(name, todo, missing(todo, folder))
        fetched = functools.partial(api.hf_hub_download, name.repository, cache_dir=cache())
        for file in sorted(todo.files, key=lambda file: (file != PIPELINE, todo.files[file])):
            fetched(file, revision=about.sha)
            if file == PIPELINE and not name.file and (parts := lacking(folder, todo.files)):
                what = f"{name} has no whole safetensors for {', '.join(parts)}"
                raise UnnoiseError(what, "name another revision or repository")
        if not COMMIT.fullmatch(name.revision):  # what a branch is called is noted last, when all of it is there
            fetched(min(todo.files, key=todo.files.__getitem__), revision=name.revision or "main")
    except UnnoiseError:
        raise
    except Exception as error:  # of the library, its transport and the system; what is none of them is a bug
        raise refusal(error, name, endpoint) from None
    main = folder / name.file if name.file else main_in(folder, str(name))
    if main is None or not main.exists():
        raise UnnoiseError(f"{name} is not whole after it was fetched", "name another revision or repository")
    return main


def announce(name: HubName, todo: Plan, size: int) -> None:
    """Tells how much is fetched, before the first byte, and ensures that the disk of the cache has room for it.

    Raises:
        UnnoiseError: it has not.
    """
    folder = next(path for path in (cache(), *cache().parents) if path.exists())
    if (free := shutil.disk_usage(folder).free) < size:
        raise UnnoiseError(
            f"{name} has {size_text(size)}, and the disk of the hub's cache at {cache()} has {size_text(free)} left",
            "free some space, or set HF_HUB_CACHE to a folder on another disk",
        )
    count = f"{len(todo.files)} {'file' if len(todo.files) == 1 else 'files'}"
    say(f"note: fetching {name} to {cache()}: {size_text(size)}, {count}{todo.note}")


def library() -> ModuleType:
    """huggingface_hub, without its telemetry, its log and, where standard error is no terminal, its progress.

    Raises:
        UnnoiseError: it is not installed.
    """
    hub = extras.load("huggingface_hub")
    constants: Any = extras.load("huggingface_hub.constants")
    constants.HF_HUB_DISABLE_TELEMETRY = True
    utils = extras.load("huggingface_hub.utils")
    utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    return hub


def refusal(error: Exception, name: HubName, endpoint: str) -> Exception:
    """A failure of the library in one line, without what its messages quote; a bug is returned as it is."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"{endpoint}/{name.repository}"
    if "GatedRepoError" in kinds:
        return UnnoiseError(
            f"{name.repository} is gated: its owner gives it to those who accept the terms",
            f"accept them at {page}, then set HF_TOKEN to a token of that account",
        )
    if "RevisionNotFoundError" in kinds:
        return UnnoiseError(f"{name.repository} has no revision {name.revision or 'main'!r}", f"see {page}/tree/main")
    if "RepositoryNotFoundError" in kinds:
        return UnnoiseError(
            f"the hub has no model {name.repository}, or it is private",
            "check the spelling; for a private one set HF_TOKEN to a token that may read it",
        )
    if status in (401, 403):
        return UnnoiseError(f"the hub refuses {name.repository} to this token", "check HF_TOKEN, or make a new one")
    if status is not None:
        return UnnoiseError(f"the hub at {endpoint} answers with status {status}", "try again later")
    if isinstance(error, OSError) and error.errno is not None and "LocalEntryNotFoundError" not in kinds:
        return explain(error, cache())
    transport = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests")
    if transport or kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled"}:
        cause = type(error.__cause__ or error).__name__
        return UnnoiseError(
            f"the hub at {endpoint} cannot be reached ({cause})",
            "check the network and try again; files that were fetched whole are kept",
        )
    if isinstance(error, ValueError):  # a name that no hub takes, an answer that is no JSON, a file of over 50 GB
        return UnnoiseError(f"{name} cannot be fetched ({str(error)[:200]})", f"check the name, and {endpoint}")
    if isinstance(error, OSError | RuntimeError) or type(error).__module__.startswith("huggingface_hub"):
        return UnnoiseError(f"fetching {name} failed half-way", "try again; files that were fetched whole are kept")
    return error
