"""Which models lie in a folder, whoever arranged it: ComfyUI, AUTOMATIC1111, Forge, diffusers, a hub's cache, unnoise.

Folders are walked and files are named here, and none is opened but ``model.json``. Links are followed, and no folder
is walked twice, so that links in a circle end; folders whose names begin with a dot are passed over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from unnoise.errors import UnnoiseError
from unnoise.foreign import parse_json, read
from unnoise.weights.record import MODEL, MODEL_BYTES

WEIGHTS = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle", ".pti")
PIPELINE, RUN = "model_index.json", "run.json"  # of a model in diffusers' layout, and of a training of ours
SHARD = re.compile(r"(?P<stem>.+?)-(?P<number>\d{3,5})-of-(?P<count>\d{3,5})(?P<variant>\.\w+)?\.safetensors")
GENERAL = re.compile(  # names that say nothing, so that a file bears its folder's; and the variant behind them
    r"(diffusion_pytorch_model|model|pytorch_model|adapter_model|pytorch_lora_weights|learned_embeds|open_clip_model"
    r"|open_clip_pytorch_model)(\.(?P<variant>\w+))?"
)
CACHED = re.compile(r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)")  # a repository in a hub's cache
SKIPPED = {"blobs", "refs", "trees", "__pycache__", "node_modules"}
PASSED_OVER = (".", "datasets--", "spaces--")  # hidden folders, and what a hub's cache has besides models
MAX_ENTRIES, MAX_WEIGHTS, MAX_DEPTH = 1_000_000, 100_000, 32  # files and folders, files of weights, folders inside


class Item(NamedTuple):
    """A model that was found.

    Attributes:
        name: what people call it.
        path: the file or folder that is the model.
        files: its files of weights.
        form: "file", "shards", "unnoise" or "diffusers"; the parts of the last are items of their own, before it.
    """

    name: str
    path: Path
    files: tuple[Path, ...]
    form: str


class Walk:
    """One walk through a folder; iterate over it.

    Attributes:
        notes: after the walk, what was passed over, a line each.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[str] = []
        self.seen: set[tuple[int, int]] = set()
        self.entries, self.weights = 0, 0

    def __iter__(self) -> Iterator[Item]:
        label = self.root.name if self.root.name != "model" else self.root.parent.name
        yield from self.folder(self.root, label or "models", False, 0)
        if self.entries >= MAX_ENTRIES or self.weights >= MAX_WEIGHTS:
            what = f"{MAX_ENTRIES:,} files" if self.entries >= MAX_ENTRIES else f"{MAX_WEIGHTS:,} files of weights"
            self.notes.append(f"only the first {what} in {self.root} were looked at; add folders inside of it")

    def folder(self, path: Path, label: str, inner: bool, depth: int) -> Iterator[Item]:
        """The models in a folder and in those inside of it.

        Args:
            path: the folder.
            label: what files without a name of their own are called by.
            inner: whether the label stands before all names, as in a repository or a model in diffusers' layout.
            depth: how many folders it lies in, from the root.
        """
        listing = self.listing(path, depth)
        if listing is None:
            return
        files, folders = listing
        if MODEL in files and is_ours(path / MODEL):
            self.weights += 1
            yield Item(label, path, tuple(path / name for name in files if name.endswith(".safetensors")), "unnoise")
            return
        if "snapshots" in folders and (match := CACHED.fullmatch(path.name)):
            for commit, end in snapshots(path):
                yield from self.folder(commit, f"{match['owner']}/{match['name']}{end}", True, depth + 2)
            return
        if RUN in files:  # of a training, whose checkpoints are no models
            files, folders = [], [name for name in folders if name == "model"]
        inner = inner or PIPELINE in files
        yield from self.loose(path, label, inner, [name for name in files if name.lower().endswith(WEIGHTS)])
        for name in folders:
            if name not in SKIPPED and not name.startswith(PASSED_OVER):
                below = label if name == "model" and not inner else f"{label}/{name}" if inner else name
                yield from self.folder(path / name, below, inner, depth + 1)
        if PIPELINE in files:
            yield Item(label, path, (), "diffusers")

    def listing(self, path: Path, depth: int) -> tuple[list[str], list[str]] | None:
        """(names of files, names of folders) in it, sorted; None where it is not looked at."""
        if depth > MAX_DEPTH or self.entries >= MAX_ENTRIES or self.weights >= MAX_WEIGHTS:
            if depth > MAX_DEPTH:
                self.notes.append(f"{path} lies in more than {MAX_DEPTH} folders, and was passed over")
            return None
        files: list[str] = []
        folders: list[str] = []
        try:
            own = os.stat(path)
            if (own.st_dev, own.st_ino) in self.seen:
                return None
            self.seen.add((own.st_dev, own.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    self.entries += 1
                    (folders if is_folder(entry) else files).append(entry.name)
                    if self.entries >= MAX_ENTRIES:
                        break
        except OSError as error:
            self.notes.append(f"{path} cannot be read ({error.strerror}), and was passed over")
            return None
        return sorted(files), sorted(folders)

    def loose(self, path: Path, label: str, inner: bool, names: list[str]) -> Iterator[Item]:
        """The files of weights right in a folder, shards of one file together."""
        names = names[: MAX_WEIGHTS - self.weights]
        self.weights += len(names)
        sets: dict[str, list[Path]] = {}
        for name in names:
            match = SHARD.fullmatch(name)
            sets.setdefault(f"{match['stem']}{match['variant'] or ''}" if match else name, []).append(path / name)
        for key, files in sets.items():
            sharded = SHARD.fullmatch(files[0].name) is not None
            stem = key if sharded else Path(key).stem
            general = GENERAL.fullmatch(stem)
            name = f"{label}/{stem}" if inner else stem
            if general:
                name = f"{label}.{general['variant']}" if general["variant"] else label
            where = files[0]
            if sharded:
                where = path if len(sets) == 1 else index_of(path, stem) or where
            yield Item(name, where, tuple(files), "shards" if sharded else "file")


def index_of(folder: Path, stem: str) -> Path | None:
    """The index of the shards of that stem, which has their variant in it; None where there is none."""
    base, _, variant = stem.rpartition(".")
    names = [f"{stem}.safetensors.index.json", f"{base}.safetensors.index.{variant}.json"]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link that leads nowhere or to itself is a file."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_ours(path: Path) -> bool:
    """Whether a ``model.json`` is the record of a model of ours: other programs have files of that name too."""
    try:
        record = parse_json(read(path, MODEL_BYTES))
    except (UnnoiseError, ValueError):
        return False
    return isinstance(record, dict) and "format" in record and ("parts" in record or "components" in record)


def snapshots(repository: Path) -> Iterator[tuple[Path, str]]:
    """(folder, what follows the name) of the revisions in a hub's cache that a branch or tag names.

    ``main`` needs no more than the name. Where nothing is named, as after downloads by commit, all are taken.
    """
    named: dict[str, str] = {}
    refs = repository / "refs"
    for file in sorted(refs.rglob("*"))[:1000] if refs.is_dir() else []:
        try:
            commit = read(file, 100).decode("ascii", "replace").strip()
        except UnnoiseError:
            continue
        branch = file.relative_to(refs).as_posix()
        if re.fullmatch(r"\w{1,64}", commit) and (branch == "main" or commit not in named):
            named[commit] = "" if branch == "main" else f"@{branch}"
    try:
        commits = sorted(path.name for path in (repository / "snapshots").iterdir())[:1000]
    except OSError:
        return
    for commit in commits:
        if commit in named or not set(named) & set(commits):
            yield repository / "snapshots" / commit, named.get(commit, f"@{commit[:10]}")


def missing_shards(files: tuple[Path, ...]) -> list[str]:
    """The numbers of the shards that should lie beside these and do not."""
    matches = [match for file in files if (match := SHARD.fullmatch(file.name))]
    counts = {int(match["count"]) for match in matches}
    if len(counts) != 1 or max(counts) > 10_000:
        return ["all: they do not agree on how many they are"] if counts else []
    there = {int(match["number"]) for match in matches}
    return [str(number) for number in range(1, counts.pop() + 1) if number not in there]
