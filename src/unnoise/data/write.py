"""Writes a picture set: one Parquet file and a manifest, in a folder that appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unnoise.errors import UnnoiseError

FORMAT = 1  # raised when an old reader would misread a new folder
PICTURES, MANIFEST = "pictures.parquet", "manifest.json"
TIERS, PARTS = ("train", "tier1", "tier2", "autoencoder"), ("train", "validation", "test")


@dataclass(frozen=True)
class Row:
    """One captioned picture.

    ``image`` the encoded file; ``pixels`` SHA-256 (hex) of its RGB bytes; ``captions`` the canonical one first;
    ``attributes`` the same keys in every row; ``family`` whose members share a sampling weight; ``identical`` the
    index of the first row with the same pixels; ``tier`` and ``part`` as in ``splits``.
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


def existing_set(out: Path, origin: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of the same set if ``out`` already holds it, None if ``out`` is free.

    Raises:
        UnnoiseError: ``out`` is a file, or holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not out.is_dir():
        raise UnnoiseError(f"{out} is a file", "name a new folder with --out")
    try:
        manifest = json.loads((out / MANIFEST).read_text("utf-8"))
        same = manifest["format"] == FORMAT and manifest["origin"] == origin
        whole = file_sha256(out / PICTURES) == manifest["parquet_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        same = whole = False
    if same and whole:
        return manifest
    if same:
        raise UnnoiseError(f"the picture set at {out} is damaged", "remove the folder and build the set again")
    raise UnnoiseError(f"{out} holds something else", "name a new folder with --out, or remove this one")


def write_set(out: Path, rows: Sequence[Row], extra: dict[str, Any]) -> dict[str, Any]:
    """Write rows to the folder ``out``, which must be new or empty; return the manifest.

    All is written to a folder beside it, flushed to the disk and renamed, so that a failure leaves nothing behind.
    """
    out = Path(os.path.abspath(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UnnoiseError(
            f"cannot write beside {out} ({error.strerror})", "name a folder that you may write"
        ) from None
    try:
        scratch.chmod(0o755)
        _write_parquet(scratch / PICTURES, rows)
        manifest = _manifest(rows, file_sha256(scratch / PICTURES), extra)
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", "utf-8")
        for path in (scratch / PICTURES, scratch / MANIFEST, scratch):
            _flush(path)
        os.replace(scratch, out)  # replaces an empty folder too, and fails on any other
        _flush(out.parent)
    except OSError as error:
        raise UnnoiseError(f"cannot write {out} ({error.strerror})", "make room or name another folder") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return manifest


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "id": pa.array([r.id for r in rows], pa.string()),
            "image": pa.array(
                [{"bytes": r.image, "path": f"{r.id}.webp"} for r in rows],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "captions": pa.array([r.captions for r in rows], pa.list_(pa.string())),
            "attributes": pa.array([r.attributes for r in rows]),
            "family": pa.array([r.family for r in rows], pa.string()),
            "identical": pa.array([r.identical for r in rows], pa.int32()),
            "tier": pa.array([r.tier for r in rows], pa.string()),
            "part": pa.array([r.part for r in rows], pa.string()),
            "pixels_sha256": pa.array([r.pixels for r in rows], pa.string()),
        }
    )
    # the `datasets` library takes the features named here as they are and infers the others from their types
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path, row_group_size=512, compression="zstd")


def _manifest(rows: Sequence[Row], parquet_sha256: str, extra: dict[str, Any]) -> dict[str, Any]:
    tiers = Counter(f"{r.tier}/{r.part}" for r in rows)
    return {
        "format": FORMAT,
        "pictures": len(rows),
        "captions": sum(len(r.captions) for r in rows),
        "splits": dict(sorted(tiers.items())),
        "parquet_sha256": parquet_sha256,
        "pictures_sha256": _digest([r.id, r.pixels] for r in rows),
        "sha256": _digest([r.id, r.pixels, r.captions, r.attributes, r.family, r.tier, r.part] for r in rows),
        **extra,
    }


def _digest(records: Any) -> str:
    """SHA-256 over the records' JSON: of what is said, so that another compression or encoder changes nothing."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Ask the disk to keep a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
