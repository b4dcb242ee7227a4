"""Writes a picture set: one Parquet file and a manifest, in a folder that appears complete or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise import extras
from unnoise.errors import UnnoiseError
from unnoise.files import new_folder, sha256, write_json

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1  # raised when an old reader would misread a new folder
PICTURES, MANIFEST = "pictures.parquet", "manifest.json"
HINT = "name a new folder with --out, or remove this one"
TIERS, PARTS = ("train", "tier1", "tier2", "autoencoder"), ("train", "validation", "test")


@dataclass(frozen=True)
class Row:
    """One captioned picture.

    ``id`` unlike all others; ``image`` the encoded file; ``pixels`` SHA-256 (hex) of its RGB bytes; ``captions`` the
    canonical one first; ``attributes`` the same keys in every row; ``family`` whose members share a sampling weight;
    ``identical`` the index of the first row with the same pixels; ``tier`` and ``part`` as in ``splits``; ``repeats``
    how often it is trained for each time that others are trained once.
    """

    id: str
    image: bytes
    pixels: str
    captions: list[str]
    attributes: dict[str, Any]
    family: str
    identical: int
    tier: str = "train"
    part: str = "train"
    repeats: int = 1


def manifest_at(out: Path) -> dict[str, Any] | None:
    """The manifest of the set that ``out`` holds, None if ``out`` is free.

    Raises:
        UnnoiseError: ``out`` is a file, or holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not out.is_dir():
        raise UnnoiseError(f"{out} is a file", "name a new folder with --out")
    try:
        manifest = json.loads((out / MANIFEST).read_text("utf-8"))
        if {"format", "origin", "parquet_sha256"} <= manifest.keys() and (out / PICTURES).is_file():
            return dict(manifest)
    except (AttributeError, OSError, RecursionError, ValueError):
        pass
    raise UnnoiseError(f"{out} holds something else", HINT)


def existing_set(
    out: Path, origin: dict[str, Any], other: str = "a set from another font or other versions of Pillow or emoji"
) -> dict[str, Any] | None:
    """The manifest of the same set if ``out`` already holds it, None if ``out`` is free.

    Raises:
        UnnoiseError: ``out`` is a file, holds something else, or a set of another origin, described by ``other``.
    """
    manifest = manifest_at(out)
    if manifest is None:
        return None
    if manifest["format"] != FORMAT or manifest["origin"] != origin:
        raise UnnoiseError(f"{out} holds {other}", HINT)
    try:
        whole = sha256(out / PICTURES) == manifest["parquet_sha256"]
    except OSError:
        whole = False
    if not whole:
        raise UnnoiseError(f"the picture set at {out} is damaged", "remove the folder and build the set again")
    return manifest


def write_set(
    out: Path, rows: Sequence[Row], extra: dict[str, Any], beside: Mapping[str, bytes] | None = None
) -> dict[str, Any]:
    """Write rows to the folder ``out``, which must be new or empty, and files ``beside`` them; return the manifest.

    Everything is written to a scratch folder beside it, flushed and renamed, so that a failure leaves nothing behind.
    """
    out = Path(os.path.abspath(out))
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    with new_folder(out) as scratch:
        table = _table(rows)
        _write_parquet(scratch / PICTURES, table)
        manifest = _manifest(table, sha256(scratch / PICTURES), extra)
        write_json(scratch / MANIFEST, manifest)
        for name, data in (beside or {}).items():
            (scratch / name).write_bytes(data)
    return manifest


def content_hashes(table: pa.Table) -> dict[str, str]:
    """``pictures_sha256`` of ids and pixels, ``sha256`` of these with captions, attributes and split.

    They cover the rows' content, so that another compression or encoder of the same pictures changes nothing.
    """
    columns = {name: table.column(name).to_pylist() for name in table.column_names if name != "image"}
    names = [name for name in sorted(columns) if name != "identical"]  # which follows from the pixels
    return {
        "pictures_sha256": _digest(zip(columns["id"], columns["pixels_sha256"], strict=True)),
        "sha256": _digest(zip(*(columns[name] for name in names), strict=True)),
    }


def _table(rows: Sequence[Row]) -> pa.Table:
    pa = extras.load("pyarrow")
    columns = {
        "id": pa.array([r.id for r in rows], pa.string()),
        "image": pa.array(
            [{"bytes": r.image, "path": f"{r.id}.webp"} for r in rows],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
        "captions": pa.array([r.captions for r in rows], pa.list_(pa.string())),
        "family": pa.array([r.family for r in rows], pa.string()),
        "identical": pa.array([r.identical for r in rows], pa.int32()),
        "tier": pa.array([r.tier for r in rows], pa.string()),
        "part": pa.array([r.part for r in rows], pa.string()),
        "pixels_sha256": pa.array([r.pixels for r in rows], pa.string()),
    }
    if any(r.attributes for r in rows):  # Parquet knows no record without fields
        columns["attributes"] = pa.array([r.attributes for r in rows])
    if any(r.repeats != 1 for r in rows):  # without the column older sets keep their hash
        columns["repeats"] = pa.array([r.repeats for r in rows], pa.int32())
    # the `datasets` library uses the features named here and infers the others from their types
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    return pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features)})


def _write_parquet(path: Path, table: pa.Table) -> None:
    extras.load("pyarrow.parquet").write_table(table, path, row_group_size=512, compression="zstd")


def _manifest(table: pa.Table, parquet_sha256: str, extra: dict[str, Any]) -> dict[str, Any]:
    tiers, parts, captions = (table.column(name).to_pylist() for name in ("tier", "part", "captions"))
    return {
        "format": FORMAT,
        "pictures": len(table),
        "captions": sum(1 for texts in captions for caption in texts if caption),
        "splits": dict(sorted(Counter(f"{t}/{p}" for t, p in zip(tiers, parts, strict=True)).items())),
        "parquet_sha256": parquet_sha256,
        **content_hashes(table),
        **extra,
    }


def _digest(records: Iterable[Any]) -> str:
    """SHA-256 (hex) over the records' JSON, a line each."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
