"""Where the tensors of other tools' files lie: one file, shards with their index, or a part's folder. Headers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unnoise.errors import UnnoiseError
from unnoise.files import expanded
from unnoise.foreign import GGUF, HEAD, PICKLE, ZIP, kind_of, parse_json, read
from unnoise.weights.gguf import gguf_spans
from unnoise.weights.header import read_header
from unnoise.weights.shapes import Place, Shapes

if TYPE_CHECKING:
    from torch import Tensor

INDEX = ".safetensors.index.json"
STEMS = ("diffusion_pytorch_model", "model")  # of the files in a part's folder, as diffusers and transformers call them
PICKLED = (".bin", ".ckpt", ".pt", ".pth")
MAX_RECORD, MAX_SHARDS = 2**25, 1000  # bytes of a JSON file beside weights, and files that an index may name
CONVERT = "make safetensors of it: `unnoise convert {}`"


class Source(NamedTuple):
    """Tensors that belong together, by the names in their files.

    Attributes:
        path: the file or folder, for messages.
        places: where each tensor lies.
        metadata: the strings of the headers.
        config: what a ``config.json`` beside them says; None where there is none.
    """

    path: Path
    places: Mapping[str, Place]
    metadata: Mapping[str, str] = {}
    config: Mapping[str, Any] | None = None

    @property
    def shapes(self) -> Shapes:
        """Names, types and shapes, as recognisers take them."""
        return {name: (place.dtype, place.shape) for name, place in self.places.items()}

    @property
    def files(self) -> list[Path]:
        """The files, each once."""
        return list(dict.fromkeys(place.file for place in self.places.values()))

    @property
    def what(self) -> str:
        """What it is, in words; "unknown" where nothing tells."""
        from unnoise.weights.kinds import kind_of_tensors  # large tables, for what is refused

        return kind_of_tensors(self.shapes, self.metadata).what

    def tensors(self, names: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of those names, mapped where the file is safetensors.

        Raises:
            UnnoiseError: a file is damaged.
        """
        from unnoise.weights.shards import mapped  # torch, without which headers are read

        yield from mapped({name: self.places[name] for name in names})


def open_source(path: Path) -> Source:
    """The tensors of a file, of shards by their index, or of the folder of one part.

    Raises:
        UnnoiseError: there are none, a file is missing, damaged or of another kind, or an index points elsewhere.
    """
    path = expanded(path)
    if path.is_dir():
        return of_folder(path)
    if path.name.endswith(INDEX) or path.suffix == ".json":
        return of_index(path)
    return of_file(path)


def of_file(path: Path) -> Source:
    """The tensors of one file, safetensors or GGUF, whatever its name says.

    Raises:
        UnnoiseError: it is another kind of file, which is named, or a damaged one.
    """
    kind = kind_of(read(path, HEAD))
    if kind is not None and kind.format in (PICKLE, ZIP):
        raise UnnoiseError(f"{path} is {kind.name}, which can run code", CONVERT.format(path))
    if kind is not None and kind.format == GGUF:
        spans = gguf_spans(path)
        return Source(path, {n: Place(path, n, span.dtype, span.shape, span.start) for n, span in spans.items()})
    header = read_header(path)
    places = {name: Place(path, name, dtype, tuple(shape or ())) for name, (dtype, shape) in header.tensors.items()}
    return Source(path, places, header.metadata)


def of_index(path: Path) -> Source:
    """The tensors of the shards that an index names, which lie beside it.

    Raises:
        UnnoiseError: the index is damaged or points elsewhere, or a shard is missing or lacks a tensor.
    """
    damaged = UnnoiseError(f"{path} is no index of shards", "download it again")
    try:
        table = parse_json(read(path, MAX_RECORD))["weight_map"]
        names = {str(file) for file in table.values()}
    except (AttributeError, LookupError, TypeError, ValueError):
        raise damaged from None
    if not names or len(names) > MAX_SHARDS:
        raise damaged
    for name in sorted(names):
        if Path(name).name != name or not name.strip(".") or not name.endswith(".safetensors"):
            raise UnnoiseError(f"{path} points to {name[:80]!r}, which is no file beside it", "download it again")
    missing = sorted(name for name in names if not (path.parent / name).is_file())
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UnnoiseError(f"{path.parent} lacks {', '.join(missing[:3])}{more}", "download these files too")
    shards = {name: of_file(path.parent / name) for name in sorted(names)}
    places = {tensor: shards[str(file)].places.get(tensor) for tensor, file in table.items()}
    lost = [tensor for tensor, place in places.items() if place is None]
    if lost:
        raise UnnoiseError(f"{path.parent / table[lost[0]]} lacks {lost[0][:80]!r}", "download this file again")
    metadata = {key: value for shard in shards.values() for key, value in shard.metadata.items()}
    return Source(path.parent, {tensor: place for tensor, place in places.items() if place is not None}, metadata)


def of_folder(folder: Path, variant: str = "") -> Source:
    """The tensors of one part, as diffusers and transformers save it: config.json, and weights whole or in shards.

    Of several variants the plain one is taken, then fp16, then the first by name.

    Args:
        variant: such as "fp16" or "non_ema"; "" chooses.

    Raises:
        UnnoiseError: there are no weights that are read here, or ``of_index`` raises.
    """
    config = read_config(folder / "config.json")
    names = sorted(each.name for each in folder.iterdir() if each.is_file()) if folder.is_dir() else []
    files: dict[str, str] = {}  # {variant: file}, an index before the whole
    for name in names:
        key = variant_of(name)
        if key is not None and (name.endswith(".json") or key not in files):
            files[key] = name
    if variant and variant not in files:
        raise UnnoiseError(f"{folder} has no variant {variant}", f"it has: {', '.join(k or 'plain' for k in files)}")
    if not files:
        pickled = [name for name in names if name.endswith(PICKLED)]
        if pickled:
            raise UnnoiseError(f"{folder} has pickles alone, which can run code", CONVERT.format(folder / pickled[0]))
        raise UnnoiseError(f"{folder} has no weights", "download it again, with its .safetensors files")
    chosen = files[variant] if variant else files.get("", files.get("fp16", files[min(files)]))
    path = folder / chosen
    source = of_index(path) if chosen.endswith(".json") else of_file(path)
    return source._replace(path=folder, config=config)


def holds_part(folder: Path) -> bool:
    """Whether a folder is that of one part, with its config.json and weights."""
    return (folder / "config.json").is_file() and any(variant_of(each.name) is not None for each in folder.iterdir())


def variant_of(name: str) -> str | None:
    """The variant that a file of weights, or an index, is of; "" for the plain one, None where it is neither."""
    for stem in STEMS:
        if not name.startswith(f"{stem}."):
            continue
        middle = name[len(stem) :]
        if middle == INDEX or middle == ".safetensors":
            return ""
        if middle.startswith(INDEX.removesuffix("json")) and middle.endswith(".json"):
            return middle[len(INDEX) - len("json") : -len(".json")]
        if middle.endswith(".safetensors") and "-of-" not in middle:
            return middle[1 : -len(".safetensors")]
    return None


def read_config(path: Path) -> dict[str, Any] | None:
    """A record of settings in JSON; None where there is none.

    Raises:
        UnnoiseError: it is damaged.
    """
    if not path.is_file():
        return None
    try:
        value = parse_json(read(path, MAX_RECORD))
    except ValueError as error:
        raise UnnoiseError(f"{path} is damaged ({error})", "download it again") from None
    if not isinstance(value, dict):
        raise UnnoiseError(f"{path} is no record of settings", "download it again")
    return value
