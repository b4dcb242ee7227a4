"""One model of the list of models: what it is, read from headers alone."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.errors import UnnoiseError, one_line
from unnoise.foreign import GGUF, HEAD, PICKLE, SAFETENSORS, ZIP, kind_of, parse_json, read
from unnoise.weights import roles
from unnoise.weights.families.family import recognised
from unnoise.weights.gguf import read_gguf
from unnoise.weights.header import Header, read_header
from unnoise.weights.kinds import kind_of_tensors
from unnoise.weights.quick import SHORT, quick_hash
from unnoise.weights.record import MODEL, read_record
from unnoise.weights.walk import PIPELINE, Item, missing_shards

CONFIG_BYTES = 2**20
UNREAD = "a pickle, which is never opened here"
WEIGHTY = ("unet", "transformer", "vae", "text_encoder", "prior")  # names of parts begin so that have weights


class Entry(NamedTuple):
    """A model of the list.

    Attributes:
        name: what people call it; several may have one name.
        path: its file or folder, absolute.
        kind: one of ``roles.KINDS``.
        family: such as "sdxl" or "clip-l"; "" where nothing tells it.
        what: the same in words.
        format: "safetensors", "GGUF", "unnoise", "diffusers", "pickle" or "".
        bytes: of its files of weights together.
        changed: when the youngest of these files was changed, in nanoseconds.
        quick: its quick hash; of a folder, of those of its files. "" where it could not be read.
        sha256: of its only file, where it was computed; else "".
        parts: the parts that a checkpoint holds.
        fault: what is wrong with it; "" if nothing was found.
    """

    name: str
    path: str
    kind: str
    family: str = ""
    what: str = ""
    format: str = ""
    bytes: int = 0
    changed: int = 0
    quick: str = ""
    sha256: str = ""
    parts: tuple[str, ...] = ()
    fault: str = ""

    def short(self) -> str:
        """The hash that people see: ten digits of the SHA-256 where it is known, else ~ and ten of the quick one."""
        return self.sha256[:SHORT] or (f"~{self.quick[:SHORT]}" if self.quick else "-")


def entry_of(item: Item, known: Entry | None, inside: list[Entry]) -> Entry | None:
    """The entry of a model that was found; None for the descriptions of a model without its weights.

    Args:
        item: the model.
        known: its entry of before; if its files have the same sizes and times, none is read again.
        inside: the entries of a diffusers model's parts.
    """
    blank = Entry(item.name, os.path.abspath(item.path), roles.BROKEN)
    if item.form == "diffusers":
        return of_pipeline(blank, item.path, inside)
    try:
        records = [file.stat() for file in item.files]
        if item.form == "unnoise":
            records.append((item.path / MODEL).stat())
        size, changed = sum(each.st_size for each in records), max(each.st_mtime_ns for each in records)
        blank = blank._replace(bytes=size, changed=changed)
        same = known is not None and (known.name, known.bytes, known.changed) == (item.name, size, changed)
        if known is not None and same and not known.fault:  # a fault may go without a change, as missing rights do
            return known
        return of_ours(blank, item.path) if item.form == "unnoise" else of_files(blank, item)
    except UnnoiseError as error:
        text = str(error).replace(str(item.path), item.path.name)
        return blank._replace(fault=text)
    except OSError as error:
        gone = "a link to a file that is not there" if item.path.is_symlink() else f"not readable ({error.strerror})"
        return blank._replace(fault=f"{item.path.name} is {gone}")


def of_files(blank: Entry, item: Item) -> Entry:
    """The entry of one file, or of shards that are one file together.

    Raises:
        UnnoiseError: a file cannot be read, is damaged, or is something else than its name says.
    """
    if absent := missing_shards(item.files) if item.form == "shards" else []:
        raise UnnoiseError(f"of its shards, these are missing: {', '.join(absent[:8])}", "download it again")
    head = read(item.files[0], HEAD)
    kind = kind_of(head)
    form = kind.format if kind is not None else ""
    if form in (PICKLE, ZIP) or (kind is None and head[:1] == b"\x80" and head[1:2] <= b"\x05"):
        return blank._replace(kind=roles.PICKLE, what=UNREAD, format="pickle", quick=quick_hash(item.files[0]))
    suffix = item.files[0].suffix.lower()
    if kind is None and suffix not in (".safetensors", ".sft", ".gguf"):  # pickles of the oldest form bear no mark
        group, what = (roles.OTHER, "of no kind that is known here") if suffix == ".bin" else (roles.PICKLE, UNREAD)
        return blank._replace(kind=group, what=what, quick=quick_hash(item.files[0]))
    if kind is not None and form not in (SAFETENSORS, GGUF):
        raise UnnoiseError(f"{item.path.name} is {kind.name}", kind.mend or "download the file itself")
    if form == GGUF:
        header = read_gguf(item.files[0])
    else:
        headers = [read_header(file) for file in item.files]
        tensors = {name: each for header in headers for name, each in header.tensors.items()}
        header = Header(tensors, headers[0].metadata, blank.bytes)
    finding = kind_of_tensors(header.tensors, header.metadata)
    group, family = roles.role(finding.what, header)
    if group in (roles.AUTOENCODER, roles.TINY) and family == roles.UNDECIDED:
        family = by_surroundings(item)
    what = finding.what if finding.what != "unknown" else "weights of no model that is known here"
    parts = roles.parts_of(header) if group == roles.CHECKPOINT else ()
    quick = together([quick_hash(file) for file in item.files])
    return blank._replace(
        kind=group, family=family, what=what, format="GGUF" if form == GGUF else form, parts=parts, quick=quick
    )


def by_surroundings(item: Item) -> str:
    """Whose an autoencoder with four channels is: by the config.json beside it, else by what its name says."""
    folder = item.path if item.form == "shards" and item.path.is_dir() else item.path.parent
    scale = config(folder / "config.json").get("scaling_factor")
    if isinstance(scale, float) and scale in roles.SCALES:
        return roles.SCALES[scale]
    if re.search(r"xl", item.name, re.I):
        return "sdxl"
    return "sd1" if re.search(r"ft-(mse|ema)|kl-f8|840000|560000|sd-?v?1|v1-5", item.name, re.I) else roles.UNDECIDED


def of_ours(blank: Entry, folder: Path) -> Entry:
    """The entry of a model folder of ours, by its record.

    Raises:
        UnnoiseError: the record is damaged, or a file that it names is missing.
    """
    record = read_record(folder)
    parts = tuple(str(part) for part in record["parts"])
    alone = roles.AUTOENCODER if parts == ("autoencoder",) else roles.OTHER
    kind = roles.CHECKPOINT if roles.DENOISER in parts else alone
    words = f"an unnoise model: {', '.join(parts)}"
    quick = quick_hash(folder / MODEL)  # which holds the SHA-256 of all others
    return blank._replace(kind=kind, family="unnoise", what=one_line(words), format="unnoise", parts=parts, quick=quick)


def of_pipeline(blank: Entry, folder: Path, inside: list[Entry]) -> Entry | None:
    """The entry of a model in diffusers' layout, by its index and the entries of its parts; None without weights."""
    index = config(folder / PIPELINE)
    named = [str(part) for part, value in index.items() if isinstance(value, list) and len(value) == 2 and value[1]]
    parts = {part: [e for e in inside if folder / part in (Path(e.path), Path(e.path).parent)] for part in named}
    parts = {part: entries for part, entries in parts.items() if entries}
    if not parts:
        return None
    unusable = (roles.BROKEN, roles.PICKLE)
    sound = {part for part, entries in parts.items() if any(e.kind not in unusable for e in entries)}
    entries = [entry for each in parts.values() for entry in each]
    absent = [part for part in named if part.startswith(WEIGHTY) and part not in parts]
    faults = [f"{part}: {parts[part][0].fault}" for part in parts if part not in sound and parts[part][0].fault]
    faults += [f"there are no weights for {', '.join(absent)}; download it again"] if absent else []
    pickled = "" if sound >= set(parts) else ", with parts that are pickles"
    family = next((entry.family for entry in entries if entry.kind == roles.DENOISER), "")
    if not family:  # of a network whose widths are nobody's, by the class of the pipeline
        linear = config(folder / "unet" / "config.json").get("use_linear_projection") is True
        found = recognised(None, 0, (), str(index.get("_class_name", "")), linear)
        family = found.name if found is not None else ""
    return blank._replace(
        kind=roles.BROKEN if faults else roles.PICKLE if pickled else roles.CHECKPOINT,
        family=family,
        what=one_line(f"a model in diffusers' layout: {str(index.get('_class_name', 'of no name'))[:80]}{pickled}"),
        format="diffusers",
        bytes=sum(entry.bytes for entry in entries),
        changed=max(entry.changed for entry in entries),
        quick=together([entry.quick for entry in entries]),
        parts=tuple(parts),
        fault=one_line("; ".join(faults)),
    )


def together(hashes: list[str]) -> str:
    """The hash of several files by those of each; of one, its own."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def config(path: Path) -> Mapping[str, Any]:
    """The record in a small JSON file; empty where there is none or it is damaged."""
    try:
        value = parse_json(read(path, CONFIG_BYTES))
    except (UnnoiseError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
